"""A real HDFS and YARN on this machine: 1 NameNode, 2 DataNodes, 1 ResourceManager, 2 NodeManagers
and Spark's history server, each a process of its own, all on 127.0.0.1.

    python hadoop/cluster.py up|down|status [--run DIR] [--free-ports]

Exit code 0: done, and everything runs; 1: failed; 2: something has to be mended first; 3: `status`
when not everything runs.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import jars
from daemons import HISTORY_FOLDER, Daemon, daemons, format_command, java_home
from ports import (
    HERE,
    HOST,
    PORTS,
    Mend,
    free_ports,
    is_free,
    listens,
    read_ports,
    write_conf,
    write_ports,
)
from processes import Process, recorded, start, stop, with_environment

NODES = 2  # DataNodes, and NodeManagers
START_TIMEOUT = 240  # seconds
STOP_TIMEOUT = 20
# What a NodeManager does last is to send its containers' logs to HDFS: HDFS has to be there.
STOP_ORDER = ("history", "nodemanager", "resourcemanager", "datanode", "namenode")


@dataclass(frozen=True)
class Cluster:
    """The cluster whose data, logs, pid files and configuration are in the folder `run`."""

    run: Path
    daemons: list[Daemon]
    ports: dict[str, int]

    @classmethod
    def at(cls, run: Path) -> Cluster:
        """Return the cluster of a folder: with the ports it was started with, if it ever was.

        Raises:
            Mend: when a port is missing in the ports file.
        """
        own = run / "ports.conf"
        path = own if own.exists() else PORTS
        ports = read_ports(path)
        try:
            return cls(run, daemons(run, ports), ports)
        except KeyError as error:
            raise Mend(f"{path}: no port for the key {error}") from error

    def pid_file(self, name: str) -> Path:
        return self.run / "pids" / name

    def log(self, name: str) -> Path:
        return self.run / "logs" / f"{name}.log"

    def running(self) -> dict[str, Process]:
        """Return every process that runs, by its daemon's name."""
        found = {daemon.name: recorded(self.pid_file(daemon.name)) for daemon in self.daemons}
        return {name: process for name, process in found.items() if process}

    def ask(self, name: str, path: str, method: str = "GET") -> Any:
        """Return the JSON of one of a daemon's web pages, None when it does not answer."""
        web = next(daemon.web for daemon in self.daemons if daemon.name == name)
        try:
            with urlopen(Request(web + path, method=method), timeout=10) as answer:  # noqa: S310
                return json.load(answer)
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def hdfs(self) -> dict[str, Any]:
        """Return the NameNode's figures; empty when it does not answer."""
        beans = "Hadoop:service=NameNode,name=FSNamesystemState"
        answer = self.ask("namenode", f"/jmx?qry={beans}")
        return dict(answer["beans"][0]) if answer and answer["beans"] else {}

    def yarn(self) -> dict[str, Any]:
        """Return the ResourceManager's figures; empty when it does not answer."""
        answer = self.ask("resourcemanager", "/ws/v1/cluster/metrics")
        # With the shaded jars the figures stand alone, elsewhere in an object of this name.
        return dict(answer.get("clusterMetrics", answer)) if answer else {}

    def make_folder(self, path: str, mode: str) -> bool:
        """Make a folder on HDFS as the user that HDFS belongs to; return whether it is there."""
        query = f"?op=MKDIRS&permission={mode}&user.name={getpass.getuser()}"
        return bool(self.ask("namenode", f"/webhdfs/v1{path}{query}", "PUT") == {"boolean": True})


def up(run: Path, free: bool) -> None:
    """Start whatever does not run, and wait until the cluster can be used.

    Raises:
        Mend: when Java is missing or a port is taken.
        RuntimeError: when a process ends or is not ready in time; those that run are left.
    """
    own = run / "ports.conf"
    if not Cluster.at(run).running() and not (free and own.exists()):
        write_ports(free_ports(read_ports(PORTS)) if free else read_ports(PORTS), own)
    cluster = Cluster.at(run)
    wanted = [daemon for daemon in cluster.daemons if daemon.name not in cluster.running()]
    if not wanted:
        say(f"The cluster runs already. HADOOP_CONF_DIR={run / 'conf'}")
        return
    check_ports(cluster, wanted)
    jars.main("minicluster", str(HERE / "jars"))
    write_conf(cluster.ports, run / "conf", HOST, HOST)
    environment = os.environ | {
        "HADOOP_CONF_DIR": str(run / "conf"),
        "JAVA_HOME": str(java_home()),
        "SPARK_LOCAL_IP": HOST,
    }
    if not (run / "data" / "namenode" / "dfs" / "name" / "current" / "VERSION").exists():
        format_hdfs(cluster, environment)

    def launch(chosen: Sequence[Daemon]) -> None:
        for daemon in chosen:
            say(f"starting {daemon.name}")
            name = daemon.name
            start(daemon.command, cluster.log(name), cluster.pid_file(name), environment)

    launch([daemon for daemon in wanted if daemon.name != "history"])
    wait(cluster, f"HDFS with {NODES} DataNodes, out of safe mode", hdfs_ready)
    home = f"/user/{getpass.getuser()}"
    folders = {"/tmp": "1777", HISTORY_FOLDER: "1777", "/user": "755", home: "755"}  # noqa: S108
    # On a busy machine the first question to a new NameNode's web page may find no answer in time.
    wait(cluster, "folders", lambda it: all(it.make_folder(*folder) for folder in folders.items()))
    launch([daemon for daemon in wanted if daemon.name == "history"])
    wait(cluster, f"YARN with {NODES} NodeManagers", yarn_ready)
    wait(cluster, "the history server", lambda it: it.ask("history", "/api/v1/version") is not None)
    say(f"The cluster runs. HADOOP_CONF_DIR={run / 'conf'}")


