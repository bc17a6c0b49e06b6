"""Work on executors without a DataFrame."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from py4j.protocol import Py4JJavaError

from eagle_spark.cli.runner import _last_raised
from eagle_spark.errors import OutputError
from eagle_spark.spark.batches import map_batches
from eagle_spark.spark.tasks import run_tasks, warm_workers

pytestmark = pytest.mark.spark

MARK = "EAGLE_TEST_WARM"


@pytest.mark.parametrize("tasks", [None, 1, 3, 20])
def test_results_have_the_order_of_the_items(spark: Any, tasks: int | None) -> None:
    items = [(number, "ü" * number) for number in range(12)]
    results = run_tasks(spark.sparkContext, items, lambda item: (os.getpid(), item), tasks)
    assert [item for _, item in results] == items
    assert os.getpid() not in {process for process, _ in results}


def test_no_items_are_no_job(spark: Any) -> None:
    assert run_tasks(spark.sparkContext, [], len) == []


def test_the_error_of_a_task_is_one_line_of_the_job(spark: Any) -> None:
    def fail(number: int) -> int:
        raise OutputError(f"file {number} is there")

    with pytest.raises(Py4JJavaError) as error:
        run_tasks(spark.sparkContext, [7], fail)
    assert _last_raised(str(error.value)) == "eagle_spark.errors.OutputError: file 7 is there"


def test_a_task_finds_what_its_worker_loaded_before(spark: Any, tmp_path: Path) -> None:
    log = tmp_path / "loads"

    def load() -> None:
        os.environ[MARK] = "1"
        with log.open("a") as stream:
            stream.write("load\n")

    with warm_workers(spark.sparkContext, load):
        slots = spark.sparkContext.defaultParallelism
        # The job of the block comes first: its tasks wait for the same slots.
        while not log.exists():
            time.sleep(0.01)
        marks = run_tasks(spark.sparkContext, range(slots), lambda _: os.environ.get(MARK))
    assert marks == ["1"] * slots
    assert log.read_text().count("load") == slots


def test_an_error_of_loading_is_left_to_the_tasks(spark: Any) -> None:
    def fail() -> None:
        raise ValueError("no model")

    with warm_workers(spark.sparkContext, fail):
        assert run_tasks(spark.sparkContext, [1, 2], str) == ["1", "2"]


def test_tasks_of_rows_run_in_the_same_workers(spark: Any) -> None:
    def name_process(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"process": [os.getpid()]})

    rows = spark.range(0, 1, 1, 1)
    (row,) = map_batches(rows, name_process, pa.schema([("process", pa.int64())])).collect()
    assert run_tasks(spark.sparkContext, [0], lambda _: os.getpid()) == [row.process]
