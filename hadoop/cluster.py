"""A real HDFS and YARN on this machine: 1 NameNode, 2 DataNodes, 1 ResourceManager, 2 NodeManagers
and Spark's history server, each a process of its own, all on 127.0.0.1.

    python hadoop/cluster.py up|down|status [--run DIR] [--free-ports]

Exit code 0: done, everything runs; 1: failed; 2: something has to be mended first; 3: `status`
when not everything runs.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import jars
from daemons import HISTORY_FOLDER, Daemon, daemons, format_command, java_home
from ports import HERE, HOST, PORTS, free_ports, is_free, read_ports, write_conf, write_ports
from processes import Process, recorded, start, stop, with_environment

START_TIMEOUT = 180  # seconds
STOP_TIMEOUT = 20
NODES = 2  # DataNodes, and NodeManagers


class CannotStart(SystemExit):
    """Raised when something has to be mended first; exit code 2."""

    def __init__(self, message: str) -> None:
        print(f"error: {message}", file=sys.stderr)
        super().__init__(2)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Cluster:
    """The cluster that lives in one folder.

    Attributes:
        run: folder of its data, logs, pid files and configuration.
    """

    run: Path

    @cached_property
    def ports(self) -> dict[str, int]:
        """Ports it was started with, else those it would be started with."""
        own = self.run / "ports.conf"
        return read_ports(own if own.exists() else PORTS)

    @cached_property
    def daemons(self) -> list[Daemon]:
        return daemons(self.run, self.ports)

    def process(self, daemon: Daemon) -> Process | None:
        return recorded(self.pid_file(daemon.name))

    def pid_file(self, name: str) -> Path:
        return self.run / "pids" / name

    def log(self, name: str) -> Path:
        return self.run / "logs" / f"{name}.log"

    def missing(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if self.process(daemon) is None]

    def web(self, name: str) -> str:
        return next(daemon.web for daemon in self.daemons if daemon.name == name)

    def hdfs(self) -> dict[str, Any]:
        """Return the NameNode's figures."""
        query = "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
        return dict(ask(self.web("namenode") + query)["beans"][0])

    def yarn(self) -> dict[str, Any]:
        """Return the ResourceManager's figures."""
        return dict(ask(self.web("resourcemanager") + "/ws/v1/cluster/metrics")["clusterMetrics"])

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "HADOOP_CONF_DIR": str(self.run / "conf"),
            "JAVA_HOME": str(java_home()),
            "SPARK_LOCAL_IP": HOST,
        }


def ask(url: str, method: str = "GET") -> Any:
    with urlopen(Request(url, method=method), timeout=10) as answer:  # noqa: S310
        return json.load(answer)
