"""Rows of `predictions` through Spark's writer, for tables whose files workers cannot write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from eagle_spark.scoring.diff import StatusCounts, count_by_status, match_listing
from eagle_spark.scoring.listing import LISTING
from eagle_spark.scoring.predict import PREDICTION_SCHEMA
from eagle_spark.scoring.slices import Slice, read_slice
from eagle_spark.spark.batches import Worker, map_batches, tasks_for

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from eagle_spark.tables.branch import Branch


def write_rows(
    spark: SparkSession, branch: Branch, chunk: Slice, worker: Worker, condition: str
) -> StatusCounts:
    """Append a row for each file of a chunk to the branch, in one commit.

    The chunk passes through the driver.

    Args:
        spark: session.
        branch: of `predictions`.
        chunk: rows of `LISTING`.
        worker: a `ScoreWorker`; is called in each task.
        condition: SQL, of the rows of the model.

    Returns:
        The rows of these files on the branch, by status.
    """
    listed = read_slice(chunk, LISTING)
    branch.append(predict(spark, listed, worker))
    files = spark.createDataFrame(listed)
    return count_by_status(match_listing(branch.read().where(condition), files))


def predict(spark: SparkSession, listed: pa.Table, worker: Worker) -> DataFrame:
    """Return a row of `predictions` for each listed file; each task takes consecutive files."""
    from pyspark.sql.functions import col

    count = listed.num_rows
    tasks = tasks_for(spark, count)
    rows = np.arange(count)
    numbered = listed.append_column("row", pa.array(rows, pa.int64()))
    numbered = numbered.append_column("task", pa.array(rows * tasks // max(count, 1), pa.int32()))
    shared = spark.createDataFrame(numbered).repartitionById(tasks, col("task"))
    ordered = shared.sortWithinPartitions("row").drop("row", "task")
    return map_batches(ordered, worker, PREDICTION_SCHEMA)
