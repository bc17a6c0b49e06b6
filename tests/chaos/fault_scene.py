"""A job that a fault strikes: it stands at a step, and processes of it can be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hdfs_native
import psutil

from eagle_spark.io import locate
from eagle_spark.testing.failpoints import VARIABLE
from tests.chaos.fault_jobs import World, beats, wait_until
from tests.chaos.faults import Job
from tests.cluster.local_cluster import LocalCluster

STANDING = 360.0  # seconds, for a job that is to reach a step
WAIT = 120.0  # seconds, for a process that is to be hit


@dataclass
class Scene:
    """A job that a fault strikes.

    Attributes:
        environment: what the job gets beside.
        asked: file in which the process that stands at the step tells its id.
        others: jobs that ran at the same time.
    """

    world: World
    job: str
    step: str
    place: str
    environment: dict[str, str] = field(default_factory=dict)
    asked: Path = field(init=False)
    others: list[Job] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)

    @property
    def process(self) -> Job:
        return self.running[-1]

    @property
    def cluster(self) -> LocalCluster:
        assert self.world.cluster
        return self.world.cluster

    def begin(self, name: str) -> Job:
        """Start the job so that it stands at the step, and wait until it does, or has ended."""
        folder = self.world.folder / "steps" / name
        folder.mkdir(parents=True, exist_ok=True)
        asked = folder / self.step
        asked.write_text("")
        environment = {**self.environment, VARIABLE: str(folder)}
        job = self.world.start(self.job, self.place, name, **environment)
        self.running.append(job)
        self.asked = asked
        wait_until(
            f"job at the step {self.step}",
            STANDING,
            lambda: not job.runs or asked.read_text(),
        )
        return job

    def release(self) -> None:
        """Let all jobs go on."""
        for file in (self.world.folder / "steps").glob("*/*"):
            file.unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        try:
            return self.process.processes()
        except psutil.NoSuchProcess:
            return []


def kill(scene: Scene, fits: Callable[[psutil.Process], bool]) -> None:
    """Kill the first process of the job that fits.

    Raises:
        TimeoutError: when there is none.
    """

    def hit() -> bool:
        for process in scene.processes():
            if fits(process):
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
                return True
        if not scene.process.runs:
            raise TimeoutError("the job ended before there was one to be killed")
        return False

    wait_until("process to be killed", WAIT, hit)


def at_work(scene: Scene) -> psutil.Process | None:
    """Return a process that has a task: the worker that stands in one, or a rank that trains.

    The tasks of maintain are all Java's: None.
    """
    if scene.job == "maintain":
        return None
    if scene.job != "train":
        return psutil.Process(int(scene.asked.read_text()))
    scene.release()
    return wait_until("steps of two ranks", WAIT, lambda: alive(scene)[1:])[0]


def alive(scene: Scene) -> list[psutil.Process]:
    """Return the ranks that run and have told of a step."""
    beating = beats(scene.world, scene.place).values()
    pids = [beat["pid"] for beat in beating if beat["step"] >= 1]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


def on_hdfs(scene: Scene) -> tuple[hdfs_native.Client, str]:
    """Return a client, and the path there of the folder that the job changes."""
    path = locate(scene.world.live(scene.place))[1]
    return hdfs_native.Client(scene.cluster.uri), path


def up(cluster: LocalCluster) -> None:
    """Start again what does not run.

    Raises:
        RuntimeError: when that fails.
    """
    done = cluster.command("up")
    if done.returncode:
        raise RuntimeError(done.stderr)
