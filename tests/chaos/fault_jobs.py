"""The jobs that faults are tried out on: what they are given, and what anybody can see of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyspark

from eagle_spark.io import list_folder, locate
from eagle_spark.testing.failpoints import VARIABLE
from tests.chaos.faults import Job
from tests.cluster.local_cluster import LocalCluster
from tests.helpers.processes import ROOT, submit_words

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JOBS = ("preprocess", "train", "score", "maintain", "put")
SIZE = 64
SECONDS = 420.0  # that a run may take
JARS = Path(pyspark.__file__).parent / "jars"
# Who runs Spark's tasks, by the name of a place; all that is on HDFS is on the same one.
MASTERS: dict[str, tuple[str, ...]] = {
    "local": (),
    "executors": ("--master", "local-cluster[2,1,1024]"),
    "hdfs": (),
    "yarn": (
        *("--master", "yarn", "--conf", f"spark.yarn.jars=local:{JARS}/*"),
        *("--conf", "spark.executor.instances=2", "--conf", "spark.executor.memory=512m"),
        *("--conf", "spark.executor.memoryOverhead=1g"),
    ),
}
# The folder that a job reads; train and maintain read the warehouse that others have made of it.
INPUTS = {
    "preprocess": "labelled",
    "train": "learned",
    "score": "night",
    "maintain": "archive",
    "put": "unlabelled",
}


@dataclass
class World:
    """Where everything is.

    Attributes:
        folder: of this machine, for all that is made.
        model: that is asked by score.
        cluster: None where nothing is tried out on HDFS.
        spark: the reader's own session.
    """

    folder: Path
    model: Path
    spark: SparkSession
    cluster: LocalCluster | None = None

    def root(self, place: str) -> str:
        if place not in ("hdfs", "yarn"):
            return str(self.folder / "local")
        assert self.cluster
        return f"{self.cluster.uri}/faults"

    def live(self, place: str) -> str:
        """The folder that a job changes."""
        return f"{self.root(place)}/live"

    def warehouse(self, place: str) -> str:
        return f"{self.live(place)}/warehouse"

    def inputs(self, job: str, place: str) -> str:
        if job == "put":
            return str(self.folder / "drawn" / INPUTS[job])
        return f"{self.root(place)}/{INPUTS[job]}"

    def words(self, job: str, place: str, inputs: str | None = None, steps: str = "") -> list[str]:
        """Return the command line of the job.

        Args:
            steps: folder that tells Python workers where to stand still.
        """
        inputs = inputs or self.inputs(job, place)
        if job == "put":
            given = [inputs, f"{self.live(place)}/put", "--jobs", "4"]
            return [sys.executable, "-m", "eagle_spark.io.upload", *given]
        options = ["--warehouse", self.warehouse(place)]
        if job == "preprocess":
            options += ["--input", inputs, "--size", str(SIZE), "--max-failure-rate", "0.5"]
        elif job == "score":
            options += ["--images", inputs, "--model", str(self.model)]
            options += ["--chunk", "8", "--max-failure-rate", "0.5"]
        elif job == "train":
            options += ["--model", f"{self.live(place)}/models/model", "--resume"]
            options += ["--ranks", "2", "--epochs", "8", "--batch-size", "8"]
            options += ["--weights", "none", "--precision", "f32"]
        else:
            options += ["--keep-days", "1"]
        conf = [*MASTERS[place], "--conf", "spark.sql.shuffle.partitions=4"]
        conf += ["--conf", f"spark.executorEnv.PYTHONPATH={ROOT}"]
        conf += ["--conf", f"spark.executorEnv.{VARIABLE}={steps}"]
        return submit_words(job, *options, conf=conf)

    def environment(self, place: str, **more: str) -> dict[str, str]:
        cluster = self.cluster if place in ("hdfs", "yarn") else None
        known = cluster.environment if cluster else {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
        return {**known, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **more}

    def start(
        self, job: str, place: str, name: str, inputs: str | None = None, **environment: str
    ) -> Job:
        """Start the job; what it prints is kept under that name."""
        folder = self.folder / "logs" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        words = self.words(job, place, inputs, environment.get(VARIABLE, ""))
        return Job(folder, words, self.environment(place, **environment))

    def run(self, job: str, place: str, name: str, inputs: str | None = None) -> None:
        """Run the job undisturbed.

        Raises:
            SystemExit: when it fails.
        """
        begun = self.start(job, place, name, inputs)
        if ended(begun):
            raise begun.failure(f"{job} failed undisturbed")


def ended(job: Job, seconds: float = SECONDS) -> int | None:
    """Return the exit code of the job; None where it did not end in time and was killed."""
    with suppress(subprocess.TimeoutExpired):
        job.process.wait(max(1.0, seconds - job.seconds))
    if job.process.poll() is None:
        job.kill()
        return None
    return job.end()


def beats(world: World, place: str) -> dict[int, dict[str, Any]]:
    """Return what the ranks of a training told last."""
    found: dict[int, dict[str, Any]] = {}
    with suppress(Exception):  # not there yet, or just being removed
        for entry in list_folder(f"{world.warehouse(place)}/cxr/_staging"):
            if entry.name.startswith("heartbeat-"):
                storage, path = locate(entry.uri)
                found[len(found)] = json.loads(storage.read(path, 4096))
    return found


def wait_until(what: str, seconds: float, look: Callable[[], Any]) -> Any:
    """Return what `look` finds; raise TimeoutError after so many seconds without."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:.0f} s")
        time.sleep(0.05)
    return found
