"""Ranks under Spark, killed, stopped and with bad rows; the whole job is in test_train_job."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from eagle_spark.io import resolve
from eagle_spark.io.lock import AlreadyRunningError
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.restarts import train_ranks

pytestmark = [pytest.mark.spark, pytest.mark.train]
killed_ranks = pytest.mark.extended("a training on two ranks, begun twice", seconds=30)

WAIT = 240  # seconds
EPOCHS = 8  # short ones
EVERY = 4  # steps from one checkpoint to the next: nearly all are left after the first
DRIVER = """
import json, logging, os, pickle, sys
from pyspark.sql import SparkSession
from eagle_spark.errors import EagleError
from eagle_spark.spark.session import LOCAL_CONF
from eagle_spark.training.ranks.restarts import train_ranks

logging.basicConfig(format="%(message)s")
logging.getLogger("eagle_spark").setLevel(logging.INFO)
os.environ["PYSPARK_PYTHON"] = sys.executable
builder = SparkSession.builder.config("spark.python.worker.reuse", "false")
for key, value in (LOCAL_CONF | {"spark.master": "local[2]"}).items():
    builder = builder.config(key, value)
plan, max_restarts, resume = pickle.load(sys.stdin.buffer)
try:
    found = vars(train_ranks(builder.getOrCreate(), plan, max_restarts, resume))
except EagleError as error:
    found = {"kind": type(error).__name__, "error": str(error)}
print(json.dumps(found), flush=True)
"""


class Training:
    """One driver process and the ranks it starts."""

    def __init__(self, plan: TrainPlan, max_restarts: int = 3, resume: bool = False) -> None:
        self.folder = Path(plan.staging.removeprefix("file://")).parent
        self.folder.mkdir(exist_ok=True)
        self._log = (self.folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        assert self.process.stdin
        pickle.dump((plan, max_restarts, resume), self.process.stdin)
        self.process.stdin.close()

    def result(self) -> dict[str, Any]:
        assert self.process.stdout
        result: dict[str, Any] = json.loads(self.process.stdout.read() or "{}")
        assert self.process.wait(WAIT) == 0, self.log()
        return result

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def records(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        staging = Path(result["staging"].removeprefix("file://"))
        return [json.loads((staging / f"rank-{rank}.json").read_bytes()) for rank in (0, 1)]

    def end(self) -> None:
        """Kill its remaining processes."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            below = []
        for process in [*below, self.process]:
            process.kill()
        self.process.wait(WAIT)
        if self.process.stdout:
            self.process.stdout.close()
        self._log.close()


MakePlan = Callable[..., TrainPlan]
Wait = Callable[[Training], list[psutil.Process]]


@contextmanager
def training(plan: TrainPlan, **options: Any) -> Iterator[Training]:
    started = Training(plan, **options)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def digest(make_plan: MakePlan, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the weights of the undisturbed training."""
    plan = make_plan(tmp_path_factory.mktemp("calm"), 2, EPOCHS, checkpoint_steps=EVERY)
    with training(plan) as calm:
        result = calm.result()
        assert (result["restart_reasons"], result["resumed_from"]) == ([], 0)
        first, second = calm.records(result)
        assert first["weights_digest"] == second["weights_digest"]
        return str(first["weights_digest"])


@pytest.fixture
def after_some_steps(wait_for: Callable[..., Path]) -> Wait:
    """Wait for the first checkpoint; return the processes of the ranks."""

    def wait(training: Training) -> list[psutil.Process]:
        wait_for(training.folder, "checkpoints/step-*.npz", training.process)
        beats = [training.folder / f"staging/attempt-1/heartbeat-{rank}.json" for rank in (0, 1)]
        return [psutil.Process(json.loads(beat.read_bytes())["pid"]) for beat in beats]

    return wait


def check_ended_alike(training: Training, result: dict[str, Any], digest: str) -> None:
    for rank, record in enumerate(training.records(result)):
        assert record["weights_digest"] == digest
        assert [epoch["epoch"] for epoch in record["epochs"]] == list(range(1, EPOCHS + 1))
        assert all(epoch["ram"] > 0 for epoch in record["epochs"])
        assert record["rank"] == rank


@killed_ranks
def test_stalled_ranks_are_detected_and_replaced(
    make_plan: MakePlan, tmp_path: Path, digest: str, after_some_steps: Wait
) -> None:
    """Both of them: one alone is noticed by TensorFlow in the other."""
    plan = make_plan(tmp_path, 2, EPOCHS, stall=30.0, checkpoint_steps=EVERY)
    with training(plan) as disturbed:
        ranks = after_some_steps(disturbed)
        for rank in ranks:
            rank.suspend()
        result = disturbed.result()
        (reason,) = result["restart_reasons"]
        # Whatever is over its limit first: the last beat, or the last piece of work before it.
        pattern = (
            r"rank (\d) \(process (\d+) on .*?\) has (?:written no heartbeat|made no step) for"
        )
        assert (stalled := re.findall(pattern, reason))
        assert all(ranks[int(rank)].pid == int(pid) for rank, pid in stalled)
        assert "restart 1 of 3; " in disturbed.log()
        check_ended_alike(disturbed, result, digest)
        assert not any(rank.is_running() for rank in ranks)


@killed_ranks
def test_without_restarts_the_error_names_resume(
    make_plan: MakePlan, tmp_path: Path, after_some_steps: Wait
) -> None:
    plan = make_plan(tmp_path, 2, EPOCHS, checkpoint_steps=EVERY)
    with training(plan, max_restarts=0) as disturbed:
        after_some_steps(disturbed)[0].kill()
        result = disturbed.result()
        assert result["kind"] == "EagleError"
        assert f" of {plan.steps * EPOCHS} steps are kept; `resume` continues" in result["error"]
        assert "rank 0" in result["error"]


@killed_ranks
def test_a_bad_row_is_not_retried(make_plan: MakePlan, tmp_path: Path) -> None:
    with training(make_plan(tmp_path, 2, EPOCHS, classes=("dark", "grey"))) as misled:
        result = misled.result()
        assert result["kind"] == "InputError"
        assert result["error"].startswith("the table holds the label 'light'")
        assert "restart" not in misled.log()


def test_checkpoints_of_another_driver_are_kept(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "plan", 1, 1)
    storage, folder = resolve(plan.checkpoints)
    storage.write(f"{folder}/step-1", b"another's")

    def raise_already_running() -> None:
        raise AlreadyRunningError("another run does the same")

    spark: Any = None  # is not used
    with pytest.raises(AlreadyRunningError):
        train_ranks(spark, plan, 0, False, raise_already_running)
    assert storage.read(f"{folder}/step-1", 100) == b"another's"
