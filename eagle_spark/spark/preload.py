"""Workers that have the model loaded when the first images come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JOIN_SECONDS = 30.0


@contextmanager
def warm_workers(spark: SparkSession, load: Callable[[], object]) -> Iterator[None]:
    """Call `load` in a worker on every core but one, while the block goes on and no longer.

    That one is for what the block asks of Spark. Where `load` fails, those will say so who need
    what it loads.
    """
    context, group = spark.sparkContext, f"load {uuid4().hex}"

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        load()
        yield from batches

    def run() -> None:
        context.setJobGroup(group, "load the model")
        count = context.defaultParallelism - 1
        rows = spark.range(0, count, 1, count).mapInArrow(work, "id LONG")
        with suppress(Exception):
            rows.write.format("noop").mode("overwrite").save()

    if context.defaultParallelism == 1:
        yield
        return
    loader = Thread(target=run, name="load", daemon=True)
    loader.start()
    try:
        yield
    finally:
        if loader.is_alive():
            context.cancelJobGroup(group)
        loader.join(timeout=JOIN_SECONDS)
