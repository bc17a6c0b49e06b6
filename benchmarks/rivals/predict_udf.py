"""Spark with this package's `predict_udf`, as in a notebook."""

from __future__ import annotations

import os
import time

import pandas as pd  # pandas_udf reads the annotations

from benchmarks.rivals.work import parse_arguments


def main() -> None:
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import pandas_udf

    from eagle_spark import load_model, predict_udf

    arguments = parse_arguments()
    cores = len(os.sched_getaffinity(0))
    spark = SparkSession.builder.master(f"local[{cores}]").getOrCreate()

    def time_of(rows: pd.DataFrame) -> pd.Series:
        return pd.Series(time.time(), index=rows.index)

    predict = predict_udf(load_model(arguments.model, arguments.engine))
    files = spark.read.format("binaryFile").load(arguments.paths).repartition(4 * cores)
    rows = files.select("path", predict("content").alias("row"))
    scored_at = pandas_udf(time_of, "double")("row").alias("scored_at")  # type: ignore[call-overload]
    rows.select("path", "row.*", scored_at).write.parquet(arguments.out)
    spark.stop()


if __name__ == "__main__":
    main()
