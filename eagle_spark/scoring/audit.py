"""The audit of a branch of `predictions`, before it is published."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from eagle_spark.errors import AuditError, FailureRateError
from eagle_spark.scoring.diff import StatusCounts, count_by_status, match_listing
from eagle_spark.scoring.figures import MAX_SUM_ERROR, Figures, mask_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame


def valid_row_condition(size: int) -> str:
    """Return the SQL condition that every row of a model of that input size has to fulfil."""
    header = mask_header(size)
    return f"""coalesce(CASE status
      WHEN 'scored' THEN label IS NOT NULL AND needs_review IS NOT NULL
        AND substr(mask, 1, {len(header)}) = X'{header.hex()}' AND lung_area BETWEEN 0 AND 1
        AND abs(aggregate(map_values(probabilities), 0D, (a, b) -> a + b) - 1) < {MAX_SUM_ERROR}D
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
    _check_rows(path, counts, listed, max_failure_rate)
    return counts


def audit_figures(
    figures: Figures,
    valid: StatusCounts,
    appended: int,
    *,
    listed: int,
    max_failure_rate: float,
) -> StatusCounts:
    """Check the rows that would be published by the figures of the tasks that wrote them.

    Args:
        figures: of the rows that are not published yet.
        valid: listed files with a published row that remains, by status.
        appended: number of rows on the branch that are not published yet.
        listed: number of listed files.
        max_failure_rate: share of the listed files that may be rejected.

    Returns:
        The listed files by status.

    Raises:
        AuditError: when a file has no row or two, or a row is inconsistent.
        FailureRateError: when more files are rejected.
    """
    counts = dict(Counter(valid) + Counter(figures.statuses))
    if sum(counts.values()) != listed:
        raise AuditError(f"listed {listed} files; the branch has {counts}")
    if appended != figures.rows:
        raise AuditError(
            f"listed {listed} files; the branch has {appended} new rows, wanted {figures.rows}"
        )
    _check_rows(figures.invalid, counts, listed, max_failure_rate)
    return counts


def _check_rows(
    invalid: str | None, counts: StatusCounts, listed: int, max_failure_rate: float
) -> None:
    """Raise an error for an invalid row, or for too many rejected ones."""
    if invalid is not None:
        raise AuditError(f"the row of {invalid} is inconsistent")
    rejected = counts.get("rejected", 0)
    if rejected / max(listed, 1) > max_failure_rate:
        raise FailureRateError(
            f"{rejected} of {listed} files rejected, more than `max_failure_rate` "
            f"{max_failure_rate}; nothing was published, the branch keeps the rows"
        )


def filter_runs(rows: DataFrame, run_ids: Sequence[str]) -> DataFrame:
    """Return the rows that these runs wrote."""
    from pyspark.sql.functions import col

    return rows.where(col("run_id").isin(list(run_ids)))


def select_new_run_ids(rows: DataFrame, published: DataFrame) -> list[str]:
    """Return the runs that wrote rows of a branch and none of the published rows."""
    new = rows.select("run_id").subtract(published.select("run_id"))
    return [row.run_id for row in new.collect()]