def check_ports(cluster: Cluster, wanted: Sequence[Daemon]) -> None:
    """Raise Mend when a port of a daemon that has to be started is taken."""
    taken = [key for daemon in wanted for key in daemon.ports if not is_free(cluster.ports[key])]
    if taken:
        named = ", ".join(f"{cluster.ports[key]} ({key})" for key in taken)
        raise Mend(f"taken by another program: port {named}; give the key another port in {PORTS}")


def format_hdfs(cluster: Cluster, environment: dict[str, str]) -> None:
    say("making an empty HDFS")
    log = cluster.log("namenode")
    with log.open("ab") as output:
        done = subprocess.run(
            format_command(cluster.run), env=environment, stdout=output, stderr=output
        )
    if done.returncode:
        raise RuntimeError(f"the NameNode could not make an empty HDFS; see {log}")


def hdfs_ready(cluster: Cluster) -> bool:
    figures = cluster.hdfs()
    return bool(figures) and (figures["FSState"], figures["NumLiveDataNodes"]) == (
        "Operational",
        NODES,
    )


def answers(cluster: Cluster, daemon: Daemon) -> bool:
    return all(listens(cluster.ports[key]) for key in daemon.ports)


def yarn_ready(cluster: Cluster) -> bool:
    return cluster.yarn().get("activeNodes") == NODES


def wait(cluster: Cluster, what: str, ready: Callable[[Cluster], bool]) -> None:
    """Wait until `ready`; raise RuntimeError after a process has ended or time is up."""
    say(f"waiting for {what}")
    begun = [daemon for daemon in cluster.daemons if cluster.pid_file(daemon.name).exists()]
    deadline = time.monotonic() + START_TIMEOUT
    # HDFS and YARN count a node that has just died: those that are started have to listen too.
    while not (all(answers(cluster, daemon) for daemon in begun) and ready(cluster)):
        for name in sorted({daemon.name for daemon in begun} - cluster.running().keys()):
            last = cluster.log(name).read_text(errors="replace").strip().splitlines()[-5:]
            raise RuntimeError("\n".join([f"{name} ended; see {cluster.log(name)}:", *last]))
        if time.monotonic() > deadline:
            logs = cluster.run / "logs"
            raise RuntimeError(f"no {what} after {START_TIMEOUT} s; see the logs in {logs}")
        time.sleep(0.5)


def down(run: Path) -> None:
    """Stop every process of the cluster, and containers that a killed NodeManager left."""
    cluster = Cluster.at(run)
    running = cluster.running()
    for kind in STOP_ORDER:
        chosen = [process for name, process in running.items() if name.startswith(kind)]
        stop(chosen, STOP_TIMEOUT)
    left = with_environment(f"LOCAL_DIRS={run / 'data' / 'nodemanager-'}")
    stop(left, STOP_TIMEOUT)
    for daemon in cluster.daemons:
        cluster.pid_file(daemon.name).unlink(missing_ok=True)
    names = ", ".join(running) or "nothing, for nothing ran"
    say(f"Stopped: {names}" + (f", and {len(left)} processes in containers" if left else ""))


def status(run: Path) -> int:
    """Print every process and what HDFS and YARN say; return 0 when all run, else 3."""
    cluster = Cluster.at(run)
    running = cluster.running()
    for daemon in cluster.daemons:
        process = running.get(daemon.name)
        shown = f"pid {process.pid:<8} since {process.since:%F %T}" if process else "does not run"
        print(f"{daemon.name:16} {shown:40} {daemon.web if process else ''}".rstrip())
    if figures := cluster.hdfs():
        used, total = (figures[key] / 1e9 for key in ("CapacityUsed", "CapacityTotal"))
        state = {"Operational": "out of safe mode"}.get(figures["FSState"], "in safe mode")
        print(
            f"HDFS: {state}, {figures['NumLiveDataNodes']} DataNodes live,"
            f" {figures['FilesTotal']:,} files and folders, {used:.1f} of {total:.1f} GB used"
        )
    if figures := cluster.yarn():
        print(
            f"YARN: {figures['activeNodes']} NodeManagers live, {figures['appsRunning']}"
            f" applications running, {figures['availableMB']:,} MB and"
            f" {figures['availableVirtualCores']} vcores free"
        )
    print(f"HADOOP_CONF_DIR={run / 'conf'}")
    return 0 if len(running) == len(cluster.daemons) else 3


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A real HDFS and YARN on this machine.")
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument(
        "--run", type=Path, default=HERE / "run", help="folder of its data and logs (%(default)s)"
    )
    parser.add_argument(
        "--free-ports", action="store_true", help="up: any free ports instead of ports.conf"
    )
    options = parser.parse_args()
    run = options.run.resolve()
    try:
        if options.action == "status":
            return status(run)
        for folder in ("logs", "pids", "data"):
            (run / folder).mkdir(parents=True, exist_ok=True)
        with (run / "pids" / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `up` waits, and finds that all runs
            down(run) if options.action == "down" else up(run, options.free_ports)
    except Mend as error:
        say(f"error: {error}")
        return 2
    except RuntimeError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
