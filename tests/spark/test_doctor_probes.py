"""Executors are asked by real tasks; some answer in time, some do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eagle_spark.doctor import probes

pytestmark = pytest.mark.spark


@pytest.mark.parametrize(("seconds", "tasks", "answers"), [(60.0, 1, 1), (8.0, 40, 1), (0.1, 4, 0)])
def test_those_that_answer_in_time_are_told_of(
    spark: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    tasks: int,
    answers: int,
) -> None:
    monkeypatch.setattr(probes, "MIN_RESPONSE_SECONDS", 0.1)
    seen, _ = probes.write_probe_file(str(tmp_path))
    found = probes.collect_executor_reports(spark, str(tmp_path), seen, tasks, 1, seconds)
    assert [report.storage for report in found] == [None] * answers
