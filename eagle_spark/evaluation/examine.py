"""What a model says of labelled files, beside what is true of them: on the executors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from eagle_spark.datasets.matching import Candidate
from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES
from eagle_spark.imaging.mask import decode_mask, read_mask
from eagle_spark.io import read_image
from eagle_spark.metrics.scores import OVERLAP, overlap_figures
from eagle_spark.scoring.predict import Predictor
from eagle_spark.spark.session import tasks_for

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

_TRUTH = ("path", "source", "patient", "truth")
_GIVEN = pa.schema(
    [
        *((name, pa.string()) for name in (*_TRUTH, "mask_path", "archive")),
        *((name, pa.int64()) for name in ("position", "file_length")),
    ]
)
_SAID = (
    *("image_id", "status", "reason", "label", "confidence", "lung_area"),
    *("needs_review", "review_reasons", "novelty"),
)
EXAMINED = pa.schema(
    [
        *((name, pa.string()) for name in (*_TRUTH, *_SAID[:4])),
        *((name, pa.float64()) for name in ("confidence", "lung_area", "novelty")),
        ("needs_review", pa.bool_()),
        ("review_reasons", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float64())),
        *((name, pa.float64()) for name in OVERLAP),
    ]
)


@dataclass(frozen=True)
class Examiner:
    """Asks the model as scoring does, and holds its answers against class and mask. Picklable."""

    predictor: Predictor
    size: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield rows of `EXAMINED` for rows of `_GIVEN`, in their order."""
        asked: deque[pa.RecordBatch] = deque()

        def remembered() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                asked.append(batch)
                yield batch

        for answers in self.predictor(remembered()):
            rows = zip(asked.popleft().to_pylist(), answers.to_pylist(), strict=True)
            examined = [self._examined(*pair) for pair in rows]
            yield pa.RecordBatch.from_pylist(examined, schema=EXAMINED)

    def _examined(self, file: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
        row = {name: file[name] for name in _TRUTH} | {name: said[name] for name in _SAID}
        if said["status"] != "scored":
            return row
        row["probabilities"] = [value for _, value in said["probabilities"]]
        patient = said["dicom"] and said["dicom"]["patient_id"]
        if patient and row["patient"] is None:
            row["patient"] = f"{row['source']}/{patient}"
        try:
            mask = None
            if file["mask_path"]:
                data = read_image(file["mask_path"], MAX_FILE_BYTES, Reason.MASK_INVALID)
                mask = read_mask(data, self.size)
        except ImageRejected as rejected:
            return row | {"status": "rejected", "reason": str(rejected.reason)}
        figures = overlap_figures(mask, decode_mask(said["mask"]))
        return row | {name: None if np.isnan(value) else value for name, value in figures.items()}


def examine(
    spark: SparkSession, candidates: Sequence[Candidate], examiner: Examiner
) -> pd.DataFrame:
    """Return a row of `EXAMINED` for each candidate; `truth` is its class, `label` the answer."""
    from pyspark.sql.pandas.types import from_arrow_schema

    rows = [
        {
            "path": one.uri,
            "source": one.source,
            "patient": None if one.patient_id is None else f"{one.source}/{one.patient_id}",
            "truth": one.label,
            "mask_path": one.mask_uri,
        }
        for one in candidates
    ]
    files = spark.createDataFrame(pa.Table.from_pylist(rows, schema=_GIVEN))
    shared = files.repartition(tasks_for(spark, len(rows)))
    found = shared.mapInArrow(examiner, from_arrow_schema(EXAMINED)).toPandas()
    return found.sort_values("path", ignore_index=True)
