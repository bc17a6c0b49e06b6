"""Which image is for training, validation or test; never one patient in two of them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eagle_spark.datasets.near_duplicates import connected_components, near_duplicate_groups
from eagle_spark.errors import SettingsError

SPLITS = ("train", "val", "test")

# A class is owed a place in every split from this many groups on.
GROUPS_FOR_ALL_SPLITS = 3


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Return the shares of train, val and test.

    Raises:
        SettingsError: unless `text` is three numbers from 0 on that add up to 1, the first above 0.
    """
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        train = val = test = -1.0
    if not (train > 0 and val >= 0 and test >= 0 and abs(train + val + test - 1) <= 1e-6):
        raise SettingsError(
            "--split wants three numbers >= 0 for train, val and test that add up to 1, train "
            f"above 0, such as 0.7,0.1,0.2; got {text!r}"
        )
    return train, val, test


def group_images(
    patients: Sequence[str | None], image_ids: Sequence[str], hashes: Sequence[bytes]
) -> NDArray[np.int64]:
    """Return the group of each image; images of one group must stand in one split.

    One patient is one group, and so are the same bytes and near duplicates, whatever the patients:
    collections give one picture several names of patients, and to keep two patients together by
    mistake costs nothing.

    Args:
        patients: the patient of each image, qualified by source; None where not known.
        image_ids: sha256 of each file's bytes.
        hashes: perceptual hash of each image.

    Returns:
        int64, shape (images,).
    """
    near = near_duplicate_groups(hashes).tolist()
    edges = [*_chain(patients), *_chain(image_ids), *_chain(near)]
    return connected_components(len(image_ids), np.array(edges, np.int64).reshape(-1, 2))


def conflicting_labels(image_ids: Sequence[str], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return True for every image whose bytes stand under more than one label; shape (images,)."""
    first: dict[str, str] = {}
    conflicting = {
        image_id
        for image_id, label in zip(image_ids, labels, strict=True)
        if first.setdefault(image_id, label) != label
    }
    return np.array([image_id in conflicting for image_id in image_ids], np.bool_)


@dataclass(slots=True)
class _Group:
    """Images that stay together; `split` is None until it is chosen."""

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
    """Return the split of each image: whole groups, every label near to the fractions.

    Groups go one by one, large ones first and equals in an order drawn from `seed`, to the split
    that lowers sum((have - wanted)^2 / wanted) over the group's labels the most; for groups of one
    image this is Webster's method of apportionment. A label of three groups or more then gets one
    group into every split it lacks, as far as groups are free to move. The order of the input
    plays no part.

    A group with fixed members follows them. Where a new image joins fixed groups of different
    splits, all follow the first of train, val, test: an image that was trained on must never be
    tested on. So a fixed image may come back with another split than it had.

    Args:
        groups: shape (images,), as from `group_images`.
        labels: label of each image.
        image_ids: sha256 of each file's bytes; the same bytes stand in one group.
        fractions: shares of train, val and test; a share of 0 gets no free group.
        seed: draws the order of equal groups.
        fixed: the split that an image already has, None for new ones.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for at, number in enumerate(groups.tolist()):
        members[number].append(at)
    chosen = {
        number: _group(inside, labels, image_ids, seed, fixed) for number, inside in members.items()
    }
    totals = Counter(labels)
    wanted = {
        split: {label: totals[label] * fraction for label in totals}
        for split, fraction in zip(SPLITS, fractions, strict=True)
        if fraction > 0
    }
    ordered = sorted(chosen.values(), key=lambda group: (-group.size, group.key))
    _fill(ordered, wanted)
    _mend_gaps(ordered, wanted)
    return [str(chosen[number].split) for number in groups.tolist()]


def _chain(keys: Iterable[Hashable | None]) -> list[tuple[int, int]]:
    """Return edges that connect equal keys; None is equal to nothing."""
    first: dict[Hashable, int] = {}
    return [
        (start, at)
        for at, key in enumerate(keys)
        if key is not None and (start := first.setdefault(key, at)) != at
    ]


def _group(
    inside: Sequence[int],
    labels: Sequence[str],
    image_ids: Sequence[str],
    seed: int,
    fixed: Sequence[str | None] | None,
) -> _Group:
    drawn = hashlib.sha256(f"{seed}:{min(image_ids[at] for at in inside)}".encode()).hexdigest()
    kept = {split for at in inside if fixed is not None and (split := fixed[at]) is not None}
    counts = Counter(sorted(labels[at] for at in inside))
    return _Group(drawn, counts, min(kept, key=SPLITS.index, default=None), not kept)


def _fill(groups: Iterable[_Group], wanted: Mapping[str, Mapping[str, float]]) -> None:
    """Choose the split of every group that has none."""
    have: Counter[tuple[str | None, str]] = Counter()

    def take(group: _Group) -> None:
        for label, count in group.labels.items():
            have[group.split, label] += count

    def gain(group: _Group, split: str) -> float:
        return sum(
            count * (2 * (wanted[split][label] - have[split, label]) - count) / wanted[split][label]
            for label, count in group.labels.items()
        )

    free = [group for group in groups if group.split is None]
    for group in groups:
        if group.split is not None:
            take(group)
    for group in free:
        group.split = max(wanted, key=lambda split: gain(group, split))
        take(group)


def _mend_gaps(groups: Sequence[_Group], wanted: Mapping[str, Mapping[str, float]]) -> None:
    """Give labels of enough groups one group in each split that has none of them."""
    having: defaultdict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        for label in group.labels:
            having[label].append(group)
    tally = Counter((group.split, label) for group in groups for label in group.labels)
    for label in sorted(having, key=lambda label: (len(having[label]), label)):
        if len(having[label]) < GROUPS_FOR_ALL_SPLITS:
            continue
        for split in wanted:
            spare = [
                group
                for group in having[label]
                if group.movable and all(tally[group.split, other] > 1 for other in group.labels)
            ]
            if tally[split, label] or not spare:
                continue
            moved = min(
                spare, key=lambda group: (-tally[group.split, label], group.size, group.key)
            )
            for other in moved.labels:
                tally[moved.split, other] -= 1
                tally[split, other] += 1
            moved.split = split
