"""The one way in which rows of a DataFrame pass through Python: Arrow batches in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Worker = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]

IMAGES_PER_TASK = 512  # a lost task is repeated within seconds


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
