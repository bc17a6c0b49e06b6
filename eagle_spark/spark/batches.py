"""The one way in which rows pass through Python: Arrow batches in, Arrow batches out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Worker = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

IMAGES_PER_TASK = 512  # a lost task is repeated within seconds
JOIN_SECONDS = 30.0


def map_batches(rows: DataFrame, worker: Worker, schema: pa.Schema) -> DataFrame:
    """Return the rows that a worker makes of Arrow batches of `rows`, task by task.

    Args:
        rows: input; `spark.sql.execution.arrow.maxRecordsPerBatch` rows per batch.
        worker: picklable; is called once per task with the batches of its partition.
        schema: of the batches that the worker yields.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    return rows.mapInArrow(worker, from_arrow_schema(schema))


def tasks_for(spark: SparkSession, rows: int, rows_per_task: int = IMAGES_PER_TASK) -> int:
    """Return the number of tasks for a number of rows: all slots, at most `rows_per_task` each.

    A multiple of the slots: three tasks on two slots take as long as four.
    """
    slots = spark.sparkContext.defaultParallelism
    return max(1, min(rows, slots * -(-rows // (slots * rows_per_task))))


@contextmanager
def preload(spark: SparkSession, load: Callable[[], object]) -> Iterator[None]:
    """Call `load` in a Python worker on every slot, in the background of the block.

    The workers take batches of `map_batches` later: `load` has to cache its result, by the key by
    which the tasks load it. Errors of `load` are not raised here: the tasks that need its result
    raise them.
    """
    context, group = spark.sparkContext, f"load {uuid4().hex}"
    tasks = context.defaultParallelism

    def worker(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        load()
        yield from batches

    def run() -> None:
        context.setJobGroup(group, "load the model")
        rows = map_batches(spark.range(0, tasks, 1, tasks), worker, pa.schema({"id": pa.int64()}))
        with suppress(Exception):
            rows.write.format("noop").mode("overwrite").save()

    thread = Thread(target=run, name="preload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if thread.is_alive():
            context.cancelJobGroup(group)
        thread.join(timeout=JOIN_SECONDS)
