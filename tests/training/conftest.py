from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.images.masks import encode_mask
from eagle_spark.training.plan import TrainPlan, plan_rows, read_footers

SIZE = 64


@pytest.fixture(scope="session")
def images_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 50 images in the form of the table `images`, sorted by class.

    The left half of image i has the grey value i; dark ones are of class `dark`. Every fifth has
    no mask; the other masks cover the right half.
    """
    right = np.zeros((SIZE, SIZE), bool)
    right[:, SIZE // 2 :] = True
    rows = []
    for i in range(50):
        pixels = np.where(right, 200 if i >= 25 else 20, i).astype(np.uint8)
        rows.append(
            {
                "pixels": pixels.tobytes(),
                "mask": None if i % 5 == 0 else encode_mask(right),
                "label": "dark" if i < 25 else "light",
            }
        )
    schema = pa.schema([("pixels", pa.binary()), ("mask", pa.binary()), ("label", pa.string())])
    path = tmp_path_factory.mktemp("table") / "images.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=21)
    return path


@pytest.fixture(scope="session")
def make_plan(images_file: Path) -> Callable[..., TrainPlan]:
    """Plan a small training below a folder: `staging` and `checkpoints` are in it."""

    def make(
        folder: Path,
        ranks: int,
        epochs: int = 2,
        stall: float = 60.0,
        classes: tuple[str, ...] = ("dark", "light"),
    ) -> TrainPlan:
        groups = read_footers([str(images_file)])
        return TrainPlan(
            training=plan_rows(groups, ranks, 8),
            validation=plan_rows(groups[:1], ranks, 8),
            classes=classes,
            size=SIZE,
            batch=8,
            epochs=epochs,
            seed=3,
            weights="none",
            staging=(folder / "staging").as_uri(),
            checkpoints=(folder / "checkpoints").as_uri(),
            threads=1,
            stall=stall,
        )

    return make


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Path]:
    """Wait until a running process has made a file of a pattern; return the first by name."""

    def wait(folder: Path, pattern: str, process: subprocess.Popen[bytes]) -> Path:
        deadline = time.monotonic() + 240
        while not (found := sorted(folder.glob(pattern))):
            assert time.monotonic() < deadline, f"no {pattern}"
            assert process.poll() is None, f"ended before there was {pattern}"
            time.sleep(0.01)
        return found[0]

    return wait
