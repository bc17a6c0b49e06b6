"""The jobs of the fault matrix: their command lines, inputs and heartbeats."""

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

from eagle_spark.io import list_folder, resolve
from eagle_spark.testing.failpoints import ENV_VARIABLE
from tests.chaos.faults import Job
from tests.cluster.local_cluster import LocalCluster
from tests.helpers.processes import ROOT, submit_words

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JOBS = ("preprocess", "train", "score", "maintain", "put")
SIZE = 64
SECONDS = 420.0  # timeout of a run
JARS = Path(pyspark.__file__).parent / "jars"
# Options of spark-submit by place; `hdfs` and `yarn` use the same HDFS.
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
# The input folder of each job; train and maintain read the warehouse that other jobs made of it.
INPUTS = {
    "preprocess": "labelled",
    "train": "learned",
    "score": "night",
    "maintain": "archive",
    "put": "unlabelled",
}


@dataclass
class Sandbox:
    """Folders, model and services of the matrix.

    Attributes:
        folder: local, for all files of the matrix.
        model: for score.
        spark: session of the reader.
        cluster: None without cells on HDFS.
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
        """Return the folder that a job changes."""
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
            steps: folder of the failpoints, for Python workers.
        """
        inputs = inputs or self.inputs(job, place)
        if job == "put":
            arguments = [inputs, f"{self.live(place)}/put", "--jobs", "4"]
            return [sys.executable, "-m", "eagle_spark.cli.main", "upload", *arguments]
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
        conf += ["--conf", f"spark.executorEnv.{ENV_VARIABLE}={steps}"]
        return submit_words(job, *options, conf=conf)

    def environment(self, place: str, **more: str) -> dict[str, str]:
        cluster = self.cluster if place in ("hdfs", "yarn") else None
        variables = (
            cluster.environment if cluster else {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}
        )
        return {**variables, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **more}

    def start(
        self, job: str, place: str, name: str, inputs: str | None = None, **environment: str
    ) -> Job:
        """Start the job; its output is logged under that name."""
        folder = self.folder / "logs" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        words = self.words(job, place, inputs, environment.get(ENV_VARIABLE, ""))
        return Job(folder, words, self.environment(place, **environment))

    def run(self, job: str, place: str, name: str, inputs: str | None = None) -> None:
        """Run the job undisturbed.

        Raises:
            SystemExit: when it fails.
        """
        begun = self.start(job, place, name, inputs)
        if wait_for_exit(begun):
            raise begun.failure(f"{job} failed undisturbed")


def wait_for_exit(job: Job, seconds: float = SECONDS) -> int | None:
    """Return the exit code of the job; None if it timed out and was killed."""
    with suppress(subprocess.TimeoutExpired):
        job.process.wait(max(1.0, seconds - job.seconds))
    if job.process.poll() is None:
        job.kill()
        return None
    return job.end()


def read_heartbeats(sandbox: Sandbox, place: str) -> dict[int, dict[str, Any]]:
    """Return the newest heartbeats of the ranks of a training."""
    heartbeats: dict[int, dict[str, Any]] = {}
    with suppress(Exception):  # does not exist yet, or is being deleted
        for entry in list_folder(f"{sandbox.warehouse(place)}/cxr/_staging"):
            if entry.name.startswith("heartbeat-"):
                storage, path = resolve(entry.uri)
                heartbeats[len(heartbeats)] = json.loads(storage.read(path, 4096))
    return heartbeats


def wait_until(what: str, seconds: float, poll: Callable[[], Any]) -> Any:
    """Return the first true value of `poll`; raise TimeoutError if it takes longer."""
    deadline = time.monotonic() + seconds
    while not (value := poll()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:.0f} s")
        time.sleep(0.05)
    return value
