"""The score job when one of its processes is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from eagle_spark.dataset.sample import write_unlabelled

pytestmark = [pytest.mark.spark, pytest.mark.train]
SUBMIT = Path(__file__).resolve().parents[2] / "submit" / "score.py"


def wait_for_worker(job: subprocess.Popen[str]) -> psutil.Process:
    """Return the first Python worker of the job: a child of the daemon that forks them."""
    while job.poll() is None:
        for process in psutil.Process(job.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "pyspark.daemon" in process.cmdline() and process.children():
                    return process.children()[0]
        time.sleep(0.01)
    raise AssertionError("the job ended without a worker")


def test_a_killed_worker_costs_its_task_and_not_the_run(model_folder: Path, tmp_path: Path) -> None:
    write_unlabelled(tmp_path / "images", 12, 5)
    words = [str(Path(sys.executable).with_name("spark-submit")), str(SUBMIT)]
    for name in ("images", "warehouse"):
        words += [f"--{name}", str(tmp_path / name)]
    words += ["--model", str(model_folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as job:
        wait_for_worker(job).kill()
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    result = json.loads(output.splitlines()[-1])
    assert (result["listed"], result["scored"], result["rejected"]) == (16, 12, 4)
