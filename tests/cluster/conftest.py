"""Fixtures of the tests on a real Hadoop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.local_cluster import LocalCluster, cluster_command


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
