from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eagle_spark.datasets import near_duplicates as duplicates
from eagle_spark.datasets.near_duplicates import (
    MAX_DISTANCE,
    connected_components,
    group_near_duplicates,
)

Bits = NDArray[np.bool_]


def packed(bits: Bits) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(bits, axis=1)]


def by_definition(bits: Bits, max_distance: int) -> list[int]:
    """All pairs, and a search through the graph."""
    near = (bits[:, None] != bits[None]).sum(axis=2) <= max_distance
    groups = [-1] * len(bits)
    for start in range(len(bits)):
        if groups[start] < 0:
            group, todo = max(groups) + 1, [start]
            while todo:
                node = todo.pop()
                if groups[node] < 0:
                    groups[node] = group
                    todo.extend(np.flatnonzero(near[node]).tolist())
    return groups


def crowd(seed: int, flips: float, families: int = 5, members: int = 30) -> Bits:
    """Families of hashes: each member is its family's hash with some bits flipped."""
    rng = np.random.default_rng(seed)
    heads = rng.random((families, 256)) < 0.5
    bits: Bits = np.repeat(heads, members, axis=0) ^ (rng.random((families * members, 256)) < flips)
    return bits[rng.permutation(len(bits))]


@pytest.mark.parametrize("flips", [0.0, 0.02, 0.05, 0.06, 0.07, 0.3])
@pytest.mark.parametrize("max_distance", [0, 1, 7, MAX_DISTANCE])
def test_groups_are_those_of_all_pairs(flips: float, max_distance: int) -> None:
    bits = crowd(int(flips * 100) + max_distance, flips)
    groups = group_near_duplicates(packed(bits), max_distance)
    assert groups.tolist() == by_definition(bits, max_distance)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**16 - 1), max_size=40), st.integers(0, 16))
def test_short_hashes_and_any_distance_agree_with_all_pairs(
    values: list[int], max_distance: int
) -> None:
    hashes = [value.to_bytes(2, "big") for value in values]
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 2), axis=1)
    expected = by_definition(bits.astype(bool), max_distance)
    assert group_near_duplicates(hashes, max_distance).tolist() == expected


@pytest.mark.parametrize("distance", [MAX_DISTANCE, MAX_DISTANCE + 1])
def test_pairs_are_grouped_up_to_the_limit_and_not_beyond(distance: int) -> None:
    rng = np.random.default_rng(distance)
    left = rng.random((400, 256)) < 0.5
    right = left.copy()
    for row in right:
        row[rng.choice(256, distance, replace=False)] ^= True
    groups = group_near_duplicates(packed(np.concatenate([left, right])))
    assert (groups[:400] == groups[400:]).all() == (distance <= MAX_DISTANCE)
    assert len(np.unique(groups)) == (400 if distance <= MAX_DISTANCE else 800)


def test_groups_do_not_depend_on_how_many_pairs_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashes = packed(crowd(3, 0.06))
    expected = group_near_duplicates(hashes).tolist()
    monkeypatch.setattr(duplicates, "_PAIRS_PER_CHUNK", 3)
    assert group_near_duplicates(hashes).tolist() == expected


def test_no_hashes_no_groups() -> None:
    assert group_near_duplicates([]).tolist() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: group_near_duplicates([b"abcd", b"abc"]),
        lambda: group_near_duplicates([b"abcd"], max_distance=-1),
    ],
    ids=["lengths", "distance"],
)
def test_wrong_arguments_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"one length; got \[3, 4\]|0 or more; got -1"):
        call()


def test_many_equal_hashes_are_fast() -> None:
    assert (group_near_duplicates([bytes(32)] * 100_000) == 0).all()


@pytest.mark.extended("100,000 hashes", seconds=5)
def test_100_000_hashes_with_a_crowd_of_copies_take_seconds() -> None:
    rng = np.random.default_rng(0)
    others = packed(rng.random((80_000, 256)) < 0.5)
    copies = packed(np.ones((20_000, 256), bool) ^ (rng.random((20_000, 256)) < 0.03))
    groups = group_near_duplicates(others + copies)
    assert len(np.unique(groups[:80_000])) == 80_000
    assert (groups[80_000:] == groups[-1]).all()


@pytest.mark.parametrize(
    ("count", "edges", "expected"),
    [
        (0, [], []),
        (3, [], [0, 1, 2]),
        (4, [(3, 1)], [0, 1, 2, 1]),
        (5, [(4, 0), (3, 4), (1, 1), (0, 3)], [0, 1, 2, 0, 0]),
        (5, [(4, 2), (2, 0), (3, 1)], [0, 1, 0, 1, 0]),
    ],
)
def test_components(count: int, edges: list[tuple[int, int]], expected: list[int]) -> None:
    components = connected_components(count, np.array(edges, np.int64).reshape(-1, 2))
    assert components.tolist() == expected


@pytest.mark.parametrize("shape", ["path", "shuffled", "star"])
def test_one_long_component_is_found(shape: str) -> None:
    nodes = np.arange(50_000)
    if shape == "shuffled":
        nodes = np.random.default_rng(0).permutation(nodes)
    left = np.full(49_999, nodes[-1]) if shape == "star" else nodes[:-1]
    edges = np.stack((left, nodes[:-1] if shape == "star" else nodes[1:]), axis=1)
    assert (connected_components(50_000, edges) == 0).all()
