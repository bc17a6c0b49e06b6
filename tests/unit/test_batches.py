"""Tasks of Spark, and the model that its workers load before."""

from __future__ import annotations

import pickle
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from eagle_spark.model import predictor
from eagle_spark.model.predictor import ModelRef
from eagle_spark.spark.batches import IMAGES_PER_TASK, Worker, preload, tasks_for

WAIT_SECONDS = 5.0


class FakeSpark:
    """Runs the worker of a frame once for each partition, when the frame is written."""

    def __init__(self, slots: int) -> None:
        self.finished = Event()
        self.groups: list[str] = []
        self.sparkContext = SimpleNamespace(
            defaultParallelism=slots,
            setJobGroup=lambda group, _: self.groups.append(group),
            cancelJobGroup=lambda _: None,
        )
        self.write = self

    def range(self, start: int, end: int, step: int, partitions: int) -> FakeSpark:
        assert (start, step) == (0, 1)
        assert end == partitions  # a row a task
        self.partitions = partitions
        return self

    def mapInArrow(self, worker: Worker, _: object) -> FakeSpark:
        self.worker = worker
        return self

    def format(self, _: str) -> FakeSpark:
        return self

    mode = format

    def save(self) -> None:
        try:
            for _ in range(self.partitions):
                list(self.worker([]))
        finally:
            self.finished.set()


@pytest.mark.parametrize(
    ("slots", "rows", "tasks"),
    [
        (2, 0, 1),
        (2, 1, 1),
        (2, 3, 2),
        (2, 1024, 2),
        (2, 1025, 4),  # not 3: one slot would be idle while the other runs its second task
        (2, 1200, 4),
        (2, 10_000, 20),
        (16, 10_000, 32),
        (16, 12, 12),
    ],
)
def test_the_number_of_tasks_is_a_multiple_of_the_slots(slots: int, rows: int, tasks: int) -> None:
    spark: Any = FakeSpark(slots)
    assert tasks_for(spark, rows) == tasks
    if rows:
        assert -(-rows // tasks) <= IMAGES_PER_TASK
    if rows >= slots:
        assert tasks % slots == 0


@pytest.mark.parametrize("slots", [1, 3])
def test_each_slot_loads_the_model(slots: int) -> None:
    spark: Any = FakeSpark(slots)
    loads: list[int] = []
    with preload(spark, lambda: loads.append(1)):
        assert spark.finished.wait(WAIT_SECONDS)
    assert len(loads) == slots


def test_an_error_of_loading_is_left_to_the_tasks() -> None:
    spark: Any = FakeSpark(2)

    def fail() -> None:
        raise ValueError("no model")

    with preload(spark, fail):
        assert spark.finished.wait(WAIT_SECONDS)


def test_a_task_takes_the_model_that_was_loaded_before(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(predictor, "open_bundle", lambda uri, **_: uri)
    monkeypatch.setattr(predictor, "start_engine", lambda uri, *_: started.append(uri) or object())
    predictor._load.cache_clear()
    try:
        ref = ModelRef("file:///m", "f00", "openvino", 1)
        preloaded = pickle.loads(pickle.dumps(ref.load))()  # noqa: S301 - as Spark sends it
        assert pickle.loads(pickle.dumps(ref)).load() is preloaded  # noqa: S301
    finally:
        predictor._load.cache_clear()
    assert started == ["file:///m"]
