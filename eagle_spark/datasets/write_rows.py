"""Rows of `images` through Spark's writer, for tables whose files workers cannot write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from eagle_spark.datasets.decode_worker import DECODED
from eagle_spark.io import join
from eagle_spark.tables import IMAGES

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from eagle_spark.tables.branch import Branch


def write_rows(
    spark: SparkSession,
    branch: Branch,
    written: pd.DataFrame,
    staging: str,
    constants: Mapping[str, object],
    rejected: pa.Table,
) -> None:
    """Append rows of `images` to the branch.

    Args:
        spark: session.
        branch: of `images`.
        written: `path`, `split` and `staged` of each image to write.
        staging: URI of the folder of the staged files.
        constants: column -> value in all rows of the images.
        rejected: further rows of `images`.
    """
    if not written.empty:
        branch.append(join_splits(spark, written, staging, constants))
    if rejected.num_rows:
        branch.append(spark.createDataFrame(rejected))


def join_splits(
    spark: SparkSession, written: pd.DataFrame, staging: str, constants: Mapping[str, object]
) -> DataFrame:
    """Return the rows of `images` of staged rows; see `write_rows`."""
    from pyspark.sql.functions import broadcast, lit
    from pyspark.sql.pandas.types import from_arrow_schema

    files = [join(staging, name) for name in written["staged"].unique()]
    staged = spark.read.schema(from_arrow_schema(DECODED)).parquet(*files)
    splits = spark.createDataFrame(pa.Table.from_pandas(written[["path", "split"]]))
    missing = {
        field.name: lit(constants.get(field.name)).cast(field.dataType)
        for field in IMAGES.schema().fields
        if field.name not in (*DECODED.names, "split")
    }
    rows = staged.join(broadcast(splits), "path").withColumns(missing)
    return rows.select(*IMAGES.arrow_schema().names)
