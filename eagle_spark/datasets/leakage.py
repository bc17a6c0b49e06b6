"""Split leakage: patients, copies and near duplicates that are in more than one split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eagle_spark.datasets.near_duplicates import MAX_DISTANCE, find_nearest, group_near_duplicates
from eagle_spark.datasets.split import SPLITS
from eagle_spark.errors import SplitLeakageError

if TYPE_CHECKING:
    import pandas as pd

SAME_PATIENT, SAME_BYTES, NEAR_DUPLICATE = "patient", "same bytes", "near duplicate"
SPLIT_COLUMNS = ("path", "source", "patient_id", "image_id", "perceptual_hash", "split")
_MAX_LEAKS_IN_MESSAGE = 5
_MAX_LEAKS_IN_FIGURES = 100


@dataclass(frozen=True, slots=True)
class Leak:
    """An image and a related image in an earlier split; the order is train, val, test.

    Attributes:
        reason: the first of `SAME_PATIENT`, `SAME_BYTES` and `NEAR_DUPLICATE` that applies.
        detail: the patient, the first digits of the image id, or the number of hash bits that
            differ.
    """

    path: str
    split: str
    other_path: str
    other_split: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return (
            f"{self.path} ({self.split}) and {self.other_path} ({self.other_split}): "
            f"{self.reason}, {self.detail}"
        )


def find_leaks(
    paths: Sequence[str],
    splits: Sequence[str],
    patients: Sequence[str | None],
    image_ids: Sequence[str],
    hashes: Sequence[bytes],
) -> list[Leak]:
    """Return a leak for each image that is related to an image of an earlier split.

    Images are related when they share the patient or the bytes, or when their perceptual hashes
    differ in at most `MAX_DISTANCE` bits. An image that several reasons apply to has one leak.

    Args:
        paths: path of each image.
        splits: split of each image, one of `SPLITS`.
        patients: patient of each image, qualified by source; None if unknown.
        image_ids: SHA-256 of each file's bytes.
        hashes: perceptual hash of each image.

    Returns:
        Leaks ordered by path.
    """
    split_ranks = np.array([SPLITS.index(split) for split in splits], np.int64)
    partners = {
        index: (
            other,
            NEAR_DUPLICATE,
            f"{distance} of {8 * len(hashes[index])} bits of the hash differ",
        )
        for index, other, distance in _find_near_duplicates(split_ranks, hashes)
    }
    for index, other in _find_equal_keys(split_ranks, image_ids):
        partners[index] = other, SAME_BYTES, f"image_id {image_ids[index][:12]}…"
    for index, other in _find_equal_keys(split_ranks, patients):
        partners[index] = other, SAME_PATIENT, str(patients[index])
    return sorted(
        (
            Leak(paths[index], splits[index], paths[other], splits[other], reason, detail)
            for index, (other, reason, detail) in partners.items()
        ),
        key=lambda leak: leak.path,
    )


def audit_splits(rows: pd.DataFrame, table_name: str, remedy: str) -> None:
    """Check that no two splits have related images.

    Args:
        rows: columns `SPLIT_COLUMNS` of the table `images`.
        table_name: name of the table in the error message.
        remedy: last sentence of the error message.

    Raises:
        SplitLeakageError: names the first pairs. Its figures have `leaks` (reason -> images) and
            `leaking`, the first 100 pairs.
    """
    leaks = find_leaks(
        rows["path"].tolist(),
        rows["split"].tolist(),
        qualified_patient_ids(rows["source"], rows["patient_id"]),
        rows["image_id"].tolist(),
        rows["perceptual_hash"].tolist(),
    )
    if leaks:
        omitted = len(leaks) - _MAX_LEAKS_IN_MESSAGE
        more = f"; and {omitted} more" if omitted > 0 else ""
        examples = "; ".join(map(str, leaks[:_MAX_LEAKS_IN_MESSAGE]))
        error = SplitLeakageError(
            f"{table_name}: {len(leaks)} of {len(rows)} images are related to images of another "
            f"split: {examples}{more}. {remedy}"
        )
        error.figures = {
            "leaks": dict(Counter(leak.reason for leak in leaks)),
            "leaking": [str(leak) for leak in leaks[:_MAX_LEAKS_IN_FIGURES]],
        }
        raise error


def qualified_patient_ids(
    sources: Iterable[str], patients: Iterable[str | None]
) -> list[str | None]:
    """Return patient ids prefixed by their source, as ids of two sources are not comparable."""
    return [
        None if patient is None else f"{source}/{patient}"
        for source, patient in zip(sources, patients, strict=True)
    ]


def _find_equal_keys(
    split_ranks: NDArray[np.int64], keys: Sequence[Hashable | None]
) -> Iterator[tuple[int, int]]:
    """Yield each index whose key also occurs in an earlier split, and an index there."""
    first_index: dict[Hashable, int] = {}
    for index in np.argsort(split_ranks, kind="stable").tolist():
        if keys[index] is not None:
            other = first_index.setdefault(keys[index], index)
            if split_ranks[other] < split_ranks[index]:
                yield index, other


def _find_near_duplicates(
    split_ranks: NDArray[np.int64], hashes: Sequence[bytes]
) -> Iterator[tuple[int, int, int]]:
    """Yield (index, nearest index of an earlier split, distance) of each near duplicate."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(group_near_duplicates(hashes).tolist()):
        groups[group].append(index)
    for members in groups.values():
        for rank in sorted({int(split_ranks[index]) for index in members})[1:]:
            indices = [index for index in members if split_ranks[index] == rank]
            earlier = [index for index in members if split_ranks[index] < rank]
            positions, distances = find_nearest(
                [hashes[index] for index in indices], [hashes[index] for index in earlier]
            )
            for index, position, distance in zip(indices, positions, distances, strict=True):
                if distance <= MAX_DISTANCE:  # a group also has pairs joined by a chain of others
                    yield index, earlier[position], int(distance)
