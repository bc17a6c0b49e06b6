"""Somebody who asks the published table `predictions` again and again while a job writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LAST_LOOK = 60.0  # seconds, at most
PAUSE = 0.5  # seconds; or it takes the job's cores away
OF_THE_RUN = ("run_id", "scored_at")
SESSION = {
    "spark.master": "local[1]",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "1",
}


class Reader:
    """A Spark session of its own, which finds the table by its folder."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def _rows(self, warehouse: str) -> DataFrame:
        return self._spark.read.format("iceberg").load(f"{warehouse}/cxr/predictions")

    def table(self, warehouse: str) -> pa.Table:
        """Return all that does not tell of the run, in the order of paths."""
        rows = self._rows(warehouse).drop(*OF_THE_RUN)
        return rows.toArrow().sort_by("path").combine_chunks()

    def look(self, warehouse: str) -> str:
        """Return the number of rows, or what else the reader is told."""
        from pyspark.errors import AnalysisException

        try:
            # From the files, not from the sums that the table keeps of them.
            found = self._rows(warehouse).selectExpr("count(confidence)", "count(DISTINCT path)")
            ((rows, paths),) = found.collect()
        except AnalysisException:
            return "no table"
        except Exception as error:  # whatever it is, it is a finding
            return str(error).partition("\n")[0][:200]
        return str(paths) if rows == paths else f"{rows} rows of {paths} files"

    def polling(self, warehouse: str) -> AbstractContextManager[Counter[str]]:
        """Count, by what was seen, the looks at the table within the block."""
        return polling(lambda: self.look(warehouse))


@contextmanager
def polling(look: Callable[[], str]) -> Iterator[Counter[str]]:
    """Look again and again within the block; count what was seen."""
    seen: Counter[str] = Counter()
    ended = Event()

    def poll() -> None:
        while not ended.wait(PAUSE):
            seen[look()] += 1

    thread = Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join(LAST_LOOK)
