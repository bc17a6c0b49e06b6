"""A trial: a job that pauses at a failpoint, and its processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hdfs_native
import psutil

from eagle_spark.io import resolve
from eagle_spark.testing.failpoints import ENV_VARIABLE
from tests.chaos.fault_jobs import Sandbox, read_heartbeats, wait_until
from tests.chaos.faults import Job
from tests.cluster.local_cluster import LocalCluster

STEP_SECONDS = 360.0  # until a job reaches its failpoint
PROCESS_SECONDS = 120.0  # until a process that can be killed exists


@dataclass
class Trial:
    """A job under one fault.

    Attributes:
        step: failpoint.
        environment: additional variables of the job.
        pid_file: holds the id of the process that pauses at the failpoint.
        others: jobs that ran at the same time.
    """

    sandbox: Sandbox
    job: str
    step: str
    place: str
    environment: dict[str, str] = field(default_factory=dict)
    pid_file: Path = field(init=False)
    others: list[Job] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)

    @property
    def process(self) -> Job:
        return self.running[-1]

    @property
    def cluster(self) -> LocalCluster:
        assert self.sandbox.cluster
        return self.sandbox.cluster

    def begin(self, name: str) -> Job:
        """Start the job, and wait until it pauses at the failpoint or ends."""
        folder = self.sandbox.folder / "steps" / name
        folder.mkdir(parents=True, exist_ok=True)
        pid_file = folder / self.step
        pid_file.write_text("")
        environment = {**self.environment, ENV_VARIABLE: str(folder)}
        job = self.sandbox.start(self.job, self.place, name, **environment)
        self.running.append(job)
        self.pid_file = pid_file
        wait_until(
            f"job at the step {self.step}",
            STEP_SECONDS,
            lambda: not job.is_running or pid_file.read_text(),
        )
        return job

    def release(self) -> None:
        """Resume all jobs."""
        for file in (self.sandbox.folder / "steps").glob("*/*"):
            file.unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        try:
            return self.process.processes()
        except psutil.NoSuchProcess:
            return []


def kill(trial: Trial, matches: Callable[[psutil.Process], bool]) -> None:
    """Kill the first process of the job that matches.

    Raises:
        TimeoutError: when there is none.
    """

    def kill_first() -> bool:
        for process in trial.processes():
            if matches(process):
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
                return True
        if not trial.process.is_running:
            raise TimeoutError("the job ended before a matching process existed")
        return False

    wait_until("process to be killed", PROCESS_SECONDS, kill_first)


def find_busy_process(trial: Trial) -> psutil.Process | None:
    """Return a process with a task: the worker that pauses in one, or a rank that trains.

    None for maintain: all its tasks are Java's.
    """
    if trial.job == "maintain":
        return None
    if trial.job != "train":
        return psutil.Process(int(trial.pid_file.read_text()))
    trial.release()
    return wait_until(
        "steps of two ranks", PROCESS_SECONDS, lambda: find_training_ranks(trial)[1:]
    )[0]


def find_training_ranks(trial: Trial) -> list[psutil.Process]:
    """Return the running ranks that have reported a step."""
    beating = read_heartbeats(trial.sandbox, trial.place).values()
    pids = [beat["pid"] for beat in beating if beat["step"] >= 1]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def open_hdfs(trial: Trial) -> tuple[hdfs_native.Client, str]:
    """Return a client, and the path on HDFS of the folder that the job changes."""
    path = resolve(trial.sandbox.live(trial.place))[1]
    return hdfs_native.Client(trial.cluster.uri), path


def start_services(cluster: LocalCluster) -> None:
    """Start the services that do not run.

    Raises:
        RuntimeError: when that fails.
    """
    done = cluster.command("up")
    if done.returncode:
        raise RuntimeError(done.stderr)
