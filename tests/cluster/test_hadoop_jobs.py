"""The three jobs on a real YARN, in cluster mode, everything on HDFS, from the package."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from eagle_spark.io import list_folder, resolve
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, PREDICTIONS, RUNS, Warehouse
from tests.cluster.local_cluster import HADOOP, LocalCluster
from tests.cluster.yarn_jobs import Submitted, YarnJobs
from tests.helpers.dicom_files import SYNTAXES

pytestmark = [
    pytest.mark.hadoop,
    pytest.mark.spark,
    pytest.mark.train,
    pytest.mark.extended("the two environments of 1.1 GB, and each job on YARN", seconds=180),
]
EXECUTOR = "org.apache.spark.executor.YarnCoarseGrainedExecutorBackend"
DRAWN = 96  # images of the labelled set
# With workbooks, which score lists too; without masks, which would cause drift.
FILES = DRAWN + 3


@pytest.fixture(scope="module")
def jobs(
    cluster: LocalCluster, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> YarnJobs:
    """Jobs of a client that has the package and a labelled set on HDFS."""
    folder = tmp_path_factory.mktemp("client")
    drawn = folder / "sample"
    command = [sys.executable, "-m", "eagle_spark.cli.main", "sample"]
    command += ["--out", str(drawn), "--images", str(DRAWN), "--seed", "7"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    unlabelled = folder / "night"
    shutil.copytree(drawn, unlabelled, ignore=shutil.ignore_patterns("masks"))
    uploads = (package, "/eagle_spark"), (drawn, "/data/sample"), (unlabelled, "/data/night")
    for source, target in uploads:
        put = [str(HADOOP / "put"), str(source), cluster.uri + target]
        subprocess.run(put, check=True, capture_output=True, timeout=300, env=cluster.environment)
    return YarnJobs(cluster, folder)


@pytest.fixture(scope="module")
def places(cluster: LocalCluster) -> dict[str, str]:
    """URIs of inputs and outputs."""
    uri = cluster.uri
    return {
        "input": f"{uri}/data/sample",
        "night": f"{uri}/data/night",
        "warehouse": f"{uri}/warehouse",
        "model": f"{uri}/models/first",
    }


@pytest.fixture(scope="module")
def preprocessed(jobs: YarnJobs, places: dict[str, str]) -> Any:
    return jobs.run(
        "preprocess", "--input", places["input"], "--warehouse", places["warehouse"], "--size", 64
    )


TRAINING = ("--weights", "none", "--epochs", 30, "--ranks", 2)


@pytest.fixture(scope="module")
def trained(jobs: YarnJobs, places: dict[str, str], preprocessed: Any) -> Any:
    """Train, and kill the executor of rank 1 after the first checkpoint."""
    submitted = jobs.start(
        "train", "--warehouse", places["warehouse"], "--model", places["model"], *TRAINING
    )
    wait_for_file(submitted, f"{places['warehouse']}/cxr/_checkpoints", "step-")
    beat = wait_for_file(submitted, f"{places['warehouse']}/cxr/_staging", "heartbeat-1")
    storage, path = resolve(beat)
    rank = psutil.Process(json.loads(storage.read(path, 4096))["pid"])
    (executor,) = (process for process in rank.parents() if EXECUTOR in process.cmdline())
    assert submitted.application() in " ".join(executor.cmdline())
    for process in (executor, rank):
        process.kill()
    code, result = submitted.end()
    assert code == 0, result
    return result


def wait_for_file(submitted: Submitted, folder: str, beginning: str) -> str:
    """Return the URI of a file below the folder, as soon as there is one of such a name."""
    deadline = time.monotonic() + 240
    storage, path = resolve(folder)
    while True:
        files = list_folder(folder) if storage.exists(path) else ()
        if uris := [file.uri for file in files if file.name.startswith(beginning)]:
            return uris[0]
        assert time.monotonic() < deadline, submitted.log.read_text()
        assert submitted.process.poll() is None, submitted.end()
        time.sleep(0.2)


def rows(spark: Any, warehouse: str, table: Any, *columns: str) -> list[tuple[Any, ...]]:
    """Return the columns of the published rows, sorted."""
    with open_session("test", warehouse) as session:
        records = Warehouse(session).read(table).selectExpr(*columns).collect()
    return sorted(map(tuple, records))


def test_preprocess_gives_the_same_rows_as_on_one_machine(
    places: dict[str, str], preprocessed: Any, run_job: Any, spark: Any, tmp_path: Path
) -> None:
    assert preprocessed["listed"] == preprocessed["accepted"] + preprocessed["rejected"]
    assert preprocessed["accepted"] == preprocessed["masks"] == DRAWN
    local = run_job(
        "preprocess", "--input", places["input"], "--warehouse", tmp_path / "w", "--size", 64
    )
    assert local.result["by_split"] == preprocessed["by_split"]
    columns = ("path", "image_id", "label", "patient_id", "source", "split", "pixels", "mask")
    local_rows = rows(spark, str(tmp_path / "w"), IMAGES, *columns)
    assert len(local_rows) == DRAWN
    assert local_rows == rows(spark, places["warehouse"], IMAGES, *columns)


def test_ranks_on_two_nodes_with_a_kill_train_the_same_model_as_one_machine(
    places: dict[str, str], trained: Any, run_job: Any, tmp_path: Path
) -> None:
    assert trained["ranks"] == 2
    assert trained["restarts"] == 1
    assert len(trained["nodes"]) == 2
    local = run_job(
        "train", "--warehouse", places["warehouse"], "--model", tmp_path / "model", *TRAINING
    )
    assert local.returncode == 0, local.stdout
    assert local.result["restarts"] == 0
    assert trained["features_computed"] == trained["feature_rows"] == local.result["feature_rows"]
    assert local.result["features_computed"] == 0
    for figure in ("weights_digests", "model_id", "accuracy", "dice", "val_accuracy", "val_dice"):
        assert local.result[figure] == trained[figure], figure


def test_score_gives_the_same_rows_as_on_one_machine(
    jobs: YarnJobs, places: dict[str, str], trained: Any, run_job: Any, spark: Any, tmp_path: Path
) -> None:
    options = ["--images", places["night"], "--model", places["model"]]
    scored = jobs.run("score", *options, "--warehouse", places["warehouse"])
    assert scored["listed"] == scored["scored"] + scored["rejected"] == FILES
    assert scored["rejected"] == 3
    local = run_job("score", *options, "--warehouse", tmp_path / "w")
    assert local.result["scored"] == scored["scored"]
    # Not the probabilities: their last digits depend on the images that share a batch.
    columns = ("path", "image_id", "status", "reason", "label", "mask")
    local_rows = rows(spark, str(tmp_path / "w"), PREDICTIONS, *columns)
    assert len(local_rows) == scored["listed"]
    assert local_rows == rows(spark, places["warehouse"], PREDICTIONS, *columns)
    ((result,),) = rows(spark, str(tmp_path / "w"), RUNS, "get_json_object(result, '$.scored')")
    assert int(result) == scored["scored"]


def test_drift_ends_with_exit_code_3_in_the_second_attempt_too(
    jobs: YarnJobs, places: dict[str, str], trained: Any, spark: Any
) -> None:
    warehouse = f"{jobs.cluster.uri}/looked-at"
    # Masks are no X-rays.
    options = ["--images", places["input"], "--model", places["model"], "--warehouse", warehouse]
    code, result = jobs.start("score", *options).end()
    assert code == 1  # spark-submit's own, for an application that failed
    assert (result["exit_code"], result["drift"] > 0.25) == (3, True)
    figures = ("exit_code", "scored", "drift")
    columns = [f"get_json_object(result, '$.{name}')" for name in figures]
    drift = str(result["drift"])
    attempts = [("3", "0", drift), ("3", str(2 * DRAWN), drift)]
    assert rows(spark, warehouse, RUNS, *columns) == attempts


def test_the_package_reads_dicom_of_every_transfer_syntax(
    jobs: YarnJobs, places: dict[str, str], trained: Any, spark: Any
) -> None:
    images, warehouse = (f"{jobs.cluster.uri}/dicom/{name}" for name in ("images", "warehouse"))
    for number, (make, _) in enumerate(SYNTAXES.values()):
        storage, path = resolve(f"{images}/{number}.dcm")
        storage.write(path, make())
    options = ["--images", images, "--model", places["model"], "--warehouse", warehouse]
    scored = jobs.run("score", *options)
    assert (scored["scored"], scored["rejected"]) == (len(SYNTAXES), 0)
    published = rows(spark, warehouse, PREDICTIONS, "status", "dicom.view")
    assert published == [("scored", "PA")] * len(SYNTAXES)


def test_a_wrong_option_is_one_line(jobs: YarnJobs, places: dict[str, str]) -> None:
    submitted = jobs.start(
        "score",
        *("--images", f"{jobs.cluster.uri}/nowhere", "--model", places["model"]),
        *("--warehouse", places["warehouse"]),
        conf=["spark.yarn.maxAppAttempts=1"],
    )
    code, result = submitted.end()
    assert code == 1  # spark-submit's own, for an application that failed
    assert result["exit_code"] == 2
    assert "nowhere" in result["error"] or "model" in result["error"]


@pytest.fixture
def mended(cluster: LocalCluster) -> Any:
    """Restart killed processes after the test."""
    yield
    up = cluster.command("up")
    assert up.returncode == 0, up.stderr


def test_a_datanode_and_a_nodemanager_die_while_scoring(
    jobs: YarnJobs,
    places: dict[str, str],
    trained: Any,
    spark: Any,
    mended: None,
) -> None:
    warehouse = f"{jobs.cluster.uri}/killed"
    submitted = jobs.start(
        "score",
        *("--images", places["night"], "--model", places["model"], "--warehouse", warehouse),
        *("--chunk", 24),
    )
    executors = wait_for_executors(submitted, 2)
    driver = find_node(submitted, "org.apache.spark.deploy.yarn.ApplicationMaster")
    os.kill(jobs.cluster.pids["datanode-1"], signal.SIGKILL)
    other = "nodemanager-1" if driver == "nodemanager-2" else "nodemanager-2"
    os.kill(jobs.cluster.pids[other], signal.SIGKILL)
    gone = [process for process in executors if log_folder(process) == other]
    assert gone, "no executor on the node without the driver"
    for process in gone:
        process.kill()
    code, result = submitted.end()
    assert code == 0, result
    assert result["listed"] == result["scored"] + result["rejected"] == FILES
    paths = rows(spark, warehouse, PREDICTIONS, "path")
    assert len(paths) == len(set(paths)) == result["listed"]


def find_processes(submitted: Submitted, main: str) -> list[psutil.Process]:
    """Return the Java processes of the application that run the class `main`."""
    application = submitted.application()
    processes = []
    for process in psutil.process_iter(["cmdline", "name"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["name"] == "java" and application in line and main in line:
            processes.append(process)
    return processes


def log_folder(process: psutil.Process) -> str:
    """Return the name of the NodeManager that a container's process belongs to."""
    line = " ".join(process.cmdline())
    return next(name for name in ("nodemanager-1", "nodemanager-2") if f"/{name}/" in line)


def find_node(submitted: Submitted, main: str) -> str:
    (process,) = find_processes(submitted, main)
    return log_folder(process)


def wait_for_executors(submitted: Submitted, count: int) -> list[psutil.Process]:
    """Return the executors' processes once there are so many."""
    deadline = time.monotonic() + 120
    while len(processes := find_processes(submitted, EXECUTOR)) < count:
        assert time.monotonic() < deadline, submitted.log.read_text()
        assert submitted.process.poll() is None, submitted.log.read_text()
        time.sleep(0.2)
    return processes
