"""The faults: preparation, strike at a job that pauses at a failpoint, and repair."""

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

from eagle_spark.io import resolve
from eagle_spark.testing.failpoints import FAILPOINTS, IN_A_TASK
from tests.chaos.fault_jobs import JARS, wait_until
from tests.chaos.fault_scene import (
    PROCESS_SECONDS,
    Trial,
    find_busy_process,
    kill,
    open_hdfs,
    start_services,
)
from tests.chaos.score_faults import find_node_processes, is_executor

DISK_BYTES = 256 << 20  # of the disk that the fault fills
WORK_FOLDER = JARS.parent / "work"  # of executors on one machine
NURSE = "nurse"  # a user with rights on her own files only
FAR_BACK, FAR_AHEAD = 86_400, 4_102_444_800  # 1970 and 2100


def at(*others: str, **of: str) -> Mapping[str, tuple[str, ...]]:
    """Return job -> failpoints; `others` are those of the remaining jobs."""
    return {"others": others} | {job: (step,) for job, step in of.items()}


def no(**why: str) -> Mapping[str, str]:
    """Return job -> the reason why the fault does not apply to it."""
    return why


IN_TASKS = at(IN_A_TASK, train="before write", maintain="before write")


class Fault:
    """A fault.

    Attributes:
        steps: failpoints by job, see `at`.
        empty: jobs to which the fault does not apply, with the reason.
        place: where it is tried, see `MASTERS`.
        away: whether the storage is unavailable to readers for a while.
        seconds: added to the timeout of a run.
    """

    name = ""
    steps: Mapping[str, tuple[str, ...]] = at("before write")
    empty: Mapping[str, str] = no()
    place = "local"
    away = False
    seconds = 0.0

    def ready(self, trial: Trial) -> None:
        """Prepare the fault before the job starts."""

    def strike(self, trial: Trial) -> None:
        """Strike the job, which pauses at the failpoint."""

    def mend(self, trial: Trial) -> None:
        """Remove the cause after the job has ended."""

    def close(self, trial: Trial) -> None:
        """Delete all traces."""


class Worker(Fault):
    name = "Python worker SIGKILL"
    steps = IN_TASKS
    empty = no(maintain="starts no Python worker", put="is one process: see driver")

    def strike(self, trial: Trial) -> None:
        victim = find_busy_process(trial)
        assert victim
        victim.kill()


class Executor(Fault):
    name = "executor SIGKILL"
    steps = IN_TASKS
    empty = no(put="has no executor")
    place = "executors"

    def ready(self, trial: Trial) -> None:
        self.before = set(WORK_FOLDER.glob("app-*"))

    def close(self, trial: Trial) -> None:
        for folder in set(WORK_FOLDER.glob("app-*")) - self.before:
            shutil.rmtree(folder, ignore_errors=True)

    def strike(self, trial: Trial) -> None:
        if victim := find_busy_process(trial):
            next(filter(is_executor, victim.parents())).kill()
        else:
            trial.release()
            kill(trial, is_executor)


class Driver(Fault):
    name = "driver SIGKILL"
    steps = at(*FAILPOINTS)

    def strike(self, trial: Trial) -> None:
        trial.process.kill()


class Stopped(Fault):
    name = "SIGSTOP of a rank"
    empty = no(**dict.fromkeys(("preprocess", "score", "maintain", "put"), "has no ranks"))
    seconds = 300.0
    stopped: psutil.Process | None = None

    def strike(self, trial: Trial) -> None:
        self.stopped = find_busy_process(trial)
        assert self.stopped
        self.stopped.suspend()

    def close(self, trial: Trial) -> None:
        if self.stopped and self.stopped.is_running():
            self.stopped.kill()


class NodeManager(Fault):
    name = "NodeManager SIGKILL"
    steps = IN_TASKS
    empty = no(put="does not run on YARN")
    place = "yarn"
    seconds = 300.0  # train waits that long for the node

    def strike(self, trial: Trial) -> None:
        victim = find_busy_process(trial)

        def find_node() -> list[psutil.Process]:
            for name in ("nodemanager-1", "nodemanager-2"):
                processes = find_node_processes(trial.cluster.run, name)
                if processes and (victim is None or set(processes) & set(victim.parents())):
                    return processes
            return []

        for process in wait_until("node with an executor", PROCESS_SECONDS, find_node):
            process.kill()

    def mend(self, trial: Trial) -> None:
        start_services(trial.cluster)


