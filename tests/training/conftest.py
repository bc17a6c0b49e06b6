from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.imaging.mask import encode_mask
from eagle_spark.model.network import STATISTICS_COUNT, TAPS
from eagle_spark.training.features import FEATURE_SCHEMA, Extractor
from eagle_spark.training.feed import FEATURE_COLUMNS, LABEL_COLUMNS, PIXEL_COLUMNS
from eagle_spark.training.frozen import Backbone, prepare_backbone
from eagle_spark.training.plan import SplitRows, TrainPlan, plan_rows, read_footers, share_rows

SIZE = 64
IMAGES = 50
VALIDATION = 20  # of them: training and validation need not differ here
GROUP_ROWS = 21


def right_half() -> np.ndarray[Any, Any]:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, SIZE // 2 :] = True
    return mask


def image_rows() -> list[dict[str, Any]]:
    """Rows of `images`: every fifth has no mask, the other masks cover the right half.

    The left half of image i has the grey value i; dark ones are of class `dark`.
    """
    right = right_half()
    return [
        {
            "path": f"file:///{i:02d}.png",
            "image_id": f"{i:064x}",
            "label": "dark" if i < 25 else "light",
            "source": "odd" if i % 2 else "even",
            "split": "train",
            "pixels": np.where(right, 200 if i >= 25 else 20, i).astype(np.uint8).tobytes(),
            "mask": None if i % 5 == 0 else encode_mask(right),
        }
        for i in range(IMAGES)
    ]


def write_rows(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=GROUP_ROWS)
    return path


IMAGE = pa.schema(
    [
        *((name, pa.string()) for name in ("path", "image_id", "label", "source", "split")),
        *((name, pa.binary()) for name in ("pixels", "mask")),
    ]
)


@pytest.fixture(scope="session")
def images_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 50 images in the form of the table `images`, sorted by class."""
    return write_rows(tmp_path_factory.mktemp("images") / "images.parquet", image_rows(), IMAGE)


@pytest.fixture(scope="session")
def drawn_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file in the form of the table `features`, of no backbone.

    Every value of the left half of the taps of image i is i, of the right half 100; copy 1, in the
    rows after all of copy 0, is mirrored. Statistics are i throughout.
    """
    rows = []
    for copy in (0, 1):
        for i, row in enumerate(image_rows()):
            values = {name: np.full(tap.shape(SIZE), i, np.float16) for name, tap in TAPS.items()}
            for value in values.values():
                value[:, value.shape[1] // 2 :] = 100
            row |= {
                **{
                    name: value[:, :: -1 if copy else 1].tobytes() for name, value in values.items()
                },
                "copy": copy,
                "masked": row["mask"] is not None,
                "statistics": np.full(STATISTICS_COUNT, i, np.float16).tobytes(),
            }
            rows.append(row)
    schema = pa.schema(
        [field for field in FEATURE_SCHEMA if field.name not in ("backbone", "bucket")]
    )
    return write_rows(tmp_path_factory.mktemp("drawn") / "features.parquet", rows, schema)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """An untrained backbone."""
    return prepare_backbone(str(tmp_path_factory.mktemp("frozen")), "none", SIZE, 3)


@pytest.fixture(scope="session")
def features_files(
    backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[bool, Path]]:
    """split -> masked -> file of `features`: of all images twice, and of some once."""
    folder, files = tmp_path_factory.mktemp("features"), {}
    for split, images, copies in (("train", IMAGES, 2), ("val", VALIDATION, 1)):
        rows = [
            {**row, "split": split, "copy": copy, "bucket": 0}
            for copy in range(copies)
            for row in image_rows()[-images:]
        ]
        schema = IMAGE.append(pa.field("copy", pa.int32())).append(pa.field("bucket", pa.int32()))
        (batch,) = Extractor(backbone, 1)([pa.RecordBatch.from_pylist(rows, schema=schema)])
        files[split] = {
            masked: write_rows(
                folder / f"{split}-{masked}.parquet",
                [row for row in batch.to_pylist() if row["masked"] is masked],
                FEATURE_SCHEMA,
            )
            for masked in (True, False)
        }
    return files


@pytest.fixture(scope="session")
def make_plan(
    images_file: Path, features_files: dict[str, dict[bool, Path]], backbone: Backbone
) -> Callable[..., TrainPlan]:
    """Plan a small training below a folder: `staging` and `checkpoints` are in it."""

    def split_rows(split: str, ranks: int, cached: bool) -> SplitRows:
        if cached:
            files = [str(features_files[split][masked]) for masked in (True, False)]
            masks = read_footers(files[:1], FEATURE_COLUMNS)
            labels = read_footers(files, LABEL_COLUMNS)
        else:
            masks = read_footers([str(images_file)], PIXEL_COLUMNS)
            masks = masks if split == "train" else masks[-1:]
            labels = masks
        return SplitRows(plan_rows(masks, ranks, 8), share_rows(labels, ranks))

    def make(
        folder: Path,
        ranks: int,
        epochs: int = 2,
        stall: float = 60.0,
        classes: tuple[str, ...] = ("dark", "light"),
        cached: bool = True,
        checkpoint_steps: int = 100,
    ) -> TrainPlan:
        return TrainPlan(
            training=split_rows("train", ranks, cached),
            validation=split_rows("val", ranks, cached),
            cached=cached,
            classes=classes,
            row_weights={("odd", "dark"): 1.5, ("odd", "light"): 0.5},
            backbone=backbone,
            batch=8,
            epochs=epochs,
            seed=3,
            staging=(folder / "staging").as_uri(),
            checkpoints=(folder / "checkpoints").as_uri(),
            threads=1,
            stall=stall,
            checkpoint_steps=checkpoint_steps,
        )

    return make


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Path]:
    """Wait until a running process has made a file of a pattern; return the first by name."""

    def wait(folder: Path, pattern: str, process: subprocess.Popen[bytes]) -> Path:
        deadline = time.monotonic() + 240
        while not (files := sorted(folder.glob(pattern))):
            assert time.monotonic() < deadline, f"no {pattern}"
            assert process.poll() is None, f"ended before there was {pattern}"
            time.sleep(0.01)
        return files[0]

    return wait
