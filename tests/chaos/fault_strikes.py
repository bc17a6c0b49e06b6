"""The faults: each is made ready, strikes a job that stands at a step, and is mended."""

from __future__ import annotations

import errno
import getpass
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.request import Request, urlopen

import psutil

from eagle_spark.io import locate
from eagle_spark.testing.failpoints import IN_A_TASK, STEPS
from tests.chaos.fault_jobs import JARS, wait_until
from tests.chaos.fault_scene import WAIT, Scene, at_work, kill, on_hdfs, up
from tests.chaos.score_faults import is_executor, node

FULL_BYTES = 256 << 20  # of the disk that becomes full
WORKERS = JARS.parent / "work"  # of executors on one machine
NURSE = "nurse"  # a user with no rights but her own
FAR_BACK, FAR_AHEAD = 86_400, 4_102_444_800  # 1970 and 2100


def at(*others: str, **of: str) -> Mapping[str, tuple[str, ...]]:
    """Return the steps of jobs by their name; those of all others under `others`."""
    return {"others": others} | {job: (step,) for job, step in of.items()}


def no(**why: str) -> Mapping[str, str]:
    """Return why jobs cannot be struck, by their name."""
    return why


IN_TASKS = at(IN_A_TASK, train="before write", maintain="before write")


class Fault:
    """What goes wrong.

    Attributes:
        steps: where it strikes, see `at`.
        empty: why it cannot strike a job.
        place: where it can be tried out, see `MASTERS`.
        away: whether readers get no answer for a while.
        seconds: a run may take beyond what others do.
    """

    name = ""
    steps: Mapping[str, tuple[str, ...]] = at("before write")
    empty: Mapping[str, str] = no()
    place = "local"
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
    steps = IN_TASKS
    empty = no(maintain="starts no Python worker", put="is one process: see driver")

    def strike(self, scene: Scene) -> None:
        victim = at_work(scene)
        assert victim
        victim.kill()


class Executor(Fault):
    name = "executor SIGKILL"
    steps = IN_TASKS
    empty = no(put="has no executor")
    place = "executors"

    def ready(self, scene: Scene) -> None:
        self.before = set(WORKERS.glob("app-*"))

    def close(self, scene: Scene) -> None:
        for folder in set(WORKERS.glob("app-*")) - self.before:
            shutil.rmtree(folder, ignore_errors=True)

    def strike(self, scene: Scene) -> None:
        if victim := at_work(scene):
            next(filter(is_executor, victim.parents())).kill()
        else:
            scene.release()
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
        self.stopped = at_work(scene)
        assert self.stopped
        self.stopped.suspend()

    def close(self, scene: Scene) -> None:
        if self.stopped and self.stopped.is_running():
            self.stopped.kill()


class NodeManager(Fault):
    name = "NodeManager SIGKILL"
    steps = IN_TASKS
    empty = no(put="does not run on YARN")
    place = "yarn"
    seconds = 300.0  # train waits for so long for the node to come back

    def strike(self, scene: Scene) -> None:
        victim = at_work(scene)

        def inside() -> list[psutil.Process]:
            for name in ("nodemanager-1", "nodemanager-2"):
                found = node(scene.cluster.run, name)
                if found and (victim is None or set(found) & set(victim.parents())):
                    return found
            return []

        for process in wait_until("node with an executor", WAIT, inside):
            process.kill()

    def mend(self, scene: Scene) -> None:
        up(scene.cluster)


class DataNode(Fault):
    name = "DataNode SIGKILL, replication 2"
    steps = at(*STEPS, train="written")
    place = "hdfs"

    def strike(self, scene: Scene) -> None:
        psutil.Process(scene.cluster.pids["datanode-1"]).kill()

    def mend(self, scene: Scene) -> None:
        up(scene.cluster)


class NameNode(Fault):
    name = "NameNode restart"
    steps = at(*STEPS, train="audited")
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
    steps = at(*STEPS, train="before write")
    empty = no(put="writes to no local disk")

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
    steps = at(*STEPS, train="before write")
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
    steps = at(*STEPS, train="written")
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
    steps = at(*STEPS, train="before write")

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
