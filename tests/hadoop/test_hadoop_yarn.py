"""Spark on a real YARN, in cluster mode."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pyspark
import pytest
from local_cluster import HADOOP, LocalCluster

pytestmark = pytest.mark.hadoop

PROGRAM = """
import os
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()

def place(rows):
    yield os.environ["NM_PORT"]

rows = spark.sparkContext.parallelize(range(8), 8)
print("PLACES", sorted(set(rows.mapPartitions(place).collect())))
spark.range(100).write.parquet("hdfs:///yarn-test/numbers")
print("ROWS", spark.read.parquet("hdfs:///yarn-test/numbers").count())
spark.stop()
"""


def test_a_job_runs_on_both_nodes_and_leaves_logs_and_history(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    settings = {
        "spark.yarn.jars": f"local:{Path(pyspark.__file__).parent}/jars/*",
        "spark.yarn.appMasterEnv.PYSPARK_PYTHON": sys.executable,
        "spark.executor.instances": 2,
        "spark.executor.memory": "512m",
        "spark.driver.memory": "512m",
        "spark.scheduler.minRegisteredResourcesRatio": 1.0,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": "hdfs:///spark-history",
        "spark.log.level": "INFO",  # the client names the application on this level
    }
    options = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    submit = Path(sys.executable).parent / "spark-submit"
    done = subprocess.run(
        [str(submit), "--master", "yarn", "--deploy-mode", "cluster", *options, "program.py"],
        cwd=tmp_path,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (application,) = set(re.findall(r"application_\d+_\d+", done.stderr))
    logs = wait_for_logs(cluster, application)
    nodes = sorted(str(cluster.ports[f"NODEMANAGER_{number}_PORT"]) for number in (1, 2))
    assert f"PLACES {nodes}" in logs
    assert "ROWS 100" in logs
    assert application in wait_for_history(cluster)


def wait_for_logs(cluster: LocalCluster, application: str) -> str:
    """Return the aggregated logs; they come to HDFS some seconds after the end."""
    for _ in range(20):
        shown = subprocess.run(
            [str(HADOOP / "logs"), application],
            env=cluster.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if "ROWS" in shown.stdout:
            break
        time.sleep(1)
    return shown.stdout


def wait_for_history(cluster: LocalCluster) -> set[str]:
    """Return the ids of the applications that the history server knows."""
    address = f"http://127.0.0.1:{cluster.ports['HISTORY_WEB_PORT']}/api/v1/applications"
    for _ in range(20):
        with urlopen(address, timeout=10) as answer:
            found = {one["id"] for one in json.load(answer)}
        if found:
            break
        time.sleep(1)
    return found
