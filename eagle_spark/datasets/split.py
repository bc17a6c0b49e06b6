"""Assign images to train, val and test; all images of a patient go to one split."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eagle_spark.datasets.near_duplicates import connected_components, group_near_duplicates
from eagle_spark.errors import SettingsError

SPLITS = ("train", "val", "test")

# A label with at least this many groups is represented in every split.
MIN_GROUPS_FOR_ALL_SPLITS = 3


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Return the fractions of train, val and test.

    Raises:
        SettingsError: unless `text` is three numbers >= 0 that add up to 1, the first above 0.
    """
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        train = val = test = -1.0
    if not (train > 0 and val >= 0 and test >= 0 and abs(train + val + test - 1) <= 1e-6):
        raise SettingsError(
            "`split`: wanted three numbers >= 0 for train, val and test that add up to 1, train "
            f"above 0, such as 0.7,0.1,0.2; got {text!r}"
        )
    return train, val, test


def group_images(
    patients: Sequence[str | None], image_ids: Sequence[str], hashes: Sequence[bytes]
) -> NDArray[np.int64]:
    """Return the group of each image; all images of a group belong in one split.

    Images of one patient, equal bytes and near duplicates form one group. Equal bytes and near
    duplicates do so even under different patients: some data sets list one picture under several
    patient ids, and merging two patients by mistake does no harm.

    Args:
        patients: patient of each image, qualified by source; None if unknown.
        image_ids: SHA-256 of each file's bytes.
        hashes: perceptual hash of each image.

    Returns:
        int64, shape (images,).
    """
    near_duplicates = group_near_duplicates(hashes).tolist()
    edges = [
        *_connect_equal(patients),
        *_connect_equal(image_ids),
        *_connect_equal(near_duplicates),
    ]
    return connected_components(len(image_ids), np.array(edges, np.int64).reshape(-1, 2))


def find_conflicting_labels(image_ids: Sequence[str], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether the bytes of each image occur under more than one label; shape (images,)."""
    first_label: dict[str, str] = {}
    conflicting = {
        image_id
        for image_id, label in zip(image_ids, labels, strict=True)
        if first_label.setdefault(image_id, label) != label
    }
    return np.array([image_id in conflicting for image_id in image_ids], np.bool_)


@dataclass(slots=True)
class _Group:
    """Images of one group; `split` is None until it is assigned."""

    key: str
    labels: Mapping[str, int]
    split: str | None
    movable: bool

    @property
    def size(self) -> int:
        return sum(self.labels.values())


def assign_splits(
    groups: NDArray[np.int64],
    labels: Sequence[str],
    image_ids: Sequence[str],
    fractions: tuple[float, float, float],
    seed: int,
    fixed: Sequence[str | None] | None = None,
) -> list[str]:
    """Return the split of each image, per group, with every label close to the fractions.

    Groups are assigned one by one, large groups first and groups of equal size in an order drawn
    from `seed`, each to the split that lowers sum((count - target)^2 / target) over the group's
    labels the most; for groups of one image this is Webster's method of apportionment. Then a label
    of three groups or more gets one group in every split that has none of it, as far as groups may
    move. The result does not depend on the order of the input.

    A group with fixed members follows them. If a new image connects fixed groups of different
    splits, all of them move to the first of train, val, test: an image used in training must never
    be tested on. So the split of a fixed image may change.

    Args:
        groups: shape (images,), as from `group_images`.
        labels: label of each image.
        image_ids: SHA-256 of each file's bytes; equal bytes are in one group.
        fractions: fractions of train, val and test; a fraction of 0 gets no free group.
        seed: seed of the order of groups of equal size.
        fixed: current split of each image, None for new images.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(groups.tolist()):
        members[number].append(index)
    group_by_number = {
        number: _build_group(indices, labels, image_ids, seed, fixed)
        for number, indices in members.items()
    }
    totals = Counter(labels)
    targets = {
        split: {label: totals[label] * fraction for label in totals}
        for split, fraction in zip(SPLITS, fractions, strict=True)
        if fraction > 0
    }
    ordered = sorted(group_by_number.values(), key=lambda group: (-group.size, group.key))
    _assign_free_groups(ordered, targets)
    _fill_missing_splits(ordered, targets)
    return [str(group_by_number[number].split) for number in groups.tolist()]


def _connect_equal(keys: Iterable[Hashable | None]) -> list[tuple[int, int]]:
    """Return edges that connect equal keys; None equals nothing."""
    first_index: dict[Hashable, int] = {}
    return [
        (start, index)
        for index, key in enumerate(keys)
        if key is not None and (start := first_index.setdefault(key, index)) != index
    ]


def _build_group(
    indices: Sequence[int],
    labels: Sequence[str],
    image_ids: Sequence[str],
    seed: int,
    fixed: Sequence[str | None] | None,
) -> _Group:
    smallest_id = min(image_ids[index] for index in indices)
    key = hashlib.sha256(f"{seed}:{smallest_id}".encode()).hexdigest()
    fixed_splits = {
        split for index in indices if fixed is not None and (split := fixed[index]) is not None
    }
    counts = Counter(sorted(labels[index] for index in indices))
    split = min(fixed_splits, key=SPLITS.index, default=None)
    return _Group(key, counts, split, movable=not fixed_splits)


def _assign_free_groups(
    groups: Iterable[_Group], targets: Mapping[str, Mapping[str, float]]
) -> None:
    """Assign a split to every group without one."""
    counts: Counter[tuple[str | None, str]] = Counter()

    def add_to_counts(group: _Group) -> None:
        for label, count in group.labels.items():
            counts[group.split, label] += count

    def compute_gain(group: _Group, split: str) -> float:
        return sum(
            count
            * (2 * (targets[split][label] - counts[split, label]) - count)
            / targets[split][label]
            for label, count in group.labels.items()
        )

    free = [group for group in groups if group.split is None]
    for group in groups:
        if group.split is not None:
            add_to_counts(group)
    for group in free:
        group.split = max(targets, key=lambda split: compute_gain(group, split))
        add_to_counts(group)


def _fill_missing_splits(
    groups: Sequence[_Group], targets: Mapping[str, Mapping[str, float]]
) -> None:
    """Move one group of each label with enough groups into each split that has none of it."""
    groups_by_label: defaultdict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        for label in group.labels:
            groups_by_label[label].append(group)
    counts = Counter((group.split, label) for group in groups for label in group.labels)
    for label in sorted(groups_by_label, key=lambda label: (len(groups_by_label[label]), label)):
        if len(groups_by_label[label]) < MIN_GROUPS_FOR_ALL_SPLITS:
            continue
        for split in targets:
            spare = [
                group
                for group in groups_by_label[label]
                if group.movable and all(counts[group.split, other] > 1 for other in group.labels)
            ]
            if counts[split, label] or not spare:
                continue
            moved = min(
                spare, key=lambda group: (-counts[group.split, label], group.size, group.key)
            )
            for other in moved.labels:
                counts[moved.split, other] -= 1
                counts[split, other] += 1
            moved.split = split
