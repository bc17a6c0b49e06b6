"""The blocks of the pages for clusters run, on a real HDFS and YARN that has the package."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.local_cluster import HADOOP, LocalCluster
from tests.helpers.page_runner import PageRunner
from tests.helpers.pages import Block, list_run_pages, page_name

pytestmark = [
    pytest.mark.hadoop,
    pytest.mark.spark,
    pytest.mark.train,  # TensorFlow makes the model
    pytest.mark.extended("the environments of the package, and jobs on YARN", seconds=100),
]
PAGES = list_run_pages(cluster=True)


@pytest.fixture(scope="module")
def package_on_hdfs(cluster: LocalCluster, package: Path) -> None:
    """Upload the package to the folder that `conf/yarn-*.conf` names."""
    done = subprocess.run(
        [str(HADOOP / "put"), str(package), f"{cluster.uri}/eagle_spark"],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("page", "blocks"), PAGES, ids=[page_name(page) for page, _ in PAGES])
def test_blocks_run_on_a_cluster(
    page: Path, blocks: list[Block], package_on_hdfs: None, page_folder: Path
) -> None:
    with PageRunner(page, page_folder) as runner:  # `cluster` has set HADOOP_CONF_DIR
        runner.run(blocks)
