"""The listed files in chunks: one commit on the branch for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, TypeVar

from eagle_spark.errors import AuditError
from eagle_spark.scoring.context import ScoreRun
from eagle_spark.scoring.dedupe import STATUS_DUPLICATE, copy_duplicate_predictions
from eagle_spark.scoring.diff import StatusCounts
from eagle_spark.scoring.figures import Figures, merge_figures
from eagle_spark.scoring.predict import ScoreWorker
from eagle_spark.scoring.slices import Slice, count_slice, cut
from eagle_spark.scoring.write_files import ScoreTask, SliceReport, score_files
from eagle_spark.scoring.write_rows import write_rows
from eagle_spark.spark.batches import Worker
from eagle_spark.spark.progress import watch_rows
from eagle_spark.tables.data_files import FileLayout

if TYPE_CHECKING:
    from eagle_spark.tables.branch import Branch

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True)
class Appended:
    """What a run, or a chunk of it, appended to the branch.

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

    A chunk whose data files workers write is committed while the next one is scored.

    Args:
        context: of the run.
        branch: of `predictions`.
        left: rows of `LISTING` of files without a row.
        worker: is called in each task.

    Raises:
        AuditError: when a file has no row after its chunk.
    """
    chunks = cut(left, repeat(context.run.settings.chunk))
    with watch_rows(context.spark, "score", count_slice(left)) as count_rows:
        if context.layout is None:
            parts = append_rows(context, branch, chunks, count_rows(worker))
        else:
            parts = append_files(context, branch, chunks, count_rows(worker), context.layout)
        return merge_appended(parts)


def merge_appended(parts: Iterable[Appended]) -> Appended:
    """Return the sums of all parts; their figures, if each has some."""
    copied = unmatched = 0
    figures: Figures | None = merge_figures([])
    for part in parts:
        copied, unmatched = copied + part.copied, unmatched + part.unmatched
        if figures is not None:
            figures = None if part.figures is None else merge_figures([figures, part.figures])
    return Appended(copied, unmatched, figures)


def append_rows(
    context: ScoreRun, branch: Branch, chunks: Iterable[Slice], worker: Worker
) -> Iterator[Appended]:
    """Append chunks through Spark's writer, one after the other."""
    for chunk in chunks:
        counts = write_rows(context.spark, branch, chunk, worker, context.condition)
        yield complete_chunk(context, branch, chunk, counts, None)


def append_files(
    context: ScoreRun, branch: Branch, chunks: Iterable[Slice], worker: Worker, layout: FileLayout
) -> Iterator[Appended]:
    """Append chunks whose data files workers write; commit each while the next one is scored."""
    rules, clock = context.rules, context.clocks["write"]
    task = ScoreTask(worker, layout, context.run.run_id, rules, clock)

    def score(chunk: Slice) -> list[SliceReport]:
        return score_files(context.spark, chunk, task)

    def commit(chunk: Slice, reports: list[SliceReport]) -> Appended:
        branch.append_files([report.file for report in reports])
        figures = merge_figures(report.figures for report in reports)
        return complete_chunk(context, branch, chunk, figures.statuses, figures)

    return commit_in_background(chunks, score, commit)


def commit_in_background(
    chunks: Iterable[T], score: Callable[[T], S], commit: Callable[[T, S], R]
) -> Iterator[R]:
    """Score chunk after chunk; commit each one, in its turn, while the next one is scored.

    At most one commit is under way or waits. A chunk is scored to its end if the commit of the one
    before it fails, and is not committed. The commit of a chunk ends before the error of the next
    one is raised.

    Args:
        chunks: in the order of their commits.
        score: is called in this thread.
        commit: is called with a chunk and its result of `score` in one other thread.

    Yields:
        The result of `commit` of each chunk.

    Raises:
        Exception: the first error, in the order of the chunks, of `score` or `commit`.
    """
    last: Future[R] | None = None
    with ThreadPoolExecutor(1, "commit") as pool:
        for chunk in chunks:
            try:
                scored = score(chunk)
            except BaseException:
                if last is not None:
                    last.result()
                raise
            if last is not None:
                yield last.result()
            last = pool.submit(commit, chunk, scored)
        if last is not None:
            yield last.result()


def complete_chunk(
    context: ScoreRun,
    branch: Branch,
    chunk: Slice,
    counts: StatusCounts,
    figures: Figures | None,
) -> Appended:
    """Check that a committed chunk has all its rows; fill in its duplicates.

    Args:
        context: of the run.
        branch: of `predictions`.
        chunk: rows of `LISTING`.
        counts: rows by status.
        figures: of the rows.

    Raises:
        AuditError: when a file has no row.
    """
    if sum(counts.values()) != count_slice(chunk):
        raise AuditError(f"scored {count_slice(chunk)} files; the branch has {counts}")
    duplicates = counts.get(STATUS_DUPLICATE, 0)
    if not duplicates:
        return Appended(0, 0, figures)
    remaining = fill_duplicates(context, branch)
    return Appended(duplicates - remaining, remaining, None)


def fill_duplicates(context: ScoreRun, branch: Branch) -> int:
    """Copy predictions to duplicates; delete those without one and return their number."""
    copy_duplicate_predictions(branch, context.condition)
    duplicates = f"{context.condition} AND status = '{STATUS_DUPLICATE}'"
    if remaining := branch.read().where(duplicates).count():
        branch.delete(duplicates)
    return remaining
