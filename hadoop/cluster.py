"""A real HDFS and YARN on this machine: 1 NameNode, 2 DataNodes, 1 ResourceManager, 2 NodeManagers
and Spark's history server, each a separate process, all on 127.0.0.1.

    python hadoop/cluster.py up|down|status [--run DIR] [--free-ports]

Exit code 0: success; 1: failure; 2: the user must correct a setting; 3: `status` when a process
does not run.
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
from daemons import (
    HISTORY_FOLDER,
    Daemon,
    build_daemons,
    build_format_command,
    find_java_home,
)
from ports import (
    HERE,
    HOST,
    PORTS_FILE,
    ConfigurationError,
    find_free_ports,
    is_free,
    is_listening,
    read_ports,
    write_conf,
    write_ports,
)
from processes import Process, find_by_environment, read_pid_file, start, stop

NODES = 2  # number of DataNodes, and of NodeManagers
START_TIMEOUT = 240  # seconds
STOP_TIMEOUT = 20  # seconds
# A NodeManager uploads the logs of its containers last, so HDFS stops after it.
STOP_ORDER = ("history", "nodemanager", "resourcemanager", "datanode", "namenode")


@dataclass(frozen=True)
class Cluster:
    """A cluster with its data, logs, pid files and configuration in the folder `run`."""

    run: Path
    daemons: list[Daemon]
    ports: dict[str, int]

    @classmethod
    def load(cls, run: Path) -> Cluster:
        """Return the cluster of a folder, with the ports of its last start.

        Raises:
            ConfigurationError: when a port is missing in the ports file.
        """
        run_ports_file = run / "ports.conf"
        path = run_ports_file if run_ports_file.exists() else PORTS_FILE
        ports = read_ports(path)
        try:
            return cls(run, build_daemons(run, ports), ports)
        except KeyError as error:
            raise ConfigurationError(f"{path}: no port for the key {error}") from error

    def pid_file(self, name: str) -> Path:
        return self.run / "pids" / name

    def log_file(self, name: str) -> Path:
        return self.run / "logs" / f"{name}.log"

    def find_running(self) -> dict[str, Process]:
        """Return daemon name -> running process."""
        processes = {
            daemon.name: read_pid_file(self.pid_file(daemon.name)) for daemon in self.daemons
        }
        return {name: process for name, process in processes.items() if process}

    def request_json(self, name: str, path: str, method: str = "GET") -> Any:
        """Return the JSON response of a daemon's web server, None after an error."""
        web = next(daemon.web for daemon in self.daemons if daemon.name == name)
        try:
            with urlopen(Request(web + path, method=method), timeout=10) as response:  # noqa: S310
                return json.load(response)
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def read_hdfs_state(self) -> dict[str, Any]:
        """Return the state of the NameNode; empty without a response."""
        beans = "Hadoop:service=NameNode,name=FSNamesystemState"
        response = self.request_json("namenode", f"/jmx?qry={beans}")
        return dict(response["beans"][0]) if response and response["beans"] else {}

    def read_yarn_metrics(self) -> dict[str, Any]:
        """Return the metrics of the ResourceManager; empty without a response."""
        response = self.request_json("resourcemanager", "/ws/v1/cluster/metrics")
        # The shaded jars return the metrics directly, other builds inside `clusterMetrics`.
        return dict(response.get("clusterMetrics", response)) if response else {}

    def make_folder(self, path: str, mode: str) -> bool:
        """Create a folder on HDFS as its superuser; return whether the folder exists."""
        query = f"?op=MKDIRS&permission={mode}&user.name={getpass.getuser()}"
        response = self.request_json("namenode", f"/webhdfs/v1{path}{query}", "PUT")
        return bool(response == {"boolean": True})


