"""What a snapshot of the table `images` offers to training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eagle_spark.datasets.split import SPLITS
from eagle_spark.errors import InputError
from eagle_spark.tables import IMAGES, Warehouse

GOLDEN_IMAGES = 64


@dataclass(frozen=True)
class TrainingData:
    """What one snapshot of `images` offers to training.

    Attributes:
        counts: split -> class -> images.
        groups: (source, class) -> images of the train split.
        by_mask: (split, whether they have a mask) -> images.
        golden: (n, size, size) uint8, some validation (or training) images.
    """

    snapshot: int
    classes: tuple[str, ...]
    size: int
    counts: Mapping[str, Mapping[str, int]]
    groups: Mapping[tuple[str, str], int]
    by_mask: Mapping[tuple[str, bool], int]
    golden: NDArray[np.uint8]

    def masked(self, split: str) -> int:
        """Return how many images of the split have a mask."""
        return self.by_mask.get((split, True), 0)

    @property
    def sources(self) -> dict[str, dict[str, int]]:
        """Source -> class -> images of the train split."""
        found: dict[str, dict[str, int]] = {}
        for (source, label), count in sorted(self.groups.items()):
            found.setdefault(source, {})[label] = count
        return found


def read_training_data(warehouse: Warehouse) -> TrainingData:
    """Look at `images` as it is now.

    Raises:
        InputError: when it is missing or empty, or holds one class, several sizes or no mask.
    """
    if not warehouse.exists(IMAGES) or (snapshot := warehouse.snapshot(IMAGES)) is None:
        raise InputError(f"no table {IMAGES.full_name} in this warehouse: run preprocess first")
    rows = warehouse.at(IMAGES, snapshot)
    counted = (
        rows.selectExpr(
            *("split", "label", "source", "octet_length(pixels) AS pixels"),
            "mask IS NOT NULL AS masked",
        )
        .groupBy("split", "label", "source", "pixels", "masked")
        .count()
        .collect()
    )
    classes = sorted({row.label for row in counted if row.split == "train"})
    sizes = sorted({math.isqrt(row.pixels) for row in counted})
    if len(classes) < 2:
        raise InputError(f"training needs two classes at least; the train split has {classes}")
    unknown = sorted({row.label for row in counted} - set(classes))
    if unknown:
        raise InputError(f"the train split has no image of {unknown}; add images or another split")
    if len(sizes) > 1:
        raise InputError(f"images of one size are needed; the table has sides {sizes}")
    if not any(row.masked for row in counted if row.split == "train"):
        raise InputError(
            "no image of the train split has a mask, and the network learns masks too: "
            "add a folder with <Class>/masks by preprocess"
        )
    by_label: Counter[tuple[str, str]] = Counter()
    by_mask: Counter[tuple[str, bool]] = Counter()
    groups: Counter[tuple[str, str]] = Counter()
    for row in counted:
        by_label[row.split, row.label] += row["count"]
        by_mask[row.split, row.masked] += row["count"]
        if row.split == "train":
            groups[row.source, row.label] += row["count"]
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for (split, label), count in sorted(by_label.items()):
        counts[split][label] = count
    return TrainingData(
        snapshot=snapshot,
        classes=tuple(classes),
        size=sizes[0],
        counts=counts,
        groups=groups,
        by_mask=by_mask,
        golden=some_pixels(warehouse, snapshot, "val" if counts["val"] else "train", GOLDEN_IMAGES),
    )


def some_pixels(warehouse: Warehouse, snapshot: int, split: str, images: int) -> NDArray[np.uint8]:
    """Return (n, size, size) of a split; by their ids, which have nothing to do with the class."""
    rows = warehouse.at(IMAGES, snapshot).where(f"split = '{split}'").orderBy("image_id")
    found = [row.pixels for row in rows.select("pixels").limit(images).collect()]
    return stack_pixels(found, math.isqrt(len(found[0])))


def stack_pixels(blobs: Iterable[bytes], side: int) -> NDArray[np.uint8]:
    """Return `pixels` of rows of `images` as one array, `(n, side, side)`."""
    return np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, side, side)
