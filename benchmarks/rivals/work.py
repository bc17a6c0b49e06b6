"""The arguments of a rival, and the rows that it computes from images."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from eagle_spark.imaging.mask import encode_mask
from eagle_spark.model.predictor import Model, load_model

BATCH = 64


@dataclass(frozen=True)
class Arguments:
    """Arguments of a rival: `PATHS MODEL ENGINE OUT`; PATHS is a file with one path per line."""

    paths: list[str]
    model: str
    engine: str
    out: str


def parse_arguments() -> Arguments:
    parser = argparse.ArgumentParser()
    for name in ("paths", "model", "engine", "out"):
        parser.add_argument(name)
    values = parser.parse_args()
    paths = Path(values.paths).read_text().splitlines()
    return Arguments(paths, values.model, values.engine, values.out)


@lru_cache(maxsize=1)
def load(model: str, engine: str) -> Model:
    """Load the engine with one thread, once per process."""
    return load_model(model, engine, threads=1)


def score_images(
    paths: list[str], blobs: list[bytes], model: str, engine: str
) -> list[dict[str, Any]]:
    """Return a row per image of a batch, computed by the predictor of this package.

    The rows have every column of `predictions` that takes time to compute: hash, class, mask and
    review. `scored_at` is the end of the batch.
    """
    predictions = load(model, engine).predict_contents(blobs)
    rows = [
        {
            "path": path,
            "image_id": prediction.image_id,
            "status": prediction.status,
            "label": prediction.label,
            "confidence": prediction.confidence,
            "probabilities": list(prediction.probabilities.values()),
            "needs_review": prediction.needs_review,
            # A text: pyarrow cannot infer the type of lists that are all empty.
            "review_reasons": " ".join(prediction.review_reasons),
            "novelty": prediction.novelty,
            "mask": None if prediction.mask is None else encode_mask(prediction.mask),
            "lung_area": prediction.lung_area,
        }
        for path, prediction in zip(paths, predictions, strict=True)
    ]
    end = time.time()
    return [{**row, "scored_at": end} for row in rows]