def start_cluster(run: Path, use_free_ports: bool) -> None:
    """Start the daemons that do not run, and wait until the cluster is ready.

    Raises:
        ConfigurationError: when Java is missing or a port is taken.
        RuntimeError: when a process ends or is not ready in time; the others continue to run.
    """
    run_ports_file = run / "ports.conf"
    if not Cluster.load(run).find_running() and not (use_free_ports and run_ports_file.exists()):
        ports = read_ports(PORTS_FILE)
        write_ports(find_free_ports(ports) if use_free_ports else ports, run_ports_file)
    cluster = Cluster.load(run)
    stopped = [daemon for daemon in cluster.daemons if daemon.name not in cluster.find_running()]
    if not stopped:
        print_stderr(f"The cluster runs already. HADOOP_CONF_DIR={run / 'conf'}")
        return
    check_ports(cluster, stopped)
    jars.main("minicluster", str(HERE / "jars"))
    write_conf(cluster.ports, run / "conf", HOST, HOST)
    environment = os.environ | {
        "HADOOP_CONF_DIR": str(run / "conf"),
        "JAVA_HOME": str(find_java_home()),
        "SPARK_LOCAL_IP": HOST,
    }
    if not (run / "data" / "namenode" / "dfs" / "name" / "current" / "VERSION").exists():
        format_hdfs(cluster, environment)

    def start_daemons(daemons: Sequence[Daemon]) -> None:
        for daemon in daemons:
            print_stderr(f"starting {daemon.name}")
            name = daemon.name
            start(daemon.command, cluster.log_file(name), cluster.pid_file(name), environment)

    start_daemons([daemon for daemon in stopped if daemon.name != "history"])
    wait_until_ready(cluster, f"HDFS with {NODES} DataNodes, out of safe mode", is_hdfs_ready)
    home = f"/user/{getpass.getuser()}"
    folders = {"/tmp": "1777", HISTORY_FOLDER: "1777", "/user": "755", home: "755"}  # noqa: S108
    # On a busy machine the first request to the web server of a new NameNode may time out.
    wait_until_ready(
        cluster, "folders", lambda it: all(it.make_folder(*folder) for folder in folders.items())
    )
    start_daemons([daemon for daemon in stopped if daemon.name == "history"])
    wait_until_ready(cluster, f"YARN with {NODES} NodeManagers", is_yarn_ready)
    wait_until_ready(
        cluster,
        "the history server",
        lambda it: it.request_json("history", "/api/v1/version") is not None,
    )
    print_stderr(f"The cluster runs. HADOOP_CONF_DIR={run / 'conf'}")


def check_ports(cluster: Cluster, daemons: Sequence[Daemon]) -> None:
    """Raise ConfigurationError when another program uses a port of these daemons."""
    taken = [key for daemon in daemons for key in daemon.ports if not is_free(cluster.ports[key])]
    if taken:
        ports = ", ".join(f"{cluster.ports[key]} ({key})" for key in taken)
        raise ConfigurationError(
            f"wanted free ports; got ports of other programs: {ports}; change them in {PORTS_FILE}"
        )


def format_hdfs(cluster: Cluster, environment: dict[str, str]) -> None:
    print_stderr("formatting a new HDFS")
    log_file = cluster.log_file("namenode")
    with log_file.open("ab") as output:
        result = subprocess.run(
            build_format_command(cluster.run), env=environment, stdout=output, stderr=output
        )
    if result.returncode:
        raise RuntimeError(f"the NameNode could not format a new HDFS; see {log_file}")


def is_hdfs_ready(cluster: Cluster) -> bool:
    state = cluster.read_hdfs_state()
    return bool(state) and (state["FSState"], state["NumLiveDataNodes"]) == ("Operational", NODES)


def is_daemon_listening(cluster: Cluster, daemon: Daemon) -> bool:
    return all(is_listening(cluster.ports[key]) for key in daemon.ports)


def is_yarn_ready(cluster: Cluster) -> bool:
    return cluster.read_yarn_metrics().get("activeNodes") == NODES


