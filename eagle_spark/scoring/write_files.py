"""Data files of `predictions` by workers: files in, a Parquet file out, no row through the JVM."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import pyarrow as pa

from eagle_spark.errors import AuditError
from eagle_spark.model.predictor import BATCH_IMAGES
from eagle_spark.scoring.figures import Figures, Rules, compute_figures
from eagle_spark.scoring.listing import LISTING
from eagle_spark.scoring.predict import PREDICTION_SCHEMA, Clock, timed
from eagle_spark.scoring.slices import Slice, count_slice, read_slice, share_out
from eagle_spark.spark.batches import Worker, tasks_for
from eagle_spark.spark.tasks import run_tasks
from eagle_spark.tables.data_files import FileLayout, WrittenFile, write_data_file

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class SliceReport:
    """What a task wrote for a slice.

    Attributes:
        file: holds the rows.
        figures: of the rows.
        misplaced: path of the first file whose row is not where the file is in the slice; None
            without one.
    """

    file: WrittenFile
    figures: Figures
    misplaced: str | None


@dataclass(frozen=True)
class ScoreTask:
    """Scores a slice of listed files into one data file. Picklable.

    A task that is repeated writes another file; only that of the attempt whose report the driver
    got is committed.

    Attributes:
        worker: a `ScoreWorker`.
        layout: of the table.
        run_id: begins the names of the files.
        rules: of the figures.
        clock: seconds of writing.
    """

    worker: Worker
    layout: FileLayout
    run_id: str
    rules: Rules
    clock: Clock | None = None

    def __call__(self, files: Slice) -> SliceReport:
        listed = read_slice(files, LISTING)
        batches = self.worker(listed.to_batches(max_chunksize=BATCH_IMAGES))
        rows = pa.Table.from_batches(batches, PREDICTION_SCHEMA)
        with timed(self.clock):
            file, written = write_data_file(rows, self.layout, self.run_id)
        figures = compute_figures(written, self.rules)
        return SliceReport(file, figures, find_misplaced(listed["path"], written["path"]))


def find_misplaced(listed: pa.ChunkedArray, written: pa.ChunkedArray) -> str | None:
    """Return the first path at which two columns differ; None if they are equal."""
    if listed.equals(written):
        return None
    pairs = zip_longest(listed.to_pylist(), written.to_pylist())
    return next((path or other for path, other in pairs if path != other), None)


def score_files(spark: SparkSession, chunk: Slice, task: ScoreTask) -> list[SliceReport]:
    """Score a chunk into data files, which nobody reads before they are committed.

    Args:
        spark: session.
        chunk: rows of `LISTING`.
        task: is called for each slice of the chunk.

    Returns:
        A report for each slice.

    Raises:
        AuditError: when a file has no row.
    """
    slices = share_out(chunk, tasks_for(spark, count_slice(chunk)))
    reports = run_tasks(spark.sparkContext, slices, task)
    if misplaced := [report.misplaced for report in reports if report.misplaced]:
        raise AuditError(f"{misplaced[0]} has no row, or one in another place of its data file")
    return reports
