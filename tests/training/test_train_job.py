"""The train job: from the table to a model folder, and what it refuses before anything heavy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def warehouse(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of a small sample set."""
    place = tmp_path_factory.mktemp("train")
    write_sample(place / "set", 60, 3)
    folder = place / "warehouse"
    preprocess(PreprocessSettings(input=str(place / "set"), warehouse=str(folder), size=SIZE))
    return folder


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow
def test_two_ranks_make_a_model_that_scores_alike(
    warehouse: Path, tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    model = tmp_path / "a model"
    options = ("--warehouse", warehouse, "--model", model, "--weights", "none")
    done = run_job("train", *options, "--ranks", 2, "--epochs", 2, "--batch-size", 8)
    assert done.returncode == 0, done.stderr[-3000:]
    result = done.result
    assert (result["ranks"], result["epochs"], result["restarts"]) == (2, 2, 0)
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
    assert not [path for path in tmp_path.iterdir() if path != model]

    with open_session("test", str(warehouse)) as session:
        epochs = session.sql(f"SELECT * FROM {EPOCHS.full_name}").collect()
        (run,) = session.sql(f"SELECT * FROM {RUNS.full_name} WHERE job = 'train'").collect()
    assert {(row.rank, row.epoch) for row in epochs} == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert {row.model_id for row in epochs} == {run.model_id} == {result["model_id"]}
    assert json.loads(run.result) == result
    assert not (warehouse / "cxr" / "_staging" / result["run_id"]).exists()

    again = run_job("train", *options)
    assert again.returncode == 2
    assert str(model) in again.result["error"]


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
    import shutil

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
