"""The doctor on a real cluster: a good one, and one broken in several ways."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest

from tests.cluster.local_cluster import HADOOP, LocalCluster

pytestmark = [
    pytest.mark.hadoop,
    pytest.mark.extended("waits for YARN, which has no room or no NameNode", seconds=20),
]
JARS = Path(pyspark.__file__).parent / "jars"
QUICK = "-XX:TieredStopAtLevel=1"  # several JVMs start at once, on two cores maybe
YARN = {
    "spark.executor.extraJavaOptions": QUICK,
    "spark.yarn.am.extraJavaOptions": QUICK,
    "spark.yarn.jars": f"local:{JARS}/*",
    "spark.executor.instances": "2",
    "spark.executor.memory": "512m",
    "spark.executor.memoryOverhead": "2g",
}


def examine(
    cluster: LocalCluster, warehouse: str, conf: dict[str, str], master: str = "yarn"
) -> tuple[int, str]:
    """Run the doctor as a client of the cluster; return exit code and output."""
    command = [str(Path(sys.executable).with_name("spark-submit")), "--master", master]
    for key, value in conf.items():
        command += ["--conf", f"{key}={value}"]
    command += [str(HADOOP.parent / "submit" / "doctor.py")]
    command += ["--warehouse", warehouse, "--weights", "none"]
    done = subprocess.run(
        command, env=cluster.environment, capture_output=True, text=True, timeout=300
    )
    output = done.stdout + done.stderr
    (seconds,) = re.findall(r'"seconds": ([0-9.]+)', output)
    assert float(seconds) < 50, output  # and the start of spark-submit
    return done.returncode, output


def find_line(output: str, check: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(f"{check} "))


def test_a_good_cluster_passes_every_check(cluster: LocalCluster) -> None:
    code, output = examine(cluster, f"{cluster.uri}/doctor", YARN)
    assert code == 0, output
    assert "FAILED" not in output
    assert "not run" not in output
    assert "2 of 2 responded" in find_line(output, "executors")
    assert "2 nodes" in find_line(output, "yarn room")
    assert "default is RUNNING" in find_line(output, "yarn queue")
    assert "2" in find_line(output, "storage on executors")


def test_memory_above_the_limit_of_a_container(cluster: LocalCluster) -> None:
    conf = YARN | {"spark.executor.memoryOverhead": "20g"}
    code, output = examine(cluster, f"{cluster.uri}/doctor", conf)
    assert code == 2
    assert "FAILED" in find_line(output, "spark")
    assert "--conf spark.executor.memoryOverhead=3g" in output


def test_more_executors_than_the_cluster_has_room_for(cluster: LocalCluster) -> None:
    conf = YARN | {"spark.executor.instances": "9"}
    code, output = examine(cluster, f"{cluster.uri}/doctor", conf)
    assert code == 2
    assert "of 9 responded" in find_line(output, "executors")
    assert "FAILED" in find_line(output, "yarn room")
    assert "--conf spark.executor.instances=N" in output


def test_a_namenode_in_safe_mode(cluster: LocalCluster) -> None:
    admin(cluster, "enter")
    try:
        code, output = examine(cluster, f"{cluster.uri}/doctor", {}, master="local[1]")
    finally:
        admin(cluster, "leave")
    assert code == 2
    assert "FAILED" in find_line(output, "storage on driver")
    assert "safe mode" in find_line(output, "storage on driver")
    assert "hdfs dfsadmin -safemode leave" in output


def test_a_missing_namenode(cluster: LocalCluster) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"hdfs://127.0.0.1:{closed.getsockname()[1]}/doctor"
        code, output = examine(cluster, uri, {}, master="local[1]")
    assert code == 2
    assert "FAILED" in find_line(output, "storage on driver")
    assert "start HDFS" in output
    assert "not run" in output


def admin(cluster: LocalCluster, action: str) -> None:
    """Let the NameNode enter or leave safe mode, by Hadoop's own tool."""
    java = (
        os.path.join(os.environ["JAVA_HOME"], "bin", "java")
        if "JAVA_HOME" in os.environ
        else "java"
    )
    path = f"{cluster.run / 'conf'}:{JARS}/*:{HADOOP}/jars/*"
    command: list[Any] = [java, "-cp", path, "org.apache.hadoop.hdfs.tools.DFSAdmin"]
    done = subprocess.run(
        [*command, "-safemode", action], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
