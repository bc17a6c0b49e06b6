"""The train job: from the table to a model folder, and what it refuses before anything heavy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest

from eagle_spark.dataset.preprocess import preprocess
from eagle_spark.dataset.sample import write_sample
from eagle_spark.errors import InputError, OutputError
from eagle_spark.model.bundle import open_bundle
from eagle_spark.session import open_session
from eagle_spark.settings import PreprocessSettings, TrainSettings
from eagle_spark.tables import EPOCHS, IMAGES, RUNS, Warehouse
from eagle_spark.training.train import read_training_data, train

SIZE = 96
TRAIN_EPOCHS = 8  # short ones: enough of them are left after a few
ROOT = Path(__file__).resolve().parents[2]
WAIT = 600  # seconds
WaitFor = Callable[..., Path]


@pytest.fixture(scope="module")
def warehouse(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a small sample set."""
    place = tmp_path_factory.mktemp("train")
    write_sample(place / "set", 60, 3)
    folder = place / "warehouse"
    preprocess(PreprocessSettings(input=str(place / "set"), warehouse=str(folder), size=SIZE))
    return folder


def train_options(warehouse: Path, model: Path) -> list[str]:
    sizes = ["--ranks", "2", "--epochs", str(TRAIN_EPOCHS), "--batch-size", "8"]
    return ["--warehouse", str(warehouse), "--model", str(model), "--weights", "none", *sizes]


@pytest.fixture(scope="module")
def trained(
    warehouse: Path, tmp_path_factory: pytest.TempPathFactory, run_job: Callable[..., Any]
) -> tuple[Path, dict[str, Any]]:
    """A model folder, and what the undisturbed job said of it."""
    model = tmp_path_factory.mktemp("models") / "a model"
    done = run_job("train", *train_options(warehouse, model))
    assert done.returncode == 0, done.stderr[-3000:]
    return model, done.result


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow
def test_two_ranks_make_a_model_that_scores_alike(
    warehouse: Path, trained: tuple[Path, dict[str, Any]], run_job: Callable[..., Any]
) -> None:
    model, result = trained
    assert (result["ranks"], result["epochs"]) == (2, TRAIN_EPOCHS)
    assert (result["restarts"], result["restart_reasons"], result["resumed_from"]) == (0, [], 0)
    assert len(set(result["weights_digests"])) == 1
    assert len(result["weights_digests"]) == 2
    assert max(result["rank_peak_memory_mb"]) < 3000
    assert all(0 <= result[name] <= 1 for name in ("accuracy", "dice", "ece", "val_accuracy"))

    bundle = open_bundle(str(model))
    assert bundle.model_id == result["model_id"]
    assert bundle.classes == ("COVID", "Normal", "Viral Pneumonia")
    assert bundle.size == SIZE
    assert bundle.engines["openvino"]["passed"]
    assert bundle.metadata["training"]["snapshot_id"] == result["snapshot_id"]
    assert bundle.metadata["metrics"]["test"]["accuracy"] == result["accuracy"]
    assert not [path for path in model.parent.iterdir() if path != model]

    with open_session("test", str(warehouse)) as session:
        epochs = session.sql(f"SELECT * FROM {EPOCHS.full_name}").collect()
        (run,) = session.sql(f"SELECT * FROM {RUNS.full_name} WHERE job = 'train'").collect()
    numbers = range(1, TRAIN_EPOCHS + 1)
    assert {(row.rank, row.epoch) for row in epochs} == set(product((0, 1), numbers))
    assert {row.model_id for row in epochs} == {run.model_id} == {result["model_id"]}
    assert json.loads(run.result) == result
    assert not (warehouse / "cxr" / "_staging" / result["run_id"]).exists()
    assert not list(warehouse.glob("cxr/_checkpoints/*"))

    again = run_job("train", *train_options(warehouse, model))
    assert again.returncode == 2
    assert str(model) in again.result["error"]


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow
def test_a_killed_driver_a_damaged_checkpoint_and_a_killed_rank_leave_the_model_as_it_is(
    warehouse: Path, trained: tuple[Path, dict[str, Any]], tmp_path: Path, wait_for: WaitFor
) -> None:
    options = train_options(warehouse, tmp_path / "model")
    with submitted(tmp_path / "first", *options) as job:
        checkpoint = wait_for(warehouse, "cxr/_checkpoints/*/epoch-*.npz", job)
        ranks = ranks_of(warehouse)
        driver = psutil.Process(job.pid)
        for process in [driver, *driver.children()]:  # the JVM, Python, and the ranks' parent
            process.kill()
        _, alive = psutil.wait_procs(ranks, WAIT)
        assert not alive
    *_, newest = sorted(checkpoint.parent.glob("epoch-*.npz"))
    newest.write_bytes(newest.read_bytes()[:-1])
    finished = int(newest.name[6:12]) - 1
    shutil.rmtree(warehouse / "cxr" / "_staging")

    with submitted(tmp_path / "second", *options, "--resume") as job:
        wait_for(warehouse, f"cxr/_checkpoints/*/epoch-*{finished + 2}-*.npz", job)
        ranks_of(warehouse)[1].kill()
        assert job.wait(WAIT) == 0, (tmp_path / "second").read_text()[-3000:]
    *said, last = (tmp_path / "second").read_text().splitlines()
    result = json.loads(last)
    assert any(newest.name in line and "is damaged" in line for line in said)
    assert result["resumed_from"] == finished
    assert result["restarts"] == 1
    assert "rank 1" in result["restart_reasons"][0]
    interrupted = [line for line in said if line.startswith("training was interrupted: ")]
    assert [result["restart_reasons"][0] in line for line in interrupted] == [True]
    assert result["weights_digests"] == trained[1]["weights_digests"]
    assert result["model_id"] == trained[1]["model_id"]
    assert not list(warehouse.glob("cxr/_checkpoints/*"))
    with open_session("test", str(warehouse)) as session:
        of_this_run = f"WHERE run_id = '{result['run_id']}'"
        (run,) = session.sql(f"SELECT result FROM {RUNS.full_name} {of_this_run}").collect()
        epochs = session.sql(f"SELECT rank, epoch FROM {EPOCHS.full_name} {of_this_run}").collect()
    assert json.loads(run.result) == result
    assert sorted(epochs) == list(product((0, 1), range(1, TRAIN_EPOCHS + 1)))


