"""Find near duplicates among many images by their perceptual hashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_DISTANCE = 28
"""Largest distance of near duplicates, in bits of 256.

Measured on 13,348 chest X-rays (89 million pairs, half of them more than 120 bits apart): copies
recompressed at JPEG quality 50 to 95, resized to 150 to 1024 pixels, or made darker or brighter by
15 % differ in 0 to 21 bits. The inspected pairs below 36 bits show one picture or one patient
twice; above 40 bits pairs of different patients occur, and their number doubles every 3 bits. 3 %
of the copies cropped by 1 % at each border are missed.
"""

_BAND_BITS = 32
_PAIRS_PER_CHUNK = 1 << 20


def group_near_duplicates(
    hashes: Sequence[bytes], max_distance: int = MAX_DISTANCE
) -> NDArray[np.int64]:
    """Return the group of each hash; hashes at most `max_distance` bits apart share a group.

    Groups are the connected components of that relation, numbered from 0 in the order of their
    first members. They are exact, although not all pairs are compared: the bits are divided into
    `max_distance // 2 + 1` bands, and two hashes that differ in at most `max_distance` bits differ
    in at most one bit of some band. So for every bit of every band, only hashes that agree in the
    rest of the band are compared, and of these only pairs that are not yet in one group.

    Args:
        hashes: perceptual hashes of equal length.
        max_distance: largest distance of near duplicates, in bits.

    Returns:
        int64, shape (hashes,).

    Raises:
        ValueError: when the hashes differ in length or `max_distance` is negative.
    """
    if max_distance < 0:
        raise ValueError(f"max_distance: wanted 0 or more; got {max_distance}")
    lengths = {len(value) for value in hashes}
    if len(lengths) > 1:
        raise ValueError(f"hashes: wanted one length; got {sorted(lengths)} bytes")
    if not any(lengths):
        return np.zeros(len(hashes), np.int64)
    row_by_hash = {value: row for row, value in enumerate(dict.fromkeys(hashes))}
    rows = _to_byte_rows(list(row_by_hash))
    words = _to_words(rows)
    labels = np.arange(len(rows))
    for keys in _band_keys(rows, max_distance // 2 + 1):
        labels = _join_near_rows(keys, words, labels, max_distance)
    return _renumber(labels[[row_by_hash[value] for value in hashes]])


def find_nearest(
    hashes: Sequence[bytes], others: Sequence[bytes]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each hash the index of the nearest of `others` and its distance in bits.

    Compares all pairs, so it is meant for the few hashes of one group. `others` is not empty.
    """
    words, other_words = _to_words(_to_byte_rows(hashes)), _to_words(_to_byte_rows(others))
    chunk_count = -(-len(hashes) * len(others) // _PAIRS_PER_CHUNK)
    nearest = []
    for chunk in np.array_split(words, chunk_count, axis=1):
        distances = np.zeros((chunk.shape[1], len(others)), np.int64)
        for word, other in zip(chunk, other_words, strict=True):
            distances += np.bitwise_count(word[:, None] ^ other)
        nearest.append(np.stack((distances.argmin(axis=1), distances.min(axis=1))))
    indices, nearest_distances = np.concatenate(nearest, axis=1)
    return indices, nearest_distances


def connected_components(count: int, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the component of each node, numbered in the order of first members.

    Args:
        count: number of nodes.
        edges: int64, shape (edges, 2): nodes below `count`; direction, repeats and loops do not
            matter.

    Returns:
        int64, shape (count,).
    """
    labels = np.arange(count)
    left, right = edges[:, 0], edges[:, 1]
    while True:
        roots = np.sort(np.stack((labels[left], labels[right])), axis=0)
        separate = roots[0] != roots[1]
        if not separate.any():
            return _renumber(labels)
        left, right = left[separate], right[separate]
        # Labels are roots here. The smaller root of an edge becomes the parent of the larger one;
        # then every node takes the root of its label.
        np.minimum.at(labels, roots[1, separate], roots[0, separate])
        while not np.array_equal(labels, parents := labels[labels]):
            labels = parents


def _renumber(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Renumber labels from 0 in the order of their first occurrence."""
    _, first, member = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[member]


def _to_byte_rows(hashes: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)


def _to_words(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return uint8 (count, length) as uint64 (words, count), padded with zeros to whole words."""
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _band_keys(rows: NDArray[np.uint8], bands: int) -> Iterator[NDArray[np.int64]]:
    """Yield for every bit of every band one integer per row: the band without that bit."""
    bits = np.unpackbits(rows, axis=1)
    # Bits of similar frequency are correlated; in random bands, few rows agree by chance.
    order = np.random.default_rng(0).permutation(bits.shape[1])
    for band in np.array_split(order, min(bands, len(order))):
        band = band[:_BAND_BITS]  # a shorter band only means more pairs to compare
        powers = np.int64(1) << np.arange(len(band), dtype=np.int64)
        keys = bits[:, band] @ powers
        for power in powers:
            yield keys & ~power


def _join_near_rows(
    keys: NDArray[np.int64],
    words: NDArray[np.uint64],
    labels: NDArray[np.int64],
    max_distance: int,
) -> NDArray[np.int64]:
    """Return the labels after joining near rows among the rows with equal keys."""
    while True:
        order = np.argsort(keys * len(labels) + labels)
        ordered = keys[order]
        first = _run_ends(ordered * len(labels) + labels[order])  # after the rows of the same label
        last = _run_ends(ordered)
        # The next label only: many copies are joined in few steps, and their pairs then skipped.
        joined = _join_pairs(order, first, np.minimum(first + 1, last), words, labels, max_distance)
        if np.array_equal(joined, labels):
            return _join_pairs(order, first, last, words, labels, max_distance)
        labels = joined


def _join_pairs(
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    words: NDArray[np.uint64],
    labels: NDArray[np.int64],
    max_distance: int,
) -> NDArray[np.int64]:
    """Compare each position of `order` with positions `first` to `last`; join near rows."""
    for left, right in _iterate_pairs(first, last):
        left, right = order[left], order[right]
        separate = labels[left] != labels[right]
        left, right = left[separate], right[separate]
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
    """Return for each position of a sorted array the end of the run of its value."""
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, len(values))
    return np.repeat(ends, np.diff(ends, prepend=0))


def _iterate_pairs(
    first: NDArray[np.int64], last: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs (i, j) with `first[i] <= j < last[i]`, about `_PAIRS_PER_CHUNK` at a time."""
    starts = np.flatnonzero(last > first)
    counts = (last - first)[starts]
    totals = np.cumsum(counts)
    done, position = 0, 0
    while position < len(starts):
        stop = max(position + 1, int(np.searchsorted(totals, done + _PAIRS_PER_CHUNK, "right")))
        chunk, total = counts[position:stop], int(totals[stop - 1]) - done
        shift = first[starts[position:stop]] - (totals[position:stop] - chunk - done)
        left = np.repeat(starts[position:stop], chunk)
        yield left, np.arange(total) + np.repeat(shift, chunk)
        done, position = int(totals[stop - 1]), stop
