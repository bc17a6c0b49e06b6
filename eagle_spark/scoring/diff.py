"""The difference between the files that are listed and the rows that a model has of them.

By the data files where workers can read them, by SQL elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eagle_spark.errors import RETRYABLE_REASONS
from eagle_spark.scoring.compare import Group, Retry, Size, merge_groups
from eagle_spark.scoring.compare_files import Left
from eagle_spark.scoring.listing import ENTRIES_PER_PART, LISTING, LISTING_ORDER
from eagle_spark.scoring.slices import ROWS_PER_GROUP, Slice, list_pieces

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FILE_COLUMNS = ["path", "file_length", "file_modified"]
"""The columns that identify a version of a file."""

StatusCounts = dict[str, int]


@dataclass(frozen=True)
class Diff:
    """Listed files that have a row, by status.

    Attributes:
        unchanged: with a row of the same version of the file.
        valid: with a row that need not be computed again.
        outdated: `path` of the rows to be replaced; None if there are none.
        outdated_rows: number of these rows.
        left: the other listed files; None where SQL compared.
    """

    unchanged: StatusCounts
    valid: StatusCounts
    outdated: DataFrame | None
    outdated_rows: int
    left: Left | None = None


def summarise(
    groups: Mapping[Group, Size], outdated: DataFrame | None, left: Left | None = None
) -> Diff:
    """Return the difference.

    Args:
        groups: paths that are listed and have a row.
        outdated: `path` of the rows of the outdated groups.
        left: listed files without a valid row.
    """
    outdated_rows = sum(size.rows for group, size in groups.items() if group.is_outdated)
    paths = [(group, size.paths) for group, size in groups.items()]
    return Diff(
        unchanged=_sum((group.status, count) for group, count in paths if not group.is_changed),
        valid=_sum((group.status, count) for group, count in paths if not group.is_outdated),
        outdated=outdated if outdated_rows else None,
        outdated_rows=outdated_rows,
        left=left,
    )


def diff_against_table(rows: DataFrame, listing: DataFrame, retry: Retry) -> Diff:
    """Compare rows of `predictions` with a listing, by SQL.

    Outdated are the rows that `compare.compare` calls so.

    Args:
        rows: of one model, any paths.
        listing: rows of `LISTING`.
        retry: rejected rows that are computed again.
    """
    from pyspark.sql.functions import expr

    retried = ["status NOT IN ('scored', 'rejected')"]  # of duplicates, whatever their name was
    if retry == "rejected":
        retried += ["status = 'rejected'"]
    elif retry == "transient":
        retried += [f"reason = '{reason}'" for reason in RETRYABLE_REASONS]
    listed = listing.selectExpr("path", "file_length AS length", "file_modified AS modified")
    changed = "NOT (file_length <=> length AND file_modified <=> modified)"
    by_path = (
        rows.join(listed, "path")
        .groupBy("path")
        .agg(
            expr(f"bool_or({changed}) AS changed"),
            expr(f"count(*) > 1 OR bool_or({changed} OR {' OR '.join(retried)}) AS outdated"),
            expr("any_value(status) AS status"),
            expr("count(*) AS rows"),
        )
    )
    counts = [expr("count(*) AS count"), expr("sum(rows) AS rows")]
    groups = by_path.groupBy("status", "changed", "outdated").agg(*counts).collect()
    # A test of no reason is null.
    sizes = (
        {Group(one.status, one.changed, bool(one.outdated)): Size(one["count"], one.rows)}
        for one in groups
    )
    return summarise(merge_groups(sizes), by_path.where("outdated").select("path"))


def match_listing(rows: DataFrame, listing: DataFrame) -> DataFrame:
    """Return the rows of the files in the version that is listed."""
    return rows.join(listing, FILE_COLUMNS, "left_semi")


def write_without_row(listing: DataFrame, rows: DataFrame, folder: str) -> Slice:
    """Write the listed files that no row matches to Parquet parts below `folder`.

    Args:
        listing: as `read_listing` returns it.
        rows: of one model.
        folder: URI; is created.

    Returns:
        The rows of these parts, with the columns of `LISTING` and in its order, so that a run that
        is resumed takes the files in the order of an undisturbed one. Times are milliseconds.
    """
    from pyspark.sql.functions import col

    parts = listing.select("*", col("_metadata.file_name").alias("part"))
    files = parts.join(rows, FILE_COLUMNS, "left_anti")
    files = files.orderBy("part", *(col(name).asc_nulls_last() for name in LISTING_ORDER))
    # Spark's own form of a time in Parquet has another unit and no time zone.
    times = {"file_modified": "unix_millis(file_modified) AS file_modified"}
    columns = [times.get(name, name) for name in LISTING.names]
    writer = files.selectExpr(*columns).write.option("maxRecordsPerFile", ENTRIES_PER_PART)
    writer.option("parquet.block.row.count.limit", ROWS_PER_GROUP).parquet(folder)
    return list_pieces(folder)


def count_by_status(rows: DataFrame) -> StatusCounts:
    """Return status to number of rows."""
    return _sum((row.status, row["count"]) for row in rows.groupBy("status").count().collect())


def _sum(counts: Iterable[tuple[str, int]]) -> StatusCounts:
    total: Counter[str] = Counter()
    for status, count in counts:
        total[status] += count
    return dict(total)
