"""How many rows a person has to look at, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eagle_spark.model.review import Flag

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def count_flags(rows: DataFrame) -> dict[str, int]:
    """Return of rows of `predictions` how many carry each reason, and `any` of them."""
    from pyspark.sql.functions import expr

    reasons = {str(flag): f"array_contains(review_reasons, '{flag}')" for flag in Flag}
    counts = [
        expr(f"count_if({condition})").alias(name)
        for name, condition in {"any": "needs_review", **reasons}.items()
    ]
    return rows.agg(*counts).collect()[0].asDict()
