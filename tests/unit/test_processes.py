"""The load of programs, by kinds of processes."""

from __future__ import annotations

import sys

import pytest

from tests.helpers.processes import Load, process_kind, run_watched

SPIN = "import time\nwhile time.process_time() < {seconds}: pass\n"
DRIVER = (
    "import subprocess, sys\n"
    f"subprocess.run([sys.executable, '-c', {SPIN.format(seconds=1.2)!r}], check=True)\n"
)


@pytest.mark.parametrize(
    ("name", "words", "ancestors", "kind"),
    [
        ("java", ["java", "-cp", "x"], ["python3"], "java"),
        ("python3", ["python3", "submit/score.py"], ["java"], "driver"),
        ("python3.11", ["python", "-m", "benchmarks.rivals.daft_data"], [], "driver"),
        ("python3", ["python3", "-m", "pyspark.daemon", "pyspark.worker"], ["java"], "worker"),
        ("python3", ["python3", "-m", "pyspark.daemon"], ["java", "python3"], "worker"),
        ("python3", ["python3", "-c", "from multiprocessing.spawn"], ["python3"], "worker"),
        ("python3", ["python3", "default_worker.py"], ["python3", "raylet"], "worker"),
        ("ray::Scorer", [], ["raylet"], "worker"),
        ("raylet", ["raylet"], ["python3"], "other"),
        ("bash", ["bash", "spark-submit"], [], "other"),
    ],
)
def test_kinds_of_processes(name: str, words: list[str], ancestors: list[str], kind: str) -> None:
    assert process_kind(name, words, ancestors) == kind


def test_cpu_is_counted_by_kind() -> None:
    _, load = run_watched([sys.executable, "-c", DRIVER], 30)
    assert load.cpu_by_kind.keys() == {"driver", "worker"}
    assert load.cpu_by_kind["worker"] > 0.5
    assert load.cpu_by_kind["driver"] < load.cpu_by_kind["worker"]
    assert sum(load.cpu_by_kind.values()) == pytest.approx(load.cpu_seconds, abs=0.2)


def test_nothing_that_ran_has_no_kinds() -> None:
    assert Load().cpu_by_kind == {}
