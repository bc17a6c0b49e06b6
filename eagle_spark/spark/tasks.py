"""Work on executors without a DataFrame: Python objects in, Python objects out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

if TYPE_CHECKING:
    from pyspark import SparkContext

T = TypeVar("T")
R = TypeVar("R")

JOIN_SECONDS = 30.0


def run_tasks(
    context: SparkContext, items: Sequence[T], function: Callable[[T], R], tasks: int | None = None
) -> list[R]:
    """Call a function for each item on the executors; the JVM handles neither as rows.

    Args:
        context: of Spark.
        items: picklable and small: they pass through the driver.
        function: picklable. Spark repeats a task that fails, so it may be called more than once for
            an item; the results of one call are returned.
        tasks: number of tasks; by default one for each item.

    Returns:
        The results in the order of the items; they pass through the driver.
    """
    if not items:
        return []
    shared = context.parallelize(items, tasks or len(items))
    return shared.map(function).collect()


@contextmanager
def warm_workers(context: SparkContext, load: Callable[[], object]) -> Iterator[None]:
    """Call `load` in a Python worker on every slot, in the background of the block.

    The workers run the tasks of `run_tasks` and `map_batches` later: `load` has to cache its
    result, by the key by which the tasks load it. Errors of `load` are not raised here: the tasks
    that need its result raise them.
    """
    group = f"load {uuid4().hex}"

    def call(_: int) -> int:
        load()
        return 0

    def run() -> None:
        context.setJobGroup(group, "load the model")
        with suppress(Exception):
            run_tasks(context, range(context.defaultParallelism), call)

    thread = Thread(target=run, name="warm workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if thread.is_alive():
            context.cancelJobGroup(group)
        thread.join(timeout=JOIN_SECONDS)
