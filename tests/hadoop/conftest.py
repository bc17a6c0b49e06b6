"""Fixtures of the tests on a real Hadoop."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from local_cluster import LocalCluster, cluster_command


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Start a cluster on free ports, stop exactly its processes at the end."""
    run = tmp_path_factory.mktemp("hadoop") / "run"
    before = os.environ.get("HADOOP_CONF_DIR")
    os.environ["HADOOP_CONF_DIR"] = str(run / "conf")
    try:
        started = cluster_command(run, "up", "--free-ports")
        assert started.returncode == 0, started.stderr
        yield LocalCluster(run)
    finally:
        cluster_command(run, "down")
        if before is None:
            del os.environ["HADOOP_CONF_DIR"]
        else:
            os.environ["HADOOP_CONF_DIR"] = before
