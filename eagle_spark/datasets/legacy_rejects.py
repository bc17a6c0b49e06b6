"""The table `rejects` of version 0.1, whose rows move into `images`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eagle_spark.datasets.changes import REJECTED, REJECTION
from eagle_spark.datasets.rows import complete_rows
from eagle_spark.tables import ACCEPTED, IMAGES, Warehouse
from eagle_spark.tables.definitions import LEGACY_REJECTS
from eagle_spark.tables.iceberg import IcebergTable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_log = logging.getLogger(__name__)


def move_rejects_table(warehouse: Warehouse, branch_name: str) -> None:
    """Move the rows of the table `rejects` of version 0.1 into `images`, then drop the table.

    A path with an accepted row is left out: a run of version 0.1 was killed between its tables.

    Args:
        warehouse: of the tables.
        branch_name: of the branch of `images` for these rows.
    """
    spark = warehouse.spark
    if not IcebergTable(spark, LEGACY_REJECTS).exists():
        return
    rejects = spark.table(LEGACY_REJECTS).dropDuplicates(REJECTION.names)
    with warehouse.branch(IMAGES, branch_name) as branch:
        unmoved = select_unmoved_rejects(rejects, branch.read()).toArrow()
        if unmoved.num_rows:  # Spark 4.1 fails to plan the append of an empty table
            rows = complete_rows(unmoved, {"status": "rejected"})
            branch.append(spark.createDataFrame(rows))
            branch.publish(lambda _: None, lambda _: None)
    spark.sql(f"DROP TABLE {LEGACY_REJECTS}")
    _log.info("moved the rows of the table rejects into images")


def select_unmoved_rejects(rejects: DataFrame, images: DataFrame) -> DataFrame:
    """Return the rows of the table `rejects` of version 0.1 that are not in `images`."""
    return (
        rejects.join(images.where(ACCEPTED), "path", "left_anti")
        .join(images.where(REJECTED), REJECTION.names, "left_anti")
        .withColumnRenamed("rejected_at", "ingested_at")
    )
