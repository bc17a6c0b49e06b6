"""The three jobs on a real YARN, in cluster mode, everything on HDFS, from the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from eagle_spark.io import list_folder, locate
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, PREDICTIONS, RUNS, Warehouse
from tests.cluster.local_cluster import HADOOP, LocalCluster
from tests.cluster.yarn_jobs import Submitted, YarnJobs
from tests.helpers.dicom_files import SYNTAXES

pytestmark = [
    pytest.mark.hadoop,
    pytest.mark.spark,
    pytest.mark.train,
    pytest.mark.extended("the package of 0.9 GB, and each job on YARN", seconds=130),
]
EXECUTOR = "org.apache.spark.executor.YarnCoarseGrainedExecutorBackend"
DRAWN = 96  # images of the labelled set
MOST_FILES = 17_000  # in the package; a quarter more before Python went into a zip file
# With workbooks, which score lists too. Masks would shift the night.
FILES = DRAWN + 3


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make package` makes."""
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, str(HADOOP / "package.py"), str(dist)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    names = sorted(file.name for file in dist.iterdir())
    assert [name for name in names if not name.endswith(".whl")] == [
        "environment.tar.gz",
        "spark-jars.zip",
    ]
    assert all(name in done.stdout for name in names)  # each with its size
    # A node without Hadoop's native library starts a process for each of them.
    (files,) = re.findall(r"([\d,]+) files and folders in the environment", done.stderr)
    assert int(files.replace(",", "")) < MOST_FILES
    return dist


@pytest.fixture(scope="module")
def jobs(
    cluster: LocalCluster, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> YarnJobs:
    """Jobs of a client that has the package and a labelled set on HDFS."""
    folder = tmp_path_factory.mktemp("client")
    drawn = folder / "sample"
    command = [sys.executable, "-m", "eagle_spark.datasets.synthetic.sample"]
    command += ["--out", str(drawn), "--images", str(DRAWN), "--seed", "7"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    night = folder / "night"
    shutil.copytree(drawn, night, ignore=shutil.ignore_patterns("masks"))
    uploads = (package, "/eagle_spark"), (drawn, "/data/sample"), (night, "/data/night")
    for source, target in uploads:
        put = [str(HADOOP / "put"), str(source), cluster.uri + target]
        subprocess.run(put, check=True, capture_output=True, timeout=300, env=cluster.environment)
    return YarnJobs(cluster, folder)


@pytest.fixture(scope="module")
def places(cluster: LocalCluster) -> dict[str, str]:
    """Where everything is."""
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
    storage, path = locate(beat)
    rank = psutil.Process(json.loads(storage.read(path, 4096))["pid"])
    (executor,) = (one for one in rank.parents() if EXECUTOR in one.cmdline())
    assert submitted.application() in " ".join(executor.cmdline())
    for process in (executor, rank):
        process.kill()
    code, result = submitted.end()
    assert code == 0, result
    return result


def wait_for_file(submitted: Submitted, folder: str, beginning: str) -> str:
    """Return the URI of a file below the folder, as soon as there is one of such a name."""
    deadline = time.monotonic() + 240
    storage, path = locate(folder)
    while True:
        files = list_folder(folder) if storage.exists(path) else ()
        if found := [file.uri for file in files if file.name.startswith(beginning)]:
            return found[0]
        assert time.monotonic() < deadline, submitted.log.read_text()
        assert submitted.process.poll() is None, submitted.end()
        time.sleep(0.2)


def rows(spark: Any, warehouse: str, table: Any, *columns: str) -> list[tuple[Any, ...]]:
    """Return the published rows, without those columns that tell of the run."""
    with open_session("test", warehouse) as session:
        found = Warehouse(session).read(table).selectExpr(*columns).collect()
    return sorted(map(tuple, found))


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
    here = rows(spark, str(tmp_path / "w"), IMAGES, *columns)
    assert len(here) == DRAWN
    assert here == rows(spark, places["warehouse"], IMAGES, *columns)


def test_ranks_on_two_nodes_one_of_them_killed_train_what_one_machine_trains_undisturbed(
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
    here = rows(spark, str(tmp_path / "w"), PREDICTIONS, *columns)
    assert len(here) == scored["listed"]
    assert here == rows(spark, places["warehouse"], PREDICTIONS, *columns)
    ((result,),) = rows(spark, str(tmp_path / "w"), RUNS, "get_json_object(result, '$.scored')")
    assert int(result) == scored["scored"]


def test_a_night_to_be_looked_at_ends_with_3_in_the_second_attempt_too(
    jobs: YarnJobs, places: dict[str, str], trained: Any, spark: Any
) -> None:
    warehouse = f"{jobs.cluster.uri}/looked-at"
    # Masks are no X-rays.
    options = ["--images", places["input"], "--model", places["model"], "--warehouse", warehouse]
    code, result = jobs.start("score", *options).end()
    assert code == 1  # spark-submit's own, for an application that failed
    assert (result["exit_code"], result["shift"] > 0.25) == (3, True)
    figures = ("exit_code", "scored", "shift")
    columns = [f"get_json_object(result, '$.{name}')" for name in figures]
    shift = str(result["shift"])
    attempts = [("3", "0", shift), ("3", str(2 * DRAWN), shift)]
    assert rows(spark, warehouse, RUNS, *columns) == attempts


def test_the_package_reads_dicom_of_every_transfer_syntax(
    jobs: YarnJobs, places: dict[str, str], trained: Any, spark: Any
) -> None:
    images, warehouse = (f"{jobs.cluster.uri}/dicom/{name}" for name in ("images", "warehouse"))
    for number, (make, _) in enumerate(SYNTAXES.values()):
        storage, path = locate(f"{images}/{number}.dcm")
        storage.write(path, make())
    options = ["--images", images, "--model", places["model"], "--warehouse", warehouse]
    scored = jobs.run("score", *options)
    assert (scored["scored"], scored["rejected"]) == (len(SYNTAXES), 0)
    seen = rows(spark, warehouse, PREDICTIONS, "status", "dicom.view")
    assert seen == [("scored", "PA")] * len(SYNTAXES)


def test_a_wrong_option_fails_with_its_one_line(jobs: YarnJobs, places: dict[str, str]) -> None:
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
    """Starts again afterwards what a test has killed."""
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
    driver = node_of(submitted, "org.apache.spark.deploy.yarn.ApplicationMaster")
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


def processes_of(submitted: Submitted, main: str) -> list[psutil.Process]:
    """Return the Java processes of the application that run the class `main`."""
    application = submitted.application()
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["name"] == "java" and application in line and main in line:
            found.append(process)
    return found


def log_folder(process: psutil.Process) -> str:
    """Return the name of the NodeManager that a container's process belongs to."""
    line = " ".join(process.cmdline())
    return next(name for name in ("nodemanager-1", "nodemanager-2") if f"/{name}/" in line)


def node_of(submitted: Submitted, main: str) -> str:
    (process,) = processes_of(submitted, main)
    return log_folder(process)


def wait_for_executors(submitted: Submitted, wanted: int) -> list[psutil.Process]:
    """Return the executors' processes once there are so many."""
    deadline = time.monotonic() + 120
    while len(found := processes_of(submitted, EXECUTOR)) < wanted:
        assert time.monotonic() < deadline, submitted.log.read_text()
        assert submitted.process.poll() is None, submitted.log.read_text()
        time.sleep(0.2)
    return found