class DataNode(Fault):
    name = "DataNode SIGKILL, replication 2"
    steps = at(*FAILPOINTS, train="written")
    place = "hdfs"

    def strike(self, trial: Trial) -> None:
        psutil.Process(trial.cluster.pids["datanode-1"]).kill()

    def mend(self, trial: Trial) -> None:
        start_services(trial.cluster)


class NameNode(Fault):
    name = "NameNode restart"
    steps = at(*FAILPOINTS, train="audited")
    place = "hdfs"
    away = True

    def strike(self, trial: Trial) -> None:
        namenode = psutil.Process(trial.cluster.pids["namenode"])
        namenode.kill()
        namenode.wait(PROCESS_SECONDS)  # until its ports are free
        trial.release()
        start_services(trial.cluster)

    def mend(self, trial: Trial) -> None:
        start_services(trial.cluster)


class DiskFull(Fault):
    name = "disk full on the local dirs"
    steps = at(*FAILPOINTS, train="before write")
    empty = no(put="writes to no local disk")

    def ready(self, trial: Trial) -> None:
        self.disk = trial.sandbox.folder / "small disk"
        self.disk.mkdir(exist_ok=True)
        size = f"size={DISK_BYTES}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", self.disk], check=True)
        trial.environment |= {"SPARK_LOCAL_DIRS": str(self.disk), "TMPDIR": str(self.disk)}

    def strike(self, trial: Trial) -> None:
        try:
            with (self.disk / "filler").open("wb", 0) as filler:
                while True:
                    filler.write(bytes(1 << 16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def mend(self, trial: Trial) -> None:
        (self.disk / "filler").unlink(missing_ok=True)

    def close(self, trial: Trial) -> None:
        subprocess.run(["umount", "-l", self.disk], check=True)


class Quota(Fault):
    name = "HDFS quota reached"
    steps = at(*FAILPOINTS, train="before write")
    place = "hdfs"

    def ready(self, trial: Trial) -> None:
        client, path = open_hdfs(trial)
        client.mkdirs(path, 0o755, True)  # put starts without the folder

    def strike(self, trial: Trial) -> None:
        self._set(trial, 1)

    def mend(self, trial: Trial) -> None:
        self._set(trial, -1)

    def _set(self, trial: Trial, space: int) -> None:
        path = resolve(trial.sandbox.live(trial.place))[1]
        query = f"op=SETQUOTA&storagespacequota={space}&user.name={getpass.getuser()}"
        web = f"http://127.0.0.1:{trial.cluster.ports['NAMENODE_WEB_PORT']}/webhdfs/v1"
        urlopen(Request(f"{web}{path}?{query}", method="PUT"), timeout=30).close()  # noqa: S310


class Clock(Fault):
    name = "clock jump in file times"

    def __init__(self) -> None:
        self.times: dict[Path, float] = {}

    def strike(self, trial: Trial) -> None:
        """Set the time of every second file to 1970, of the others to 2100."""
        reads = trial.job in ("preprocess", "score", "put")
        sandbox = trial.sandbox
        inputs = sandbox.inputs(trial.job, trial.place) if reads else sandbox.warehouse(trial.place)
        files = sorted(path for path in Path(inputs).rglob("*") if path.is_file())
        self.times |= {file: file.stat().st_mtime for file in files}
        for number, file in enumerate(files):
            os.utime(file, (FAR_AHEAD if number % 2 else FAR_BACK,) * 2)

    def close(self, trial: Trial) -> None:
        for file, modified in self.times.items():
            if file.exists():
                os.utime(file, (modified, modified))


class Permission(Fault):
    name = "permission revoked half-way"
    steps = at(*FAILPOINTS, train="written")
    place = "hdfs"

    def ready(self, trial: Trial) -> None:
        client, path = open_hdfs(trial)
        client.mkdirs(path, 0o755, True)
        client.set_owner(path, NURSE, NURSE)
        for status in client.list_status(path, True):
            client.set_owner(status.path, NURSE, NURSE)
        trial.environment["HADOOP_USER_NAME"] = NURSE

    def strike(self, trial: Trial) -> None:
        client, path = open_hdfs(trial)
        client.set_permission(path, 0)

    def mend(self, trial: Trial) -> None:
        client, path = open_hdfs(trial)
        client.set_permission(path, 0o755)


class Twice(Fault):
    name = "two runs at once"
    steps = at(*FAILPOINTS, train="before write")

    def strike(self, trial: Trial) -> None:
        first = trial.process
        trial.others.append(trial.begin("second"))
        trial.running.append(first)


FAULTS = {
    kind.name: kind
    for kind in (
        *(Worker, Executor, Driver, Stopped, NodeManager, DataNode, NameNode),
        *(DiskFull, Quota, Clock, Permission, Twice),
    )
}
