"""A reader that polls the published table `predictions` while a job writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

JOIN_SECONDS = 60.0
PAUSE_SECONDS = 0.5  # less would take cores from the job
RUN_COLUMNS = ("run_id", "scored_at")
SESSION = {
    "spark.master": "local[1]",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "1",
}


class Reader:
    """Reads the table by its folder, in a separate Spark session."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def _rows(self, warehouse: str) -> DataFrame:
        return self._spark.read.format("iceberg").load(f"{warehouse}/cxr/predictions")

    def table(self, warehouse: str) -> pa.Table:
        """Return the rows without the columns of the run, ordered by path."""
        rows = self._rows(warehouse).drop(*RUN_COLUMNS)
        return rows.toArrow().sort_by("path").combine_chunks()

    def count_rows(self, warehouse: str) -> str:
        """Return the number of rows, or the error, as text."""
        from pyspark.errors import AnalysisException

        try:
            # Reads the files, not the counts in the metadata.
            counts = self._rows(warehouse).selectExpr("count(confidence)", "count(DISTINCT path)")
            ((rows, paths),) = counts.collect()
        except AnalysisException:
            return "no table"
        except Exception as error:  # any error is an observation
            return str(error).partition("\n")[0][:200]
        return str(paths) if rows == paths else f"{rows} rows of {paths} files"

    def poll(self, warehouse: str) -> AbstractContextManager[Counter[str]]:
        """Poll the table during the block; count the observations."""
        return poll(lambda: self.count_rows(warehouse))


@contextmanager
def poll(read: Callable[[], str]) -> Iterator[Counter[str]]:
    """Call `read` again and again during the block; count its values."""
    observations: Counter[str] = Counter()
    ended = Event()

    def run() -> None:
        while not ended.wait(PAUSE_SECONDS):
            observations[read()] += 1

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield observations
    finally:
        ended.set()
        thread.join(JOIN_SECONDS)
