"""The train job: from the table to a model folder, and its early errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from eagle_spark.datasets.ingest import preprocess
from eagle_spark.datasets.synthetic.sample import write_sample
from eagle_spark.errors import InputError, OutputError
from eagle_spark.model.backbone import BackboneEngine, unpack_backbone
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.export import has_bf16, has_int8
from eagle_spark.model.review import ReviewThresholds
from eagle_spark.settings import PreprocessSettings, TrainSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import EPOCHS, IMAGES, METRICS, RUNS, Warehouse
from eagle_spark.training.data import read_training_data, stack_pixels
from eagle_spark.training.job import train

SIZE = 96
BATCH = 8
TRAIN_EPOCHS = 12  # short ones: enough of them are left after a few
ROOT = Path(__file__).resolve().parents[2]
WAIT = 600  # seconds
WaitFor = Callable[..., Path]


@pytest.fixture(scope="module")
def warehouse(
    spark: Any, tmp_path_factory: pytest.TempPathFactory, run_job: Callable[..., Any]
) -> Path:
    """The table of a small sample set."""
    place = tmp_path_factory.mktemp("train")
    write_sample(place / "set", 60, 3)
    folder = place / "warehouse"
    done = run_job("preprocess", "--input", place / "set", "--warehouse", folder, "--size", SIZE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.result["listed"] == done.result["accepted"] == 60
    return folder


def train_options(warehouse: Path, model: Path) -> list[str]:
    sizes = ["--ranks", "2", "--epochs", str(TRAIN_EPOCHS), "--batch-size", str(BATCH)]
    network = ["--weights", "none", "--precision", "f32"]
    return ["--warehouse", str(warehouse), "--model", str(model), *network, *sizes]


@pytest.fixture(scope="module")
def trained(
    warehouse: Path, tmp_path_factory: pytest.TempPathFactory, run_job: Callable[..., Any]
) -> tuple[Path, dict[str, Any]]:
    """A model folder, and the result of the undisturbed job."""
    model = tmp_path_factory.mktemp("models") / "a model"
    done = run_job("train", *train_options(warehouse, model))
    assert done.returncode == 0, done.stderr[-3000:]
    return model, done.result


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow("a training on two ranks")
def test_two_ranks_make_a_model_that_scores_alike(
    warehouse: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    model, result = trained
    assert (result["ranks"], result["epochs"]) == (2, TRAIN_EPOCHS)
    assert (result["restarts"], result["restart_reasons"], result["resumed_from"]) == (0, [], 0)
    assert len(set(result["weights_digests"])) == 1
    assert len(result["weights_digests"]) == 2
    assert max(result["rank_peak_memory_mb"]) < 3000
    assert all(0 <= result[name] <= 1 for name in ("accuracy", "dice", "ece", "val_accuracy"))

    bundle = open_bundle(str(model))
    counts = {split: sum(count.values()) for split, count in result["images"].items()}
    assert bundle.metadata.model_id == result["model_id"]
    assert bundle.metadata.classes == ("COVID", "Normal", "Viral Pneumonia")
    assert bundle.metadata.input.size == SIZE
    assert bundle.metadata.engines["openvino"].passed
    assert bundle.metadata.training.snapshot_id == result["snapshot_id"]
    assert bundle.metadata.metrics["test"].accuracy == result["accuracy"]
    for split, prefix in (("test", ""), ("val", "val_")):
        metrics = bundle.metadata.metrics[split]
        assert (metrics.images, metrics.accuracy) == (counts[split], result[f"{prefix}accuracy"])
        for low, high in (metrics.intervals.accuracy, metrics.intervals.dice):
            assert 0 <= low <= high <= 1
    assert bundle.metadata.training.audited == sum(counts.values())
    assert bundle.metadata.training.backbone == result["backbone"]
    assert bundle.metadata.training.temperature == result["temperature"] > 0
    assert bundle.novelty is not None
    assert bundle.metadata.review == ReviewThresholds.model_validate(result["review"])
    assert bundle.metadata.review.novelty.keys() == bundle.novelty.densities.keys()
    for split in ("val", "test"):
        calibration = bundle.metadata.calibration[split]
        assert calibration.ece == pytest.approx(bundle.metadata.metrics[split].ece)
        assert sum(calibration.reliability_before.images) == counts[split]
        assert result["flagged"][split].keys() == {"any", "confidence", "novelty", "mask"}
    assert sum(bundle.metadata.reference.numeric["novelty"].shares) == pytest.approx(1)
    assert (
        result["feature_rows"] == result["features_computed"] == 2 * counts["train"] + counts["val"]
    )
    assert not [path for path in model.parent.iterdir() if path != model]

    with open_session("test", str(warehouse)) as session:
        epochs = session.sql(f"SELECT * FROM {EPOCHS.full_name}").collect()
        (run,) = session.sql(f"SELECT * FROM {RUNS.full_name} WHERE job = 'train'").collect()
        measured = session.sql(
            f"SELECT * FROM {METRICS.full_name} WHERE source = 'all' AND label = 'all' "
            "AND name IN ('accuracy', 'dice') ORDER BY split, name"
        ).collect()
    assert [(row.split, row.name, row.value, row.n) for row in measured] == [
        (split, name, getattr(bundle.metadata.metrics[split], name), counts[split])
        for split, name in product(("test", "val"), ("accuracy", "dice"))
    ]
    numbers = range(1, TRAIN_EPOCHS + 1)
    assert {(row.rank, row.epoch) for row in epochs} == set(product((0, 1), numbers))
    assert {row.model_id for row in epochs} == {run.model_id} == {result["model_id"]}
    assert json.loads(run.result) == result
    assert not (warehouse / "cxr" / "_staging" / result["run_id"]).exists()
    assert not list(warehouse.glob("cxr/_checkpoints/*"))


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow("a training on two ranks")
def test_the_model_holds_network_weights_and_log(trained: tuple[Path, dict[str, Any]]) -> None:
    import keras

    from eagle_spark.model.network import build_network

    model, _ = trained
    saved = keras.models.load_model(model / "model.keras", compile=False, safe_mode=True)
    blank = build_network(open_bundle(str(model)).metadata.classes, SIZE, weights=None, seed=99)
    blank.load_weights(model / "model.weights.h5")
    for saved_weights, loaded_weights in zip(saved.get_weights(), blank.get_weights(), strict=True):
        assert np.array_equal(saved_weights, loaded_weights)
    with np.load(model / "golden.npz") as golden:
        pixels = golden["pixels"][:4, :, :, np.newaxis].astype(np.float32)
    for name, value in saved(pixels).items():
        assert np.array_equal(value, blank(pixels)[name])
        assert np.ptp(value) > 0.01
    lines = (model / "logs" / "epoch_logs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * TRAIN_EPOCHS
    assert len((model / "logs" / "training_log.csv").read_text().splitlines()) == len(lines) + 1
    for part in ("train", "validation"):
        assert list((model / "logs" / "tensorboard" / part).glob("events.out.tfevents.*"))


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow("a training on two ranks")
def test_the_model_on_golden_images_equals_the_heads_on_their_features(
    warehouse: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    import keras

    model, result = trained
    (stored,) = warehouse.glob(f"cxr/_backbones/*/{result['backbone']}.npz")
    engine = BackboneEngine(unpack_backbone(stored.read_bytes(), result["backbone"]), 1)
    saved = keras.models.load_model(model / "model.keras", compile=False, safe_mode=True)
    with np.load(model / "golden.npz") as golden:
        pixels, label, mask = (golden[name] for name in ("pixels", "label", "mask"))
    features = {
        name: value.astype(np.float16) for name, value in engine.compute_features(pixels).items()
    }
    outputs = saved.get_layer("heads")(
        {name: value.astype(np.float32) for name, value in features.items()}
    )
    np.testing.assert_allclose(outputs["label"].numpy(), label, atol=5e-3)
    np.testing.assert_allclose(outputs["mask"].numpy()[..., 0], mask, atol=1e-2)


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.extended("two trainings", seconds=90)
def test_without_cached_features_the_model_is_equivalent(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    # The class head is fitted to the same rows, drawn in another order. Among 60 images 6 are of
    # the validation split, and two orders are often two of them apart.
    table, models = tmp_path / "warehouse", [tmp_path / "kept", tmp_path / "asked"]
    write_sample(tmp_path / "set", 150, 3)
    preprocess(PreprocessSettings(input=str(tmp_path / "set"), warehouse=str(table), size=SIZE))
    sizes = ["--ranks", 1, "--epochs", 1, "--batch-size", BATCH, "--precision", "f32"]
    options = ["--warehouse", table, "--weights", "none", *sizes]
    off = ["--cache-features", "off", "--feature-budget", 1e-6]
    cached, uncached = (
        run_job("train", *options, "--model", model, *more)
        for model, more in zip(models, ([], off), strict=True)
    )
    for done in (cached, uncached):
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.result["backbone"] == trained[1]["backbone"]
    assert cached.result["features_computed"] > 0
    assert (uncached.result["feature_rows"], uncached.result["features_computed"]) == (0, 0)
    assert open_bundle(str(models[1])).metadata.engines["openvino"].passed
    assert uncached.result["val_accuracy"] == pytest.approx(cached.result["val_accuracy"], abs=0.2)
    with open_session("test", str(table)) as session:
        rows = session.table(IMAGES.full_name).select("pixels").collect()
    pixels = stack_pixels((bytes(row.pixels) for row in rows), SIZE)
    first, second = (predict_classes(model, pixels) for model in models)
    assert np.mean(first == second) >= 0.95


def predict_classes(model: Path, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the number of the class that a model's network gives to each image."""
    import keras

    saved = keras.models.load_model(model / "model.keras", compile=False, safe_mode=True)
    probabilities: np.ndarray[Any, Any] = saved.predict(
        pixels[..., None].astype(np.float32), verbose=0
    )["label"]
    return probabilities.argmax(axis=1)


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.extended("a training that quantises", seconds=90)
def test_int8_is_compared_with_float32_on_the_validation_split(
    warehouse: Path,
    trained: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    run_job: Callable[..., Any],
) -> None:
    options = ["--warehouse", warehouse, "--model", tmp_path / "model", "--weights", "none"]
    sizes = ["--ranks", 1, "--epochs", 1, "--batch-size", BATCH, "--precision", "int8"]
    done = run_job("train", *options, *sizes)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.result["precision"] == "int8"
    assert done.result["backbone"] != trained[1]["backbone"]
    assert done.result["features_computed"] == done.result["feature_rows"] > 0
    engines = open_bundle(str(tmp_path / "model")).metadata.engines
    assert engines["openvino"].passed
    assert engines["openvino-int8"].precision == "int8"
    assert engines["openvino-int8"].images == sum(done.result["images"]["val"].values())
    assert ("openvino-bf16" in engines) == has_bf16()
    if has_bf16():
        assert engines["openvino-bf16"].images == engines["openvino-int8"].images
        assert engines["openvino-bf16"].precision == "bf16"
    assert engines[done.result["engine"]].passed
    # On a CPU without instructions for int8 it is judged all the same, and not chosen.
    best = engines["openvino-int8"].passed and has_int8()
    assert best == (done.result["engine"] == "openvino-int8")


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow("a training on two ranks")
def test_the_model_survives_a_killed_driver_a_damaged_checkpoint_and_a_killed_rank(
    warehouse: Path, trained: tuple[Path, dict[str, Any]], tmp_path: Path, wait_for: WaitFor
) -> None:
    options = train_options(warehouse, tmp_path / "model")
    steps = -(-2 * sum(trained[1]["images"]["train"].values()) // BATCH)  # of an epoch
    with submitted(tmp_path / "first", *options) as job:
        # The second one: before the damaged one there has to be one to go on from.
        checkpoint = wait_for(warehouse, f"cxr/_checkpoints/*/step-{2 * steps:09d}-*.npz", job)
        ranks = list_ranks(warehouse)
        driver = psutil.Process(job.pid)
        for process in [driver, *driver.children()]:  # the JVM, Python, and the ranks' parent
            process.kill()
        _, alive = psutil.wait_procs(ranks, WAIT)
        assert not alive
    assert list(warehouse.glob("cxr/_checkpoints/*.lease"))  # written while it ran
    *_, newest = sorted(checkpoint.parent.glob("step-*.npz"))
    newest.write_bytes(newest.read_bytes()[:-1])
    done = int(newest.name[5:14])
    assert done % steps == 0
    shutil.rmtree(warehouse / "cxr" / "_staging")

    with submitted(tmp_path / "second", *options, "--resume") as job:
        wait_for(warehouse, f"cxr/_checkpoints/*/step-*{done + steps}-*.npz", job)
        list_ranks(warehouse)[1].kill()
        assert job.wait(WAIT) == 0, (tmp_path / "second").read_text()[-3000:]
    *log, last = (tmp_path / "second").read_text().splitlines()
    result = json.loads(last)
    assert any(newest.name in line and "is damaged" in line for line in log)
    assert result["resumed_from"] == done - steps > 0
    assert result["features_computed"] == 0  # the undisturbed job's are there
    assert result["restarts"] == 1
    assert "rank 1" in result["restart_reasons"][0]
    interrupted = [line for line in log if line.startswith("training was interrupted: ")]
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


def list_ranks(warehouse: Path) -> list[psutil.Process]:
    """The processes of the ranks that train now."""
    beats = sorted(warehouse.glob("cxr/_staging/*/attempt-1/heartbeat-*.json"))
    return [psutil.Process(json.loads(beat.read_bytes())["pid"]) for beat in beats]


@pytest.mark.extended("one more job by its spark-submit", seconds=10)
@pytest.mark.spark
def test_dynamic_allocation_is_refused(
    warehouse: Path, tmp_path: Path, run_job: Callable[..., Any]
) -> None:
    options = ["--warehouse", warehouse, "--model", tmp_path / "m", "--weights", "none"]
    done = run_job("train", *options, conf=["spark.dynamicAllocation.enabled=true"])
    assert done.returncode == 2
    assert "--conf spark.dynamicAllocation.enabled=false" in done.result["error"]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"feature_budget": 1e-3}, "SettingsError", r"`feature_budget` 0.001: .* take \d"),
    ({"batch_size": 7}, "SettingsError", r"`batch_size`: wanted a multiple of 4, .*got 7"),
    ({"batch_size": 500}, "InputError", "with a mask, fewer than one batch of 500 "),
    ({"weights": "{tmp}/gone.h5"}, "InputError", r"`weights` .*gone\.h5: no such file"),
    ({"weights": "{tmp}/text.h5"}, "InputError", r"`weights` .*text\.h5: not MobileNetV2"),
    ({"ranks": 3}, "PlatformError", "`ranks` 3: Spark has 2 task slots"),
    ({"warehouse": "{tmp}/nowhere"}, "InputError", "`warehouse` .*nowhere: no such folder"),
    ({"warehouse": "{tmp}/odd"}, "SettingsError", "image size must be a multiple of 32, got 10"),
]
TRAININGS = """
import json, os, sys
from pyspark.sql import SparkSession
from eagle_spark.errors import EagleError
from eagle_spark.spark.session import LOCAL_CONF, DEFAULT_CONF
from eagle_spark.settings import TrainSettings
from eagle_spark.training import job as train

os.environ["PYSPARK_PYTHON"] = sys.executable
builder = SparkSession.builder
conf = {**DEFAULT_CONF, **LOCAL_CONF, **train.TRAINING_CONF, "spark.master": "local[2]"}
for key, value in conf.items():
    builder = builder.config(key, value)
builder.getOrCreate()
errors = []
for settings in json.load(sys.stdin):
    try:
        train.train(TrainSettings(**settings))
    except EagleError as error:
        errors.append([type(error).__name__, str(error)])
    assert "tensorflow" not in sys.modules or settings["warehouse"].endswith("odd")
print(json.dumps(errors))
"""


