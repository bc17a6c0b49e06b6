"""What a row of the table `predictions` is as it comes from a worker, and when it is sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eagle_spark.imaging.mask import encode_mask
from eagle_spark.tables import PREDICTIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PREDICTION = PREDICTIONS.arrow_schema()
SAME = "same"  # status of a row that is to be taken from another one with the same bytes
# What the model said of the bytes, whatever the file is called.
SAID = (
    *("label", "confidence", "probabilities", "needs_review", "review_reasons", "novelty"),
    *("mask", "lung_area", "engine", "dicom", "detail"),
)
_PNG_HEADER = 26  # bytes: signature, and of the first chunk width, height, depth and kind


def sound(size: int) -> str:
    """Return the SQL condition that must hold of every row of a model of that input size."""
    header = encode_mask(np.zeros((size, size), bool))[:_PNG_HEADER].hex()
    return f"""coalesce(CASE status
      WHEN 'scored' THEN label IS NOT NULL AND needs_review IS NOT NULL
        AND substr(mask, 1, {_PNG_HEADER}) = X'{header}' AND lung_area BETWEEN 0 AND 1
        AND abs(aggregate(map_values(probabilities), 0D, (a, b) -> a + b) - 1) < 1e-3
      WHEN 'rejected' THEN reason IS NOT NULL END, false)"""


def of_runs(rows: DataFrame, runs: Sequence[str]) -> DataFrame:
    """Return the rows that these runs wrote."""
    from pyspark.sql.functions import col

    return rows.where(col("run_id").isin(list(runs)))
