"""Progress of workers in a terminal: the rows of their finished tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

import pyarrow as pa

from eagle_spark.progress import Progress
from eagle_spark.spark.batches import Worker

if TYPE_CHECKING:
    from pyspark import Accumulator
    from pyspark.sql import SparkSession

POLL_SECONDS = 1.0

CountRows = Callable[[Worker], Worker]


@dataclass(frozen=True)
class CountingWorker:
    """Counts the rows that a worker takes. Picklable.

    Attributes:
        worker: is called with the same batches.
        rows: sum over the finished tasks; the driver reads it.
    """

    worker: Worker
    rows: Accumulator[int]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return self.worker(self._count(batches))

    def _count(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch
            self.rows.add(batch.num_rows)


@contextmanager
def watch_rows(
    spark: SparkSession, label: str, total: int, unit: str = "images"
) -> Iterator[CountRows]:
    """Show once a second how many rows the workers of the block have finished.

    The number never decreases, and is `total` only at the end of the block. A task counts when it
    is finished: Spark sends the sums of a task to the driver then.

    Args:
        spark: session.
        label: of the line on the terminal.
        total: rows that the workers of the block take.
        unit: of the rows.

    Yields:
        A function that makes a worker for `map_batches` count its rows.
    """
    with Progress(label, total, unit) as progress:
        if not progress.is_visible or not total:
            yield lambda worker: worker
            return
        rows, ended = spark.sparkContext.accumulator(0), Event()

        def poll() -> None:
            while not ended.wait(POLL_SECONDS):
                # Rows of a stage that Spark repeats count twice.
                progress.update(min(rows.value, total - 1))

        watcher = Thread(target=poll, name="progress", daemon=True)
        watcher.start()
        try:
            yield lambda worker: CountingWorker(worker, rows)
        finally:
            ended.set()
            watcher.join(timeout=10)
        progress.update(total)
