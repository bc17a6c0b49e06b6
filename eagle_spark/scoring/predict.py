"""From bytes to prediction rows: read, decode, predict, encode the mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from eagle_spark.errors import ImageRejected
from eagle_spark.images.decode import MAX_FILE_BYTES, read_radiograph
from eagle_spark.images.hashes import image_id
from eagle_spark.images.masks import encode_mask
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import Engine, load_engine
from eagle_spark.storage import read_image

PREDICTION = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("file_length", pa.int64()),
        ("file_modified", pa.timestamp("us", tz="UTC")),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float64()),
        ("probabilities", pa.map_(pa.string(), pa.float64())),
        ("needs_review", pa.bool_()),
        ("mask", pa.binary()),
        ("lung_area", pa.float64()),
        ("model_id", pa.string()),
        ("run_id", pa.string()),
        ("scored_at", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Predictor:
    """What every worker needs to score: where the model is and how to run it. Small, picklable."""

    model: str
    model_id: str
    engine: str
    threads: int
    run_id: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Score batches of listed files (`path`, `file_length`, `file_modified`)."""
        for batch in batches:
            bundle, engine = _loaded(self.model, self.model_id, self.engine, self.threads)
            rows = batch.to_pylist()
            yield pa.RecordBatch.from_pylist(self.score(rows, bundle, engine), schema=PREDICTION)

    def score(
        self, files: Sequence[dict[str, Any]], bundle: Bundle, engine: Engine
    ) -> list[dict[str, Any]]:
        """Return one row per file, in order; a file that fails takes nobody with it."""
        shared = {"model_id": self.model_id, "run_id": self.run_id}
        rows: list[dict[str, Any]] = []
        decoded: list[tuple[dict[str, Any], np.ndarray[Any, Any]]] = []
        for file in files:
            row = {**file, **shared, "scored_at": datetime.now(timezone.utc)}
            rows.append(row)
            try:
                data = read_image(file["path"], MAX_FILE_BYTES)
                row["image_id"] = image_id(data)
                decoded.append((row, read_radiograph(data, bundle.size).pixels))
            except ImageRejected as rejected:
                row |= {
                    "status": "rejected",
                    "reason": str(rejected.reason),
                    "detail": rejected.detail,
                }
        if decoded:
            outputs = engine.predict(np.stack([pixels for _, pixels in decoded]))
            for (row, _), probabilities, mask in zip(decoded, *outputs, strict=True):
                row |= prediction(bundle, probabilities, mask)
        return rows


def prediction(
    bundle: Bundle, probabilities: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """Return the columns that one image's outputs give.

    Args:
        bundle: the model.
        probabilities: (classes,) float32, sum 1.
        mask: (size, size) float32, probability of lung.
    """
    best = int(np.argmax(probabilities))
    confidence = float(probabilities[best])
    lungs = mask >= bundle.threshold
    return {
        "status": "scored",
        "label": bundle.classes[best],
        "confidence": confidence,
        "probabilities": list(zip(bundle.classes, probabilities.tolist(), strict=True)),
        "needs_review": confidence < bundle.review_below,
        "mask": encode_mask(lungs),
        "lung_area": float(lungs.mean()),
    }


@lru_cache(maxsize=1)
def _loaded(model: str, model_id: str, engine: str, threads: int) -> tuple[Bundle, Engine]:
    """Open the model once per worker process; the folder must still hold the same model."""
    bundle = open_bundle(model, expected_id=model_id)
    return bundle, load_engine(bundle, engine, threads)
