"""The faults: each is made ready, strikes a job that stands at a step, and is mended."""

from __future__ import annotations

import errno
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import hdfs_native
import psutil
from local_cluster import LocalCluster

from benchmarks.faults import Job
from benchmarks.score_faults import is_executor, is_worker, node
from eagle_spark.steps import STEPS, VARIABLE
from eagle_spark.storage import locate
from fault_jobs import JARS, World, beats, wait_until

STANDING = 360.0  # seconds, for a job that is to reach a step
WAIT = 120.0  # seconds, for a process that is to be hit
FULL_BYTES = 256 << 20  # of the disk that becomes full
WORKERS = JARS.parent / "work"  # of executors on one machine
NURSE = "nurse"  # a user with no rights but her own
FAR_BACK, FAR_AHEAD = 86_400, 4_102_444_800  # 1970 and 2100


@dataclass
class Scene:
    """A job that a fault strikes.

    Attributes:
        environment: what the job gets beside.
        others: jobs that ran at the same time.
    """

    world: World
    job: str
    step: str
    place: str
    environment: dict[str, str] = field(default_factory=dict)
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


def at(*others: str, **of: str) -> Mapping[str, tuple[str, ...]]:
    """Return the steps of jobs by their name; those of all others under `others`."""
    return {"others": others} | {job: (step,) for job, step in of.items()}


def no(**why: str) -> Mapping[str, str]:
    """Return why jobs cannot be struck, by their name."""
    return why


class Fault:
    """What goes wrong.

    Attributes:
        steps: where it strikes, see `at`.
        empty: why it cannot strike a job.
        place: where it can be tried out, see `MASTERS`.
        again: whether the job is run again even if it ended well.
        away: whether readers get no answer for a while.
        seconds: a run may take beyond what others do.
    """

    name = ""
    steps: Mapping[str, tuple[str, ...]] = at("before write")
    empty: Mapping[str, str] = no()
    place = "local"
    again = False
    away = False
    seconds = 0.0

    def ready(self, scene: Scene) -> None:
        """Do what has to be done before the job begins."""

    def strike(self, scene: Scene) -> None:
        """Hit the job, which stands at the step."""

    def mend(self, scene: Scene) -> None:
        """Take the cause away, after the job has ended."""

    def close(self, scene: Scene) -> None:
        """Leave nothing behind."""


class Worker(Fault):
    name = "Python worker SIGKILL"
    empty = no(maintain="starts no Python worker", put="is one process: see driver")

    def strike(self, scene: Scene) -> None:
        scene.release()
        kill(scene, is_worker)


class Executor(Fault):
    name = "executor SIGKILL"
    empty = no(put="has no executor")
    place = "executors"

    def ready(self, scene: Scene) -> None:
        self.before = set(WORKERS.glob("app-*"))

    def close(self, scene: Scene) -> None:
        for folder in set(WORKERS.glob("app-*")) - self.before:
            shutil.rmtree(folder, ignore_errors=True)

    def strike(self, scene: Scene) -> None:
        scene.release()
        if scene.job == "train":  # in the middle of it
            wait_until("beats of two ranks", WAIT, lambda: len(alive(scene)) > 1)
        kill(scene, is_executor)


class Driver(Fault):
    name = "driver SIGKILL"
    steps = at(*STEPS)

    def strike(self, scene: Scene) -> None:
        scene.process.kill()


class Stopped(Fault):
    name = "SIGSTOP of a rank"
    empty = no(**dict.fromkeys(("preprocess", "score", "maintain", "put"), "has no ranks"))
    seconds = 300.0
    stopped: psutil.Process | None = None

    def strike(self, scene: Scene) -> None:
        scene.release()
        found = wait_until("steps of two ranks", WAIT, lambda: len(alive(scene, 1)) > 1 and scene)
        self.stopped = alive(found, 1)[1]
        self.stopped.suspend()

    def close(self, scene: Scene) -> None:
        if self.stopped and self.stopped.is_running():
            self.stopped.kill()


class NodeManager(Fault):
    name = "NodeManager SIGKILL"
    empty = no(put="does not run on YARN")
    place = "yarn"
    seconds = 300.0  # train waits for so long for the node to come back

    def strike(self, scene: Scene) -> None:
        names = ("nodemanager-1", "nodemanager-2")
        found = wait_until(
            "executor on a node",
            WAIT,
            lambda: next(
                (inside for name in names if (inside := node(scene.cluster.run, name))), 0
            ),
        )
        for process in found:
            process.kill()

    def mend(self, scene: Scene) -> None:
        up(scene.cluster)


class DataNode(Fault):
    name = "DataNode SIGKILL, replication 2"
    steps = at("written")
    place = "hdfs"

    def strike(self, scene: Scene) -> None:
        psutil.Process(scene.cluster.pids["datanode-1"]).kill()

    def mend(self, scene: Scene) -> None:
        up(scene.cluster)


