"""A job on a real YARN in cluster mode, with this environment's Spark and Python by their paths."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyspark
import pytest

from eagle_spark.datasets.synthetic.sample import write_unlabelled
from eagle_spark.scoring.job import score
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from tests.cluster.local_cluster import HADOOP, LocalCluster
from tests.cluster.yarn_jobs import CONF, YarnJobs

pytestmark = [
    pytest.mark.hadoop,
    pytest.mark.spark,
    pytest.mark.train,
    pytest.mark.slow("YARN starts three containers, and the history server reads their events"),
]
SHIPPED = re.compile(
    r"^spark\.(yarn\.archive|archives|yarn\.appMasterEnv\.PYSPARK_PYTHON) .*$", re.M
)


@pytest.fixture
def jobs(cluster: LocalCluster, tmp_path: Path) -> YarnJobs:
    """Jobs by `conf/yarn-score.conf`, without the package that it ships."""
    text, shipped = SHIPPED.subn("", (CONF / "yarn-score.conf").read_text())
    assert shipped == 3
    text += f"spark.yarn.jars local:{Path(pyspark.__file__).parent}/jars/*\n"
    text += f"spark.yarn.appMasterEnv.PYSPARK_PYTHON {sys.executable}\n"
    (tmp_path / "yarn-score.conf").write_text(text)
    return YarnJobs(cluster, tmp_path, tmp_path)


def test_score_runs_on_both_nodes_and_leaves_rows_logs_and_history(
    cluster: LocalCluster, jobs: YarnJobs, model_folder: Path, spark: Any, tmp_path: Path
) -> None:
    write_unlabelled(tmp_path / "images", 12, 5)
    root = f"{cluster.uri}/yarn"
    places = {"images": f"{root}/night", "model": f"{root}/model"}
    for source, target in zip((tmp_path / "images", model_folder), places.values(), strict=True):
        put = [str(HADOOP / "put"), str(source), target]
        subprocess.run(put, check=True, capture_output=True, timeout=300, env=cluster.environment)
    warehouse = f"{root}/warehouse"
    options = [word for name, uri in places.items() for word in (f"--{name}", uri)]
    result = jobs.run("score", *options, "--warehouse", warehouse)
    assert (result["listed"], result["scored"], result["rejected"]) == (16, 12, 4)

    score(ScoreSettings(warehouse=str(tmp_path / "warehouse"), **places))
    published = rows(warehouse)
    assert len(published) == 16
    assert published == rows(str(tmp_path / "warehouse"))

    # A node has room for one executor, so there is one on each.
    application = result["application"]
    ports = {f"_{cluster.ports[f'NODEMANAGER_{number}_PORT']}" for number in (1, 2)}
    wait_until(lambda: {port for port in ports if port in read_logs(cluster, application)} == ports)
    wait_until(lambda: application in history(cluster))


def rows(warehouse: str) -> list[tuple[Any, ...]]:
    # Not the probabilities: their last digits depend on the images that share a batch.
    columns = ("path", "image_id", "status", "reason", "label", "mask")
    with open_session("test", warehouse) as session:
        return sorted(map(tuple, Warehouse(session).read(PREDICTIONS).select(*columns).collect()))


def wait_until(condition: Callable[[], bool]) -> None:
    """Logs and events come to HDFS some seconds after the end."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)


def read_logs(cluster: LocalCluster, application: str) -> str:
    """Return the aggregated logs, in which each container is named with its node."""
    return subprocess.run(
        [str(HADOOP / "logs"), application],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def history(cluster: LocalCluster) -> set[str]:
    """Return the ids of the applications that the history server shows."""
    address = f"http://127.0.0.1:{cluster.ports['HISTORY_WEB_PORT']}/api/v1/applications"
    with urlopen(address, timeout=10) as answer:
        return {application["id"] for application in json.load(answer)}
