"""A local cluster for the tests, beside any that a developer runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HADOOP = Path(__file__).resolve().parents[2] / "hadoop"
PIDS_PER_CLUSTER = 7


def cluster_command(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run hadoop/cluster.py on the cluster that lives in the folder `run`."""
    command = [sys.executable, str(HADOOP / "cluster.py"), *arguments, "--run", str(run)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@dataclass(frozen=True)
class LocalCluster:
    """A running cluster.

    Attributes:
        run: folder of its data, logs and pid files.
    """

    run: Path

    @property
    def ports(self) -> dict[str, int]:
        lines = (self.run / "ports.conf").read_text().splitlines()
        return {key: int(port) for key, port in (line.split("=") for line in lines)}

    @property
    def uri(self) -> str:
        return f"hdfs://127.0.0.1:{self.ports['NAMENODE_PORT']}"

    @property
    def pids(self) -> dict[str, int]:
        files = [file for file in (self.run / "pids").iterdir() if file.name != ".lock"]
        return {file.name: int(file.read_text().split()[0]) for file in files}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a client."""
        return os.environ | {
            "HADOOP_CONF_DIR": str(self.run / "conf"),
            "SPARK_LOCAL_IP": "127.0.0.1",
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return cluster_command(self.run, *arguments)
