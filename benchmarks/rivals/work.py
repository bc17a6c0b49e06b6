"""What every rival does with an image, and how it is told what to do."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.model.answer import answers
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import Engine, load_engine
from eagle_spark.scoring.predict import prediction

BATCH = 64


@dataclass(frozen=True)
class Told:
    """Arguments of a rival: `PATHS MODEL ENGINE OUT`, the first a file of one path a line."""

    paths: list[str]
    model: str
    engine: str
    out: str


def told() -> Told:
    parser = argparse.ArgumentParser()
    for name in ("paths", "model", "engine", "out"):
        parser.add_argument(name)
    given = parser.parse_args()
    return Told(Path(given.paths).read_text().splitlines(), given.model, given.engine, given.out)


@lru_cache(maxsize=1)
def loaded(model: str, engine: str) -> tuple[Bundle, Engine]:
    bundle = open_bundle(model)
    return bundle, load_engine(bundle, engine, 1)


def rows_of(paths: list[str], blobs: list[bytes], model: str, engine: str) -> list[dict[str, Any]]:
    """Return a row for each image: what `predictions` holds of it that costs anything."""
    bundle, loaded_engine = loaded(model, engine)
    pixels = np.stack([read_radiograph(data, bundle.size).pixels for data in blobs])
    rows = []
    found = answers(bundle, pixels, loaded_engine.predict(pixels))
    for path, answer in zip(paths, found, strict=True):
        row = prediction(answer)
        row["probabilities"] = [value for _, value in row["probabilities"]]
        # Text: of lists that are all empty in a batch nobody can tell the type.
        row["review_reasons"] = " ".join(row["review_reasons"])
        rows.append({"path": path, **row, "scored_at": time.time()})
    return rows
