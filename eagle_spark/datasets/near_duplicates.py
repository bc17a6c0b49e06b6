"""Near duplicates among many images, by their perceptual hashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 28
"""Bits of 256.

Measured on 13,348 chest X-rays (89 million pairs, half of them more than 120 bits apart): copies
compressed again at JPEG quality 50 to 95, resized to 150 to 1024 pixels, or made darker or brighter
by 15 % differ by 0 to 21 bits. The pairs looked at below 36 bits are one picture, or one patient
taken twice; above 40 different patients begin, and their number doubles every 3 bits. Of copies
that lost 1 % at each border, 3 % are missed.
"""

_BAND_BITS = 32
_PAIRS_AT_ONCE = 1 << 20


def near_duplicate_groups(
    hashes: Sequence[bytes], max_distance: int = MAX_DISTANCE
) -> NDArray[np.int64]:
    """Return the group of each hash; hashes at most `max_distance` bits apart share one.

    Groups are the connected components of that relation, numbered from 0 in the order of their
    first members. They are exact, though not all pairs are compared: the bits are cut into
    `max_distance // 2 + 1` bands, and two hashes that differ in no more than `max_distance` bits
    differ in at most one bit of some band. So for every bit of every band, only hashes that are
    equal in the rest of the band are compared, and of these only pairs not yet in one group.

    Raises:
        ValueError: when the hashes differ in length or `max_distance` is negative.
    """
    if max_distance < 0:
        raise ValueError(f"`max_distance` is 0 or more; got {max_distance}")
    lengths = {len(one) for one in hashes}
    if len(lengths) > 1:
        raise ValueError(f"hashes of one length wanted; got {sorted(lengths)} bytes")
    if not any(lengths):
        return np.zeros(len(hashes), np.int64)
    place = {one: number for number, one in enumerate(dict.fromkeys(hashes))}
    rows = _rows(list(place))
    words = _words(rows)
    labels = np.arange(len(rows))
    for keys in _keys(rows, max_distance // 2 + 1):
        labels = _join_equal(keys, words, labels, max_distance)
    return _numbered(labels[[place[one] for one in hashes]])


def nearest(
    hashes: Sequence[bytes], others: Sequence[bytes]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each hash the place of the nearest of `others`, 1 or more, and its distance.

    Compares all pairs: for the few of a group of near duplicates.
    """
    mine, theirs = _words(_rows(hashes)), _words(_rows(others))
    found = []
    for rows in np.array_split(mine, -(-len(hashes) * len(others) // _PAIRS_AT_ONCE), axis=1):
        apart = np.zeros((rows.shape[1], len(others)), np.int64)
        for row, other in zip(rows, theirs, strict=True):
            apart += np.bitwise_count(row[:, None] ^ other)
        found.append(np.stack((apart.argmin(axis=1), apart.min(axis=1))))
    places, distances = np.concatenate(found, axis=1)
    return places, distances


def connected_components(count: int, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the component of each of `count` nodes, numbered in the order of first members.

    Args:
        edges: `(m, 2)` nodes, each below `count`; direction, repeats and loops do not matter.
    """
    labels = np.arange(count)
    left, right = edges[:, 0], edges[:, 1]
    while True:
        ends = np.sort(np.stack((labels[left], labels[right])), axis=0)
        apart = ends[0] != ends[1]
        if not apart.any():
            return _numbered(labels)
        left, right = left[apart], right[apart]
        # Labels are roots here. The larger root of an edge hangs below the smaller one; then
        # every node looks up its new root.
        np.minimum.at(labels, ends[1, apart], ends[0, apart])
        while not np.array_equal(labels, above := labels[labels]):
            labels = above


def _numbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number labels from 0 in the order in which they first appear."""
    _, first, member = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[member]


def _rows(hashes: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)


def _words(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return `(count, length)` bytes as `(words, count)`, padded with zeros to whole words."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _keys(rows: NDArray[np.uint8], bands: int) -> Iterator[NDArray[np.int64]]:
    """Yield one integer per row for every bit of every band: the band without that bit."""
    bits = np.unpackbits(rows, axis=1)
    # Bits of like frequency go together; dealt out at random, no band is much alike everywhere.
    order = np.random.default_rng(0).permutation(bits.shape[1])
    for band in np.array_split(order, min(bands, len(order))):
        band = band[:_BAND_BITS]  # less of a band only means more pairs to look at
        powers = np.int64(1) << np.arange(len(band), dtype=np.int64)
        whole = bits[:, band] @ powers
        for power in powers:
            yield whole & ~power


def _join_equal(
    keys: NDArray[np.int64],
    words: NDArray[np.uint64],
    labels: NDArray[np.int64],
    max_distance: int,
) -> NDArray[np.int64]:
    """Return the labels with those of near rows joined, among rows of equal keys."""
    while True:
        order = np.argsort(keys * len(labels) + labels)
        ordered = keys[order]
        first = _run_ends(ordered * len(labels) + labels[order])  # past the rows of one's label
        last = _run_ends(ordered)
        # The next label only: a crowd of copies grows together so, and its pairs are then skipped.
        joined = _join(order, first, np.minimum(first + 1, last), words, labels, max_distance)
        if np.array_equal(joined, labels):
            return _join(order, first, last, words, labels, max_distance)
        labels = joined


def _join(
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    words: NDArray[np.uint64],
    labels: NDArray[np.int64],
    max_distance: int,
) -> NDArray[np.int64]:
    """Compare each place of `order` with the places from `first` to `last`; join the near ones."""
    for left, right in _pairs(first, last):
        left, right = order[left], order[right]
        apart = labels[left] != labels[right]
        left, right = left[apart], right[apart]
        distance = np.zeros(len(left), np.int64)
        for word in words:
            distance += np.bitwise_count(word[left] ^ word[right])
            near = distance <= max_distance
            left, right, distance = left[near], right[near], distance[near]
        if len(left):
            edges = np.stack((labels[left], labels[right]), axis=1)
            labels = connected_components(len(labels), edges)[labels]
    return labels


def _run_ends(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each place of a sorted array where the run of its value ends."""
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, len(values))
    return np.repeat(ends, np.diff(ends, prepend=0))


def _pairs(
    first: NDArray[np.int64], last: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs (i, j) with `first[i] <= j < last[i]`, about `_PAIRS_AT_ONCE` at a time."""
    starts = np.flatnonzero(last > first)
    counts = (last - first)[starts]
    after = np.cumsum(counts)
    done, position = 0, 0
    while position < len(starts):
        stop = max(position + 1, int(np.searchsorted(after, done + _PAIRS_AT_ONCE, "right")))
        some, total = counts[position:stop], int(after[stop - 1]) - done
        shift = first[starts[position:stop]] - (after[position:stop] - some - done)
        left = np.repeat(starts[position:stop], some)
        yield left, np.arange(total) + np.repeat(shift, some)
        done, position = int(after[stop - 1]), stop
