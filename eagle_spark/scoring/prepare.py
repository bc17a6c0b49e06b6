"""The branch before a run appends rows: outdated rows are deleted, files without a row are left."""

from __future__ import annotations

from eagle_spark.errors import AuditError
from eagle_spark.io import absolute_uri, join, to_utf8
from eagle_spark.io.archives import is_archive
from eagle_spark.scoring.assess import Baseline
from eagle_spark.scoring.compare import Retry
from eagle_spark.scoring.compare_files import Known, diff_against_files, write_left
from eagle_spark.scoring.context import ScoreRun, select_retry
from eagle_spark.scoring.diff import (
    Diff,
    StatusCounts,
    diff_against_table,
    summarise,
    write_without_row,
)
from eagle_spark.scoring.slices import Slice, count_slice
from eagle_spark.tables import PREDICTIONS
from eagle_spark.tables.branch import Branch
from eagle_spark.tables.iceberg import Snapshot


def prepare(context: ScoreRun, branch: Branch) -> tuple[Baseline, Slice]:
    """Delete outdated rows of the model on the branch.

    Returns:
        The branch, and the listed files that have no row on it, in the order of the listing.
    """
    published, start = context.warehouse.snapshot(PREDICTIONS), branch.head
    if published is None and (start is None or start.rows == 0):  # without a query
        return Baseline({}, {}, start), context.parts
    retry = select_retry(context.run.settings)
    diff = compare_branch(context, branch.name, "known", retry)
    is_published = start is not None and start.id == published
    before: StatusCounts = {}
    if is_published:
        before = diff.unchanged
    elif published is not None:
        before = compare_branch(context, "main", "published", "never").unchanged
    if diff.outdated is not None:
        branch.delete_paths(diff.outdated, context.condition)
    if start is None or not is_published:
        start = None
    elif diff.outdated is not None:
        start = find_deletion(branch, start, diff.outdated_rows)
    left = find_left(context, branch, diff, sum(diff.valid.values()), "left")
    return Baseline(before, diff.valid, start), left


def compare_branch(context: ScoreRun, ref: str, folder: str, retry: Retry) -> Diff:
    """Compare the listing with the rows of the model on a branch.

    Args:
        context: of the run.
        ref: name of the branch, which has a snapshot.
        folder: in the staging folder; does not exist yet.
        retry: rejected rows that are computed again.
    """
    iceberg, model_id = context.warehouse.iceberg(PREDICTIONS), context.bundle.metadata.model_id
    images = absolute_uri(context.run.settings.images)
    prefix = to_utf8(images if is_archive(images) else f"{images.rstrip('/')}/")
    snapshot, files = iceberg.snapshot_id(ref), None
    if context.layout is not None and snapshot is not None:
        files = iceberg.plan_files(snapshot, {"model_id": model_id}, {"path": prefix})
    if context.layout is None or files is None:
        rows = context.select(context.warehouse.read(PREDICTIONS, ref))
        return diff_against_table(rows, context.listing, retry)
    if not files:
        return summarise({}, None)
    diff = diff_against_files(
        context.spark.sparkContext,
        context.parts,
        files,
        Known(context.layout.schema, model_id, retry, prefix),
        join(context.staging, folder),
    )
    outdated = None
    if diff.outdated:
        outdated = context.spark.read.schema("path STRING").parquet(*diff.outdated)
    return summarise(diff.groups, outdated, diff.left)


def find_deletion(branch: Branch, start: Snapshot, rows: int) -> Snapshot | None:
    """Return the newest snapshot of the branch if it is `start` without a number of rows."""
    head = branch.head
    if head is None or head.parent_id != start.id or head.rows is None or start.rows is None:
        return None
    return head if start.rows - head.rows == rows else None


def find_left(context: ScoreRun, branch: Branch, diff: Diff, done: int, folder: str) -> Slice:
    """Return the listed files that have no row on the branch, in the order of the listing.

    Args:
        context: of the run.
        branch: of `predictions`.
        diff: of the listing and the branch before outdated rows were deleted.
        done: number of files that have a row.
        folder: in the staging folder, for the files; does not exist yet.

    Raises:
        AuditError: when these and `done` are not all listed files.
    """
    if not done:
        return context.parts
    if done == context.listed:
        return ()
    uri = join(context.staging, folder)
    if diff.left is None:
        left = write_without_row(context.listing, context.select(branch.read()), uri)
    else:
        left = write_left(context.spark.sparkContext, diff.left, uri)
    if count_slice(left) + done != context.listed:
        raise AuditError(
            f"listed {context.listed} files: {done} have a row, {count_slice(left)} have none"
        )
    return left
