"""Prediction of labelled images on the executors, compared with their class and mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa

from eagle_spark.datasets.matching import Candidate
from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES
from eagle_spark.imaging.mask import read_mask
from eagle_spark.io import read_bytes
from eagle_spark.metrics.scores import OVERLAP_METRICS, compute_overlap_metrics
from eagle_spark.model.predictor import REJECTED, ModelRef, Prediction
from eagle_spark.spark.batches import Worker, map_batches, tasks_for

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

_LABELLED = ("path", "source", "patient", "truth")
_INPUT_SCHEMA = pa.schema([(name, pa.string()) for name in (*_LABELLED, "mask_path")])
_PREDICTED = (
    *("image_id", "status", "reason", "label", "confidence", "lung_area"),
    *("needs_review", "review_reasons", "novelty"),
)
OUTCOME_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*_LABELLED, *_PREDICTED[:4])),
        *((name, pa.float64()) for name in ("confidence", "lung_area", "novelty")),
        ("needs_review", pa.bool_()),
        ("review_reasons", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float64())),
        *((name, pa.float64()) for name in OVERLAP_METRICS),
    ]
)


class LabelledImage(TypedDict):
    """A row of `_INPUT_SCHEMA`."""

    path: str
    source: str | None
    patient: str | None
    truth: str
    mask_path: str | None


@dataclass(frozen=True)
class EvaluationWorker:
    """Predicts images and compares the predictions with class and mask. Picklable."""

    model: ModelRef

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Convert rows of `_INPUT_SCHEMA` to `OUTCOME_SCHEMA`, in the same order."""
        model = self.model.load()
        for batch in batches:
            files = batch.to_pylist()
            predictions = model.predict_contents([file["path"] for file in files])
            outcomes = [
                _compare(file, prediction, model.size)
                for file, prediction in zip(files, predictions, strict=True)
            ]
            yield pa.RecordBatch.from_pylist(outcomes, schema=OUTCOME_SCHEMA)


def _compare(file: LabelledImage, prediction: Prediction, size: int) -> dict[str, object]:
    """Return the outcome of one image.

    Args:
        size: of the predicted mask, pixels per side.
    """
    row: dict[str, object] = {
        "path": file["path"],
        "source": file["source"],
        "patient": file["patient"],
        "truth": file["truth"],
        **{name: getattr(prediction, name) for name in _PREDICTED},
    }
    if prediction.mask is None:
        return row
    row["probabilities"] = list(prediction.probabilities.values())
    patient = prediction.dicom and prediction.dicom["patient_id"]
    if patient and file["patient"] is None:
        row["patient"] = f"{file['source']}/{patient}"
    try:
        mask = None
        if file["mask_path"]:
            data = read_bytes(file["mask_path"], MAX_FILE_BYTES, Reason.MASK_INVALID)
            mask = read_mask(data, size)
    except ImageRejectedError as error:
        return row | {"status": REJECTED, "reason": str(error.reason)}
    metrics = compute_overlap_metrics(mask, prediction.mask)
    return row | {name: None if np.isnan(value) else value for name, value in metrics.items()}


def evaluate_images(
    spark: SparkSession, candidates: Sequence[Candidate], worker: Worker
) -> pd.DataFrame:
    """Return one row of `OUTCOME_SCHEMA` per candidate, ordered by path.

    `truth` is the class of the candidate, `label` the predicted class.

    Args:
        spark: session.
        candidates: images to predict.
        worker: an `EvaluationWorker`; is called in each task.
    """
    rows = [
        {
            "path": candidate.uri,
            "source": candidate.source,
            "patient": None
            if candidate.patient_id is None
            else f"{candidate.source}/{candidate.patient_id}",
            "truth": candidate.label,
            "mask_path": candidate.mask_uri,
        }
        for candidate in candidates
    ]
    files = spark.createDataFrame(pa.Table.from_pylist(rows, schema=_INPUT_SCHEMA))
    partitions = files.repartition(tasks_for(spark, len(rows)))
    outcomes = map_batches(partitions, worker, OUTCOME_SCHEMA).toPandas()
    return outcomes.sort_values("path", ignore_index=True)
