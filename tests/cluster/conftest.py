"""Fixtures of the tests on a real Hadoop."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local_cluster import HADOOP, LocalCluster, cluster_command

MAX_FILES = {"environment-score": 6_000, "environment-train": 16_000}
MAX_SCORE_MIB = 300  # of the packed environment without TensorFlow


@pytest.fixture(scope="session")
def started_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Start a cluster on free ports, stop exactly its processes at the end."""
    run = tmp_path_factory.mktemp("hadoop") / "run"
    try:
        started = cluster_command(run, "up", "--free-ports")
        assert started.returncode == 0, started.stderr
        yield LocalCluster(run)
    finally:
        cluster_command(run, "down")


@pytest.fixture(scope="module")
def cluster(started_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster, whose clients these tests are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HADOOP_CONF_DIR", str(started_cluster.run / "conf"))
        yield started_cluster


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `make package`."""
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(HADOOP / "package.py"), str(dist)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    names = sorted(file.name for file in dist.iterdir())
    assert [name for name in names if not name.endswith(".whl")] == [
        "environment-score.tar.gz",
        "environment-train.tar.gz",
        "spark-jars.zip",
    ]
    assert all(name in done.stdout for name in names)  # each with its size
    # A node without Hadoop's native library starts a process for each file.
    counted = re.findall(r"(environment-\w+)\.tar\.gz  \(.* in ([\d,]+) files\)", done.stdout)
    files = {name: int(count.replace(",", "")) for name, count in counted}
    assert files.keys() == MAX_FILES.keys()
    assert all(files[name] < MAX_FILES[name] for name in files)
    assert (dist / "environment-score.tar.gz").stat().st_size < MAX_SCORE_MIB * 2**20
    return dist
