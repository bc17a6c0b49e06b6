"""The audit of a branch of `predictions`, before it is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eagle_spark.errors import AuditError, FailureRateError
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.scoring.diff import StatusCounts, count_by_status, match_listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

_PNG_HEADER = 26  # bytes: signature, and width, height, depth and colour type of the first chunk


def valid_row_condition(size: int) -> str:
    """Return the SQL condition that every row of a model of that input size has to fulfil."""
    header = encode_mask(np.zeros((size, size), bool))[:_PNG_HEADER].hex()
    return f"""coalesce(CASE status
      WHEN 'scored' THEN label IS NOT NULL AND needs_review IS NOT NULL
        AND substr(mask, 1, {_PNG_HEADER}) = X'{header}' AND lung_area BETWEEN 0 AND 1
        AND abs(aggregate(map_values(probabilities), 0D, (a, b) -> a + b) - 1) < 1e-3
      WHEN 'rejected' THEN reason IS NOT NULL END, false)"""


def audit(
    rows: DataFrame,
    listing: DataFrame,
    new_run_ids: Sequence[str],
    *,
    listed: int,
    size: int,
    max_failure_rate: float,
) -> StatusCounts:
    """Check the rows that would be published; return the listed files by status.

    Args:
        rows: of one model on the branch.
        listing: rows of `LISTING`.
        new_run_ids: runs that wrote the rows that are not published yet; the others were audited
            when they were published.
        listed: rows of `listing`.
        size: pixels per side of the model's input.
        max_failure_rate: share of the listed files that may be rejected.

    Raises:
        AuditError: when a file has no row or two, or a row is inconsistent.
        FailureRateError: when more files are rejected.
    """
    counts = count_by_status(match_listing(rows, listing))
    if sum(counts.values()) != listed:
        raise AuditError(f"listed {listed} files; the branch has {counts}")
    ((count, paths),) = rows.selectExpr("count(path)", "count(DISTINCT path)").collect()
    if count != paths:
        raise AuditError(f"{count} rows of this model for {paths} files")
    new = filter_runs(rows, new_run_ids)
    invalid = f"CASE WHEN NOT ({valid_row_condition(size)}) THEN path END"
    ((path,),) = new.selectExpr(f"min({invalid})").collect()
    if path:
        raise AuditError(f"the row of {path} is inconsistent")
    rejected = counts.get("rejected", 0)
    if rejected / max(listed, 1) > max_failure_rate:
        raise FailureRateError(
            f"{rejected} of {listed} files rejected, more than `max_failure_rate` "
            f"{max_failure_rate}; nothing was published, the branch keeps the rows"
        )
    return counts


def filter_runs(rows: DataFrame, run_ids: Sequence[str]) -> DataFrame:
    """Return the rows that these runs wrote."""
    from pyspark.sql.functions import col

    return rows.where(col("run_id").isin(list(run_ids)))


def select_new_run_ids(rows: DataFrame, published: DataFrame) -> list[str]:
    """Return the runs that wrote rows of a branch and none of the published rows."""
    new = rows.select("run_id").subtract(published.select("run_id"))
    return [row.run_id for row in new.collect()]
