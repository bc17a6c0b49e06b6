"""The Spark session: errors at its start, and its default settings."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import OutputError
from eagle_spark.io import LocalStorage
from eagle_spark.spark.session import (
    DEFAULT_CONF,
    GLOB_CHARACTERS,
    LOCAL_CONF,
    check_warehouse,
    open_session,
)
from eagle_spark.tables import RUNS, Warehouse

DEFAULTS = Path(__file__).resolve().parents[2] / "conf" / "spark-defaults.conf"

MISSPELT = """
import os, sys
os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[x pyspark-shell"
from eagle_spark.cli.runner import run_job as main
from eagle_spark.spark.session import open_session
from eagle_spark.settings import ScoreSettings
def run(settings):
    with open_session("score", settings.warehouse):
        return {}
sys.exit(main(ScoreSettings, run, ["--images", "i", "--model", "m", "--warehouse", sys.argv[1]]))
"""


@pytest.mark.spark
def test_a_spark_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSPELT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: Spark did not start: ")
    assert "local[x" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.spark
def test_a_thread_writes_to_its_own_warehouse(spark: Any, tmp_path: Path) -> None:
    def create_table(name: str) -> None:
        with open_session("test", str(tmp_path / name)) as session:
            assert session is not spark
            Warehouse(session).create_or_migrate(RUNS)

    with ThreadPoolExecutor(1) as pool:  # whose thread has no active session
        list(pool.map(create_table, ("first", "second")))
    folders = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/cxr/*")}
    assert {"first/cxr/runs", "second/cxr/runs"} <= folders


CONTEXT = """
import sys
from pathlib import Path
from pyspark import SparkContext
from pyspark.sql import SparkSession
from eagle_spark.spark.session import open_session, start_context, threads_per_task

def read_worker(_):
    parent = Path(f"/proc/{__import__('os').getppid()}/cmdline").read_text()
    return "wave" in sys.modules, "eagle_spark.spark.daemon" in parent

with start_context("test", {"spark.task.cpus": "2"}, imports=["no_such_module", "wave"]) as context:
    assert context.parallelize([0], 1).map(read_worker).collect() == [(True, True)]
    assert SparkSession.getActiveSession() is None
    assert threads_per_task(context) == 2
    with open_session("test", sys.argv[1]) as spark:
        assert spark.sparkContext is context
        assert threads_per_task(spark) == 2
        assert spark.sql("SHOW NAMESPACES IN eagle").count() == 0
    assert context._jsc is not None
    with open_session("test", sys.argv[1]) as other:
        assert other is not spark
assert SparkContext._active_spark_context is None
with open_session("test", None) as spark:
    assert spark.sparkContext is not context
    assert spark.sparkContext.parallelize([0], 1).map(read_worker).collect() == [(False, False)]
assert SparkSession.getActiveSession() is None
"""


@pytest.mark.spark
@pytest.mark.slow(reason="a JVM of its own, whose context stops and starts again")
def test_a_session_uses_the_context_that_was_started_before_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # Spark pickles functions of a file by value
    script.write_text(CONTEXT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("character", GLOB_CHARACTERS)
def test_a_warehouse_that_spark_takes_for_a_pattern_is_refused(
    character: str, tmp_path: Path
) -> None:
    place = tmp_path / f"ware{character}house"
    with pytest.raises(OutputError) as caught:
        check_warehouse(str(place))
    assert "`warehouse`" in str(caught.value)
    assert str(caught.value).endswith(f"got {character}")
    assert not place.exists()


def test_two_probes_of_a_warehouse_have_two_names_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = LocalStorage.write

    def watched(self: LocalStorage, path: str, data: bytes) -> None:
        written.append(path)
        write(self, path, data)

    monkeypatch.setattr(LocalStorage, "write", watched)
    for _ in range(2):
        check_warehouse(str(tmp_path))
    assert len(set(written)) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_defaults_file_and_the_rules_do_not_differ() -> None:
    lines = [line.split(maxsplit=1) for line in DEFAULTS.read_text().splitlines()]
    defaults = {line[0]: line[1].strip() for line in lines if line and not line[0].startswith("#")}
    rules = DEFAULT_CONF | LOCAL_CONF
    shared = defaults.keys() & rules.keys()
    assert len(shared) >= 5
    assert {key: defaults[key] for key in shared} == {key: rules[key] for key in shared}
