"""The score job when one of its processes is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from eagle_spark.tables import PREDICTIONS
from eagle_spark.testing.failpoints import ENV_VARIABLE
from tests.helpers.score_runs import query

pytestmark = [pytest.mark.spark, pytest.mark.train, pytest.mark.slow("a job by its spark-submit")]
SUBMIT = Path(__file__).resolve().parents[2] / "submit" / "score.py"
SECONDS = 300
TABLE = PREDICTIONS.full_name


def start(images: Path, model: Path, warehouse: Path, **environment: str) -> subprocess.Popen[str]:
    words = [str(Path(sys.executable).with_name("spark-submit")), str(SUBMIT)]
    words += ["--images", str(images), "--model", str(model), "--warehouse", str(warehouse)]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def wait_for_worker(job: subprocess.Popen[str]) -> psutil.Process:
    """Return the first Python worker of the job: a child of the daemon that forks them."""
    while job.poll() is None:
        for process in psutil.Process(job.pid).children(recursive=True):
            with suppress(psutil.Error):
                is_daemon = any(word.endswith("spark.daemon") for word in process.cmdline())
                if is_daemon and process.children():
                    return process.children()[0]
        time.sleep(0.01)
    raise AssertionError("the job ended without a worker")


@pytest.mark.extended("one more job by its spark-submit", seconds=20)
def test_a_killed_worker_costs_its_task_and_not_the_run(
    images: Path, model_folder: Path, tmp_path: Path
) -> None:
    with start(images, model_folder, tmp_path / "warehouse") as job:
        wait_for_worker(job).kill()
        output, _ = job.communicate(timeout=SECONDS)
    assert job.returncode == 0, output
    result = json.loads(output.splitlines()[-1])
    assert (result["listed"], result["scored"], result["rejected"]) == (16, 12, 4)


def test_a_run_after_a_killed_driver_publishes_the_rows_of_an_undisturbed_run(
    score: Callable[..., dict[str, Any]], images: Path, model_folder: Path, tmp_path: Path
) -> None:
    undisturbed = score()
    warehouse, steps = tmp_path / "killed", tmp_path / "steps"
    steps.mkdir()
    (steps / "audited").touch()
    with start(images, model_folder, warehouse, **{ENV_VARIABLE: str(steps)}) as job:
        deadline = time.monotonic() + SECONDS
        while not (steps / "audited").read_text():
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGKILL)
    assert query(warehouse) == []
    result = score(warehouse=warehouse)
    assert (result["already_scored"], result["scored"], result["rejected"]) == (0, 12, 4)
    # Not the probabilities: their last digits depend on the images that share a batch.
    columns = f"SELECT path, image_id, status, reason, label, mask FROM {TABLE} ORDER BY path"
    assert query(warehouse, columns) == query(tmp_path / "warehouse", columns)
    (killed,) = {row.run_id for row in query(warehouse)}  # whose rows are scored once
    assert killed not in (result["run_id"], undisturbed["run_id"])