class NameNode(Fault):
    name = "NameNode restart"
    steps = at("audited", put="written")
    place = "hdfs"
    away = True

    def strike(self, scene: Scene) -> None:
        namenode = psutil.Process(scene.cluster.pids["namenode"])
        namenode.kill()
        namenode.wait(WAIT)  # its ports are free then
        scene.release()
        up(scene.cluster)

    def mend(self, scene: Scene) -> None:
        up(scene.cluster)


class DiskFull(Fault):
    name = "disk full on the local dirs"

    def ready(self, scene: Scene) -> None:
        self.disk = scene.world.folder / "small disk"
        self.disk.mkdir(exist_ok=True)
        size = f"size={FULL_BYTES}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", self.disk], check=True)
        scene.environment |= {"SPARK_LOCAL_DIRS": str(self.disk), "TMPDIR": str(self.disk)}

    def strike(self, scene: Scene) -> None:
        try:
            with (self.disk / "filler").open("wb", 0) as filler:
                while True:
                    filler.write(bytes(1 << 16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def mend(self, scene: Scene) -> None:
        (self.disk / "filler").unlink(missing_ok=True)

    def close(self, scene: Scene) -> None:
        subprocess.run(["umount", "-l", self.disk], check=True)


class Quota(Fault):
    name = "HDFS quota reached"
    place = "hdfs"

    def ready(self, scene: Scene) -> None:
        client, path = on_hdfs(scene)
        client.mkdirs(path, 0o755, True)  # put begins without it

    def strike(self, scene: Scene) -> None:
        self._set(scene, 1)

    def mend(self, scene: Scene) -> None:
        self._set(scene, -1)

    def _set(self, scene: Scene, space: int) -> None:
        path = locate(scene.world.live(scene.place))[1]
        query = f"op=SETQUOTA&storagespacequota={space}&user.name={getpass.getuser()}"
        web = f"http://127.0.0.1:{scene.cluster.ports['NAMENODE_WEB_PORT']}/webhdfs/v1"
        urlopen(Request(f"{web}{path}?{query}", method="PUT"), timeout=30).close()  # noqa: S310


class Clock(Fault):
    name = "clock jump in file times"
    again = True

    def __init__(self) -> None:
        self.known: dict[Path, float] = {}

    def strike(self, scene: Scene) -> None:
        """Half of the files are from 1970 now, the others from 2100."""
        reads = scene.job in ("preprocess", "score", "put")
        world = scene.world
        inputs = world.inputs(scene.job, scene.place) if reads else world.warehouse(scene.place)
        files = sorted(path for path in Path(inputs).rglob("*") if path.is_file())
        self.known |= {file: file.stat().st_mtime for file in files}
        for number, file in enumerate(files):
            os.utime(file, (FAR_AHEAD if number % 2 else FAR_BACK,) * 2)

    def close(self, scene: Scene) -> None:
        for file, modified in self.known.items():
            if file.exists():
                os.utime(file, (modified, modified))


class Permission(Fault):
    name = "permission revoked half-way"
    steps = at("written", put="publishing")
    place = "hdfs"

    def ready(self, scene: Scene) -> None:
        client, path = on_hdfs(scene)
        client.mkdirs(path, 0o755, True)
        client.set_owner(path, NURSE, NURSE)
        for status in client.list_status(path, True):
            client.set_owner(status.path, NURSE, NURSE)
        scene.environment["HADOOP_USER_NAME"] = NURSE

    def strike(self, scene: Scene) -> None:
        client, path = on_hdfs(scene)
        client.set_permission(path, 0)

    def mend(self, scene: Scene) -> None:
        client, path = on_hdfs(scene)
        client.set_permission(path, 0o755)


class Twice(Fault):
    name = "two runs at once"

    def strike(self, scene: Scene) -> None:
        first = scene.process
        scene.others.append(scene.begin("second"))
        scene.running.append(first)


FAULTS = {
    kind.name: kind
    for kind in (
        *(Worker, Executor, Driver, Stopped, NodeManager, DataNode, NameNode),
        *(DiskFull, Quota, Clock, Permission, Twice),
    )
}


def kill(scene: Scene, fits: object) -> None:
    """Kill the first process of the job that fits.

    Raises:
        TimeoutError: when there is none.
    """
    assert callable(fits)

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


def alive(scene: Scene, step: int = 0) -> list[psutil.Process]:
    """Return the ranks that run and have told of this step."""
    return list(_alive(scene, step))


def _alive(scene: Scene, step: int) -> Iterator[psutil.Process]:
    running = {process.pid: process for process in scene.processes()}
    for beat in beats(scene.world, scene.place).values():
        if beat["step"] >= step and beat["pid"] in running:
            yield running[beat["pid"]]


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
