"""The listed files in chunks: one commit on the branch for each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

from eagle_spark.errors import AuditError
from eagle_spark.scoring.context import ScoreRun
from eagle_spark.scoring.dedupe import STATUS_DUPLICATE, copy_duplicate_predictions
from eagle_spark.scoring.diff import StatusCounts
from eagle_spark.scoring.figures import Figures, merge_figures
from eagle_spark.scoring.predict import ScoreWorker
from eagle_spark.scoring.slices import Slice, count_slice, cut
from eagle_spark.scoring.write_files import ScoreTask, write_files
from eagle_spark.scoring.write_rows import write_rows
from eagle_spark.spark.batches import Worker
from eagle_spark.spark.progress import watch_rows

if TYPE_CHECKING:
    from eagle_spark.tables.branch import Branch


@dataclass(frozen=True)
class Appended:
    """What a run appended to the branch.

    Attributes:
        copied: number of rows whose prediction was copied from a row of the same bytes.
        unmatched: number of files that remain without a row, as no row has the bytes that the
            worker took for scored.
        figures: of the rows; None where Spark wrote some, or filled in duplicates.
    """

    copied: int
    unmatched: int
    figures: Figures | None


def score_chunks(context: ScoreRun, branch: Branch, left: Slice, worker: ScoreWorker) -> Appended:
    """Append a row for each file to the branch, chunk by chunk.

    Args:
        context: of the run.
        branch: of `predictions`.
        left: rows of `LISTING` of files without a row.
        worker: is called in each task.

    Raises:
        AuditError: when a file has no row after its chunk.
    """
    copied = unmatched = 0
    parts: list[Figures | None] = []
    with watch_rows(context.spark, "score", count_slice(left)) as count_rows:
        for chunk in cut(left, repeat(context.run.settings.chunk)):
            counts, figures = write_chunk(context, branch, chunk, count_rows(worker))
            if sum(counts.values()) != count_slice(chunk):
                raise AuditError(f"scored {count_slice(chunk)} files; the branch has {counts}")
            duplicates = counts.get(STATUS_DUPLICATE, 0)
            parts.append(None if duplicates else figures)
            if duplicates:
                remaining = fill_duplicates(context, branch)
                copied, unmatched = copied + duplicates - remaining, unmatched + remaining
    present = [part for part in parts if part is not None]
    figures = merge_figures(present) if len(present) == len(parts) else None
    return Appended(copied, unmatched, figures)


def write_chunk(
    context: ScoreRun, branch: Branch, chunk: Slice, worker: Worker
) -> tuple[StatusCounts, Figures | None]:
    """Append a row for each file of a chunk.

    Returns:
        The rows by status; their figures, or None where Spark wrote them.
    """
    if context.layout is None:
        return write_rows(context.spark, branch, chunk, worker, context.condition), None
    clock = context.clocks["write"]
    task = ScoreTask(worker, context.layout, context.run.run_id, context.rules, clock)
    figures = write_files(context.spark, branch, chunk, task)
    return figures.statuses, figures


def fill_duplicates(context: ScoreRun, branch: Branch) -> int:
    """Copy predictions to duplicates; delete those without one and return their number."""
    copy_duplicate_predictions(branch, context.condition)
    duplicates = f"{context.condition} AND status = '{STATUS_DUPLICATE}'"
    if remaining := branch.read().where(duplicates).count():
        branch.delete(duplicates)
    return remaining
