"""Training data: counts and samples of one snapshot of the table `images`."""

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
    """Counts and sample images of one snapshot of `images`.

    Attributes:
        size: pixels per side.
        counts: split -> class -> images.
        source_class_counts: (source, class) -> images of the train split.
        mask_counts: (split, whether they have a mask) -> images.
        golden: `(n, size, size)`, images of the val split, or of the train split without one.
    """

    snapshot: int
    classes: tuple[str, ...]
    size: int
    counts: Mapping[str, Mapping[str, int]]
    source_class_counts: Mapping[tuple[str, str], int]
    mask_counts: Mapping[tuple[str, bool], int]
    golden: NDArray[np.uint8]

    def count_masked(self, split: str) -> int:
        """Return the number of images of the split with a mask."""
        return self.mask_counts.get((split, True), 0)

    @property
    def sources(self) -> dict[str, dict[str, int]]:
        """Source -> class -> images of the train split."""
        counts: dict[str, dict[str, int]] = {}
        for (source, label), count in sorted(self.source_class_counts.items()):
            counts.setdefault(source, {})[label] = count
        return counts


def read_training_data(warehouse: Warehouse) -> TrainingData:
    """Read the training data of the current snapshot of `images`.

    Raises:
        InputError: when the table is missing or empty, or holds one class, several sizes or no
            mask.
    """
    if not warehouse.exists(IMAGES) or (snapshot := warehouse.snapshot(IMAGES)) is None:
        raise InputError(f"no table {IMAGES.full_name} in this warehouse: run preprocess first")
    rows = warehouse.read_images(snapshot)
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
        raise InputError(f"train split: wanted two classes at least; got {classes}")
    unknown = sorted({row.label for row in counted} - set(classes))
    if unknown:
        raise InputError(f"the train split has no image of {unknown}; add images or another split")
    if len(sizes) > 1:
        raise InputError(f"{IMAGES.full_name}: wanted images of one size; got sides {sizes}")
    if not any(row.masked for row in counted if row.split == "train"):
        raise InputError(
            "no image of the train split has a mask, but the network is trained on masks too: "
            "preprocess a folder with <Class>/masks"
        )
    label_counts: Counter[tuple[str, str]] = Counter()
    mask_counts: Counter[tuple[str, bool]] = Counter()
    source_class_counts: Counter[tuple[str, str]] = Counter()
    for row in counted:
        label_counts[row.split, row.label] += row["count"]
        mask_counts[row.split, row.masked] += row["count"]
        if row.split == "train":
            source_class_counts[row.source, row.label] += row["count"]
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for (split, label), count in sorted(label_counts.items()):
        counts[split][label] = count
    return TrainingData(
        snapshot=snapshot,
        classes=tuple(classes),
        size=sizes[0],
        counts=counts,
        source_class_counts=source_class_counts,
        mask_counts=mask_counts,
        golden=sample_pixels(
            warehouse, snapshot, "val" if counts["val"] else "train", GOLDEN_IMAGES
        ),
    )


def sample_pixels(
    warehouse: Warehouse, snapshot: int, split: str, images: int
) -> NDArray[np.uint8]:
    """Return the pixels of the first images of a split, `(n, size, size)`.

    The order is that of the image ids, which does not depend on the class.
    """
    rows = warehouse.read_images(snapshot).where(f"split = '{split}'").orderBy("image_id")
    blobs = [row.pixels for row in rows.select("pixels").limit(images).collect()]
    return stack_pixels(blobs, math.isqrt(len(blobs[0])))


def stack_pixels(blobs: Iterable[bytes], side: int) -> NDArray[np.uint8]:
    """Return `pixels` of rows of `images` as one array, `(n, side, side)`."""
    return np.frombuffer(b"".join(blobs), np.uint8).reshape(-1, side, side)
