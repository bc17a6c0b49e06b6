"""Tasks of Spark, and the model that its workers load before."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from eagle_spark.model import predictor
from eagle_spark.model.predictor import ModelRef
from eagle_spark.spark.batches import IMAGES_PER_TASK, tasks_for


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
    spark: Any = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=slots))
    assert tasks_for(spark, rows) == tasks
    if rows:
        assert -(-rows // tasks) <= IMAGES_PER_TASK
    if rows >= slots:
        assert tasks % slots == 0


def test_a_task_takes_the_model_that_was_loaded_before(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(predictor, "open_bundle", lambda uri, **_: uri)
    monkeypatch.setattr(predictor, "start_engine", lambda uri, *_: started.append(uri) or object())
    predictor._load.cache_clear()
    try:
        ref = ModelRef("file:///m", "f00", "openvino", 1)
        warm = pickle.loads(pickle.dumps(ref.load))()  # noqa: S301 - as Spark sends it
        assert pickle.loads(pickle.dumps(ref)).load() is warm  # noqa: S301
    finally:
        predictor._load.cache_clear()
    assert started == ["file:///m"]