@pytest.mark.slow("a Spark with the rules of train")
@pytest.mark.spark
def test_impossible_settings_are_one_line_before_training(warehouse: Path, tmp_path: Path) -> None:
    shutil.copytree(warehouse, tmp_path / "odd")
    with open_session("test", str(tmp_path / "odd")) as session:
        pixels = f"X'{bytes(100).hex()}'"
        session.sql(f"UPDATE {IMAGES.full_name} SET pixels = {pixels}")
    (tmp_path / "text.h5").write_text("not HDF5")
    common = {"warehouse": str(warehouse), "model": str(tmp_path / "model"), "weights": "none"}
    calls = [
        common
        | {"ranks": 2, "batch_size": BATCH}
        | {
            name: value.format(tmp=tmp_path) if isinstance(value, str) else value
            for name, value in changes.items()
        }
        for changes, _, _ in REFUSED
    ]
    before = {path for path in warehouse.rglob("*") if path.is_dir()}
    done = subprocess.run(
        [sys.executable, "-c", TRAININGS],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors = json.loads(done.stdout.splitlines()[-1])
    for (_, kind, pattern), (raised, text) in zip(REFUSED, errors, strict=True):
        assert raised == kind, text
        assert re.search(pattern, text), text
        assert "\n" not in text
    assert {path for path in warehouse.rglob("*") if path.is_dir()} - before <= {
        warehouse / "cxr" / "_staging"
    }
    assert not (tmp_path / "model").exists()


@pytest.mark.spark
def test_a_warehouse_without_the_table_is_named(spark: Any, tmp_path: Path) -> None:
    with (
        open_session("test", str(tmp_path)) as session,
        pytest.raises(InputError, match=r"no table eagle\.cxr\.images .* run preprocess first"),
    ):
        read_training_data(Warehouse(session))


@pytest.mark.spark
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DELETE FROM {t} WHERE label != 'Normal'", "two classes at least"),
        ("DELETE FROM {t} WHERE label = 'COVID' AND split = 'train'", "no image of"),
        ("UPDATE {t} SET pixels = X'00' WHERE split = 'val'", "one size"),
        ("DELETE FROM {t}", "two classes at least"),
        ("UPDATE {t} SET mask = NULL", "no image of the train split has a mask"),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_refused(
    warehouse: Path, tmp_path: Path, change: str, message: str
) -> None:
    shutil.copytree(warehouse, tmp_path / "warehouse")
    with open_session("test", str(tmp_path / "warehouse")) as session:
        tables = Warehouse(session)  # a copy of the metadata: the original stays as it is
        session.sql(change.format(t=IMAGES.full_name))
        with pytest.raises(InputError, match=message):
            read_training_data(tables)


def test_a_model_folder_that_exists_is_refused_before_spark_starts(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x").write_text("x")
    with pytest.raises(OutputError, match=r"^`model` .*: exists already; .* `overwrite`"):
        train(TrainSettings(warehouse=str(tmp_path), model=str(tmp_path / "model")))
