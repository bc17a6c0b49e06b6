"""Reports of executors, which tasks of a real Spark collect until a time limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eagle_spark.doctor import probes

pytestmark = pytest.mark.spark


@pytest.mark.parametrize(("seconds", "tasks", "answers"), [(60.0, 1, 1), (8.0, 40, 1), (0.1, 4, 0)])
def test_executors_that_respond_in_time_are_reported(
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