@contextmanager
def submitted(log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The train job, running; whatever it prints goes to `log`."""
    command = [Path(sys.executable).parent / "spark-submit", ROOT / "submit" / "train.py", *options]
    with log.open("wb") as output:
        job = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield job
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait(WAIT)


def ranks_of(warehouse: Path) -> list[psutil.Process]:
    """The processes of the ranks that train now."""
    beats = sorted(warehouse.glob("cxr/_staging/*/attempt-1/heartbeat-*.json"))
    return [psutil.Process(json.loads(beat.read_bytes())["pid"]) for beat in beats]


@pytest.mark.spark
def test_more_ranks_than_slots_are_refused_before_anything_is_read(
    warehouse: Path, tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    done = run_job("train", "--warehouse", warehouse, "--model", tmp_path / "m", "--ranks", 99)
    assert done.returncode == 2
    assert "--ranks 99" in done.result["error"]


@pytest.mark.spark
def test_a_warehouse_without_the_table_is_named(spark: Any, tmp_path: Path) -> None:
    with (
        open_session("test", str(tmp_path)) as session,
        pytest.raises(InputError, match=r"no table eagle\.cxr\.images .* run preprocess first"),
    ):
        read_training_data(Warehouse(session))


@pytest.mark.spark
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DELETE FROM {t} WHERE label != 'Normal'", "two classes at least"),
        ("DELETE FROM {t} WHERE label = 'COVID' AND split = 'train'", "no image of"),
        ("UPDATE {t} SET pixels = X'00' WHERE split = 'val'", "one size"),
        ("DELETE FROM {t}", "two classes at least"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused(
    warehouse: Path, tmp_path: Path, change: str, said: str
) -> None:
    shutil.copytree(warehouse, tmp_path / "warehouse")
    with open_session("test", str(tmp_path / "warehouse")) as session:
        tables = Warehouse(session)  # a copy of the metadata: the original stays as it is
        session.sql(change.format(t=IMAGES.full_name))
        with pytest.raises(InputError, match=said):
            read_training_data(tables)


def test_a_model_folder_that_exists_is_refused_before_spark_starts(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x").write_text("x")
    with pytest.raises(OutputError, match="--model"):
        train(TrainSettings(warehouse=str(tmp_path), model=str(tmp_path / "model")))
