"""What must not be in two splits, and is: patients, copies and near duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.datasets.near_duplicates import MAX_DISTANCE, near_duplicate_groups, nearest
from eagle_spark.datasets.split import SPLITS
from eagle_spark.errors import LeakingSplits

if TYPE_CHECKING:
    import pandas as pd

PATIENT, COPY, NEAR = "patient", "same bytes", "near duplicate"
FACTS = ("path", "source", "patient_id", "image_id", "perceptual_hash", "split")
_NAMED = 5  # offenders in the message of an error
_LISTED = 100  # in the figures of a job


@dataclass(frozen=True, slots=True)
class Leak:
    """An image, and one of an earlier split (of train, val, test) that it must not be apart from.

    Attributes:
        why: `PATIENT`, `COPY` or `NEAR`, the first of them that holds.
        detail: the patient, the begin of the image id, or how many bits of the hashes differ.
    """

    path: str
    split: str
    other_path: str
    other_split: str
    why: str
    detail: str

    def __str__(self) -> str:
        return (
            f"{self.path} ({self.split}) and {self.other_path} ({self.other_split}): "
            f"{self.why}, {self.detail}"
        )


def find_leaks(
    paths: Sequence[str],
    splits: Sequence[str],
    patients: Sequence[str | None],
    image_ids: Sequence[str],
    hashes: Sequence[bytes],
) -> list[Leak]:
    """Return a leak for each image that stands apart from what it belongs to, ordered by path.

    Images of one patient, of the same bytes, and whose perceptual hashes differ in at most
    `MAX_DISTANCE` bits belong together. An image of the earliest split is no offender; one that
    several reasons hold for is named once.

    Args:
        patients: the patient of each image, qualified by source; None where not known.
        image_ids: sha256 of each file's bytes.
        hashes: perceptual hash of each image.
    """
    order = np.array([SPLITS.index(split) for split in splits], np.int64)
    partner = {
        at: (other, NEAR, f"{apart} of {8 * len(hashes[at])} bits of the hash differ")
        for at, other, apart in _near(order, hashes)
    }
    for at, other in _equal(order, image_ids):
        partner[at] = other, COPY, f"image_id {image_ids[at][:12]}…"
    for at, other in _equal(order, patients):
        partner[at] = other, PATIENT, str(patients[at])
    return sorted(
        (
            Leak(paths[at], splits[at], paths[other], splits[other], why, detail)
            for at, (other, why, detail) in partner.items()
        ),
        key=lambda leak: leak.path,
    )


def audit_splits(rows: pd.DataFrame, where: str, remedy: str) -> None:
    """Refuse images that are apart from what they belong to.

    Args:
        rows: the columns `FACTS` of the table `images`.
        where: what is audited, for the message.
        remedy: what mends it, likewise.

    Raises:
        LeakingSplits: names the first offenders; its figures hold `leaks` (reason -> images) and
            `leaking`, the first 100 of them.
    """
    leaks = find_leaks(
        rows["path"].tolist(),
        rows["split"].tolist(),
        patients_of(rows["source"], rows["patient_id"]),
        rows["image_id"].tolist(),
        rows["perceptual_hash"].tolist(),
    )
    if leaks:
        more = f"; and {len(leaks) - _NAMED} more" if len(leaks) > _NAMED else ""
        named = "; ".join(map(str, leaks[:_NAMED]))
        error = LeakingSplits(
            f"{where}: {len(leaks)} of {len(rows)} images belong to images of another split: "
            f"{named}{more}. {remedy}"
        )
        error.figures = {
            "leaks": dict(Counter(leak.why for leak in leaks)),
            "leaking": [str(leak) for leak in leaks[:_LISTED]],
        }
        raise error


def patients_of(sources: Iterable[str], patients: Iterable[Any]) -> list[str | None]:
    """Return patients qualified by their source, as names of two sources cannot be compared."""
    return [
        None if patient is None else f"{source}/{patient}"
        for source, patient in zip(sources, patients, strict=True)
    ]


def _equal(order: NDArray[np.int64], keys: Sequence[Hashable | None]) -> Iterator[tuple[int, int]]:
    """Yield each place whose key stands in an earlier split, and a place there."""
    first: dict[Hashable, int] = {}
    for at in np.argsort(order, kind="stable").tolist():
        if keys[at] is not None:
            other = first.setdefault(keys[at], at)
            if order[other] < order[at]:
                yield at, other


def _near(order: NDArray[np.int64], hashes: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """Yield each place with near duplicates in earlier splits, the nearest, and their distance."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for at, group in enumerate(near_duplicate_groups(hashes).tolist()):
        members[group].append(at)
    for inside in members.values():
        for split in sorted({int(order[at]) for at in inside})[1:]:
            mine = [at for at in inside if order[at] == split]
            earlier = [at for at in inside if order[at] < split]
            found = nearest([hashes[at] for at in mine], [hashes[at] for at in earlier])
            for at, place, apart in zip(mine, *found, strict=True):
                if apart <= MAX_DISTANCE:  # a chain of others may bring more into one group
                    yield at, earlier[place], int(apart)