def wait_until_ready(cluster: Cluster, service: str, is_ready: Callable[[Cluster], bool]) -> None:
    """Wait until `is_ready`; raise RuntimeError when a process ends or after START_TIMEOUT."""
    print_stderr(f"waiting for {service}")
    started = [daemon for daemon in cluster.daemons if cluster.pid_file(daemon.name).exists()]
    deadline = time.monotonic() + START_TIMEOUT
    # HDFS and YARN count a node that has just died, so every started daemon must also listen.
    while not (all(is_daemon_listening(cluster, it) for it in started) and is_ready(cluster)):
        for name in sorted({daemon.name for daemon in started} - cluster.find_running().keys()):
            log_file = cluster.log_file(name)
            lines = log_file.read_text(errors="replace").strip().splitlines()[-5:]
            raise RuntimeError("\n".join([f"{name} ended; see {log_file}:", *lines]))
        if time.monotonic() > deadline:
            logs = cluster.run / "logs"
            raise RuntimeError(f"no {service} after {START_TIMEOUT} s; see the logs in {logs}")
        time.sleep(0.5)


def stop_cluster(run: Path) -> None:
    """Stop every process of the cluster, and containers of a killed NodeManager."""
    cluster = Cluster.load(run)
    running = cluster.find_running()
    for prefix in STOP_ORDER:
        stop(
            [process for name, process in running.items() if name.startswith(prefix)],
            STOP_TIMEOUT,
        )
    containers = find_by_environment(f"LOCAL_DIRS={run / 'data' / 'nodemanager-'}")
    stop(containers, STOP_TIMEOUT)
    for daemon in cluster.daemons:
        cluster.pid_file(daemon.name).unlink(missing_ok=True)
    message = f"stopped: {', '.join(running) or 'no running daemon'}"
    if containers:
        message += f", and {len(containers)} processes in containers"
    print_stderr(message)


def print_status(run: Path) -> int:
    """Print every process and the state of HDFS and YARN; return 0 when all run, else 3."""
    cluster = Cluster.load(run)
    running = cluster.find_running()
    for daemon in cluster.daemons:
        process = running.get(daemon.name)
        state = (
            f"pid {process.pid:<8} since {process.started_at:%F %T}" if process else "does not run"
        )
        print(f"{daemon.name:16} {state:40} {daemon.web if process else ''}".rstrip())
    if hdfs := cluster.read_hdfs_state():
        used, total = (hdfs[key] / 1e9 for key in ("CapacityUsed", "CapacityTotal"))
        mode = {"Operational": "out of safe mode"}.get(hdfs["FSState"], "in safe mode")
        print(
            f"HDFS: {mode}, {hdfs['NumLiveDataNodes']} DataNodes live,"
            f" {hdfs['FilesTotal']:,} files and folders, {used:.1f} of {total:.1f} GB used"
        )
    if yarn := cluster.read_yarn_metrics():
        print(
            f"YARN: {yarn['activeNodes']} NodeManagers live, {yarn['appsRunning']}"
            f" applications running, {yarn['availableMB']:,} MB and"
            f" {yarn['availableVirtualCores']} vcores free"
        )
    print(f"HADOOP_CONF_DIR={run / 'conf'}")
    return 0 if len(running) == len(cluster.daemons) else 3


def print_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A real HDFS and YARN on this machine.")
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument(
        "--run", type=Path, default=HERE / "run", help="folder of data and logs (%(default)s)"
    )
    parser.add_argument(
        "--free-ports",
        action="store_true",
        help="up: choose free ports instead of those in ports.conf",
    )
    options = parser.parse_args()
    run = options.run.resolve()
    try:
        if options.action == "status":
            return print_status(run)
        for folder in ("logs", "pids", "data"):
            (run / folder).mkdir(parents=True, exist_ok=True)
        with (run / "pids" / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second `up` waits, then starts nothing
            if options.action == "down":
                stop_cluster(run)
            else:
                start_cluster(run, options.free_ports)
    except ConfigurationError as error:
        print_stderr(f"error: {error}")
        return 2
    except RuntimeError as error:
        print_stderr(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
