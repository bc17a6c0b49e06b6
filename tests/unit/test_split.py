from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagle_spark.datasets.split import (
    SPLITS,
    assign_splits,
    find_conflicting_labels,
    group_images,
    parse_fractions,
)
from eagle_spark.errors import SettingsError

USUAL = (0.7, 0.1, 0.2)
FAR = [np.random.default_rng(n).bytes(32) for n in range(9)]


def near(hashed: bytes) -> bytes:
    """Return a hash one bit away."""
    return bytes([hashed[0] ^ 1]) + hashed[1:]


def ids(count: int) -> list[str]:
    return [f"{n:064x}" for n in range(count)]


def together(groups: Sequence[int]) -> list[list[int]]:
    members = defaultdict(list)
    for at, group in enumerate(groups):
        members[int(group)].append(at)
    return sorted(members.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.7,0.1,0.2", (0.7, 0.1, 0.2)), (" 1, 0 ,0", (1, 0, 0)), (".5,.2,0.3000001", None)],
)
def test_fractions_are_read(text: str, expected: tuple[float, float, float] | None) -> None:
    assert parse_fractions(text) == (expected or (0.5, 0.2, 0.3000001))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.7,0.3",
        "0.7,0.1,0.1,0.1",
        "0.7,0.1,0.3",
        "0,0.5,0.5",
        "1.2,-0.4,0.2",
        "a,b,c",
        "nan,0,1",
        "inf,0,0",
        "0.7;0.1;0.2",
    ],
)
def test_bad_fractions_are_refused_with_the_parameter(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^`split`: wanted three numbers") as error:
        parse_fractions(text)
    assert str(error.value).endswith(repr(text))


def test_images_of_one_patient_are_one_group() -> None:
    groups = group_images(["s/p1", "s/p2", "s/p1"], ids(3), FAR[:3])
    assert together(groups) == [[0, 2], [1]]
    assert groups.dtype == np.int64


def test_each_image_without_a_patient_is_a_group() -> None:
    assert together(group_images([None] * 3, ids(3), FAR[:3])) == [[0], [1], [2]]


def test_equal_bytes_join_even_two_known_patients() -> None:
    groups = group_images(["p1", "p1", "p2", "p2"], ["a", "b", "b", "c"], FAR[:4])
    assert together(groups) == [[0, 1, 2, 3]]


def test_near_duplicates_stay_together_whatever_their_patients() -> None:
    groups = group_images(["p1", "p2"], ids(2), [FAR[0], near(FAR[0])])
    assert together(groups) == [[0, 1]]


def test_an_image_of_no_known_patient_joins_its_near_duplicate_and_so_the_patient() -> None:
    groups = group_images(["p1", "p1", None], ids(3), [FAR[0], FAR[1], near(FAR[1])])
    assert together(groups) == [[0, 1, 2]]


def test_near_duplicates_of_no_known_patient_are_one_group() -> None:
    groups = group_images([None, None, None], ids(3), [FAR[0], FAR[1], near(FAR[0])])
    assert together(groups) == [[0, 2], [1]]


def test_an_image_of_no_known_patient_near_to_two_patients_leaks_to_neither() -> None:
    groups = group_images(["p1", "p2", None], ids(3), [FAR[0], FAR[0], near(FAR[0])])
    assert together(groups) == [[0, 1, 2]]


def test_no_images_are_no_groups() -> None:
    assert group_images([], [], []).shape == (0,)
    assert assign_splits(np.zeros(0, np.int64), [], [], USUAL, 1) == []


def test_fractions_are_met_per_label() -> None:
    labels = ["Normal"] * 700 + ["COVID"] * 200 + ["Viral Pneumonia"] * 100
    splits = assign_splits(np.arange(1000), labels, ids(1000), USUAL, 7)
    counts = Counter(zip(labels, splits, strict=True))
    assert [counts["Normal", split] for split in SPLITS] == [490, 70, 140]
    assert [counts["COVID", split] for split in SPLITS] == [140, 20, 40]
    assert [counts["Viral Pneumonia", split] for split in SPLITS] == [70, 10, 20]


def test_splits_depend_on_the_seed_and_not_on_the_order() -> None:
    groups = np.arange(300) // 2
    labels = [f"c{n % 3}" for n in groups]
    splits = assign_splits(groups, labels, ids(300), USUAL, 1)
    assert splits == assign_splits(groups, labels, ids(300), USUAL, 1)
    assert splits != assign_splits(groups, labels, ids(300), USUAL, 2)
    order = random.Random(0).sample(range(300), 300)
    renumbered = [9999 - groups[at] for at in order]
    shuffled = assign_splits(
        np.array(renumbered), [labels[at] for at in order], [ids(300)[at] for at in order], USUAL, 1
    )
    assert shuffled == [splits[at] for at in order]


def test_large_groups_do_not_all_go_to_train() -> None:
    sizes = [20] * 10 + [1] * 800
    groups = np.repeat(np.arange(len(sizes)), sizes)
    splits = assign_splits(groups, ["A"] * len(groups), ids(len(groups)), USUAL, 3)
    large = Counter(splits[:200:20])
    assert (large["train"], large["val"], large["test"]) == (7, 1, 2)
    assert [splits.count(split) for split in SPLITS] == [700, 100, 200]


def test_small_groups_compensate_for_a_large_one() -> None:
    groups = np.repeat(np.arange(71), [30] + [1] * 70)
    splits = assign_splits(groups, ["A"] * 100, ids(100), USUAL, 3)
    assert [splits.count(split) for split in SPLITS] == [70, 10, 20]


def test_a_label_of_three_groups_is_in_every_split() -> None:
    labels = ["rare"] * 3 + ["common"] * 500
    splits = assign_splits(np.arange(503), labels, ids(503), USUAL, 5)
    assert sorted(splits[:3]) == sorted(SPLITS)


def test_a_fraction_of_0_gets_no_image() -> None:
    splits = assign_splits(np.arange(50), ["A"] * 50, ids(50), (0.8, 0.0, 0.2), 5)
    assert Counter(splits) == {"train": 40, "test": 10}


def test_existing_rows_keep_their_splits_and_new_rows_compensate() -> None:
    fixed = ["train"] * 100 + [None] * 100
    splits = assign_splits(np.arange(200), ["A"] * 200, ids(200), USUAL, 5, fixed)
    assert splits[:100] == ["train"] * 100
    assert [splits.count(split) for split in SPLITS] == [140, 20, 40]


def test_a_new_image_follows_the_fixed_ones_of_its_group() -> None:
    groups = np.array([0, 0, 1, 1])
    fixed = ["test", None, None, "val"]
    splits = assign_splits(groups, ["A"] * 4, ids(4), (1.0, 0.0, 0.0), 5, fixed)
    assert splits == ["test", "test", "val", "val"]


def test_fixed_images_are_never_moved_to_fill_a_gap() -> None:
    splits = assign_splits(np.arange(4), ["A"] * 4, ids(4), USUAL, 5, ["test"] * 4)
    assert splits == ["test"] * 4


@pytest.mark.parametrize(
    ("fixed", "split"),
    [(("test", "train"), "train"), (("test", "val"), "val"), (("val", "train"), "train")],
)
def test_a_new_image_between_two_splits_draws_both_to_the_one_nearer_to_train(
    fixed: tuple[str, str], split: str
) -> None:
    splits = assign_splits(np.zeros(3, np.int64), ["A"] * 3, ids(3), USUAL, 5, [*fixed, None])
    assert splits == [split] * 3


@given(st.data())
def test_no_group_is_in_two_splits_and_every_row_has_one(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    groups = data.draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    labels = data.draw(st.lists(st.sampled_from("ABC"), min_size=count, max_size=count))
    fixed = data.draw(st.lists(st.sampled_from([*SPLITS, None]), min_size=count, max_size=count))
    fractions = data.draw(st.sampled_from([USUAL, (1.0, 0.0, 0.0), (0.4, 0.3, 0.3)]))
    splits = assign_splits(np.array(groups), labels, ids(count), fractions, 11, fixed)
    assert len(splits) == count
    assert set(splits) <= set(SPLITS)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 4)), min_size=1, max_size=150),
    st.sampled_from([USUAL, (0.5, 0.25, 0.25), (0.8, 0.0, 0.2), (0.9, 0.05, 0.05)]),
    st.integers(0, 5),
)
def test_fractions_are_met_within_a_group_or_two_and_no_label_is_left_out(
    drawn: list[tuple[str, int]], fractions: tuple[float, float, float], seed: int
) -> None:
    sizes = [size for _, size in drawn]
    groups = np.repeat(np.arange(len(drawn)), sizes)
    labels = [label for label, size in drawn for _ in range(size)]
    splits = assign_splits(groups, labels, ids(len(labels)), fractions, seed)
    counts = Counter(zip(labels, splits, strict=True))
    for label, total in Counter(labels).items():
        for split, fraction in zip(SPLITS, fractions, strict=True):
            assert abs(counts[label, split] - total * fraction) <= 2 * 4
            if fraction and sum(name == label for name, _ in drawn) >= 3:
                assert counts[label, split]


def test_fifty_thousand_images_take_seconds() -> None:
    groups = np.arange(50_000) // 2
    labels = [f"c{n % 3}" for n in groups]
    started = time.process_time()
    splits = assign_splits(groups, labels, ids(50_000), USUAL, 5)
    assert time.process_time() - started < 4
    assert Counter(splits)["train"] == pytest.approx(35_000, abs=6)


def test_equal_bytes_under_two_labels_are_all_marked() -> None:
    conflicts = find_conflicting_labels(
        ["a", "b", "a", "c", "b", "a"], ["X", "X", "Y", "Y", "X", "X"]
    )
    assert conflicts.tolist() == [True, False, True, False, False, True]
    assert conflicts.dtype == np.bool_
    assert find_conflicting_labels([], []).shape == (0,)
