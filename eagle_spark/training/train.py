"""The train job: the table `images` becomes a model folder."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.dataset.split import SPLITS
from eagle_spark.errors import EagleError, InputError
from eagle_spark.model.bundle import check_target, publish_bundle, seal
from eagle_spark.model.engines import KerasEngine, choose_engine
from eagle_spark.model.gate import export_openvino, run_gate, write_golden
from eagle_spark.model.metadata import NETWORK
from eagle_spark.model.weights import stage_weights
from eagle_spark.session import open_session
from eagle_spark.settings import TrainSettings
from eagle_spark.storage import absolute_uri, join, locate
from eagle_spark.tables import EPOCHS, IMAGES, Run, Warehouse, versions
from eagle_spark.training.checkpoint import checkpoint_folder
from eagle_spark.training.evaluation import (
    NEVER_SURE,
    Evaluator,
    predict_rows,
    review_threshold,
    summarise,
)
from eagle_spark.training.launcher import check_ranks
from eagle_spark.training.loop import MASK_THRESHOLD
from eagle_spark.training.plan import TrainPlan, check_enough, plan_rows, read_footers
from eagle_spark.training.restarts import forget, train_ranks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RULES = {
    # A barrier stage needs all its slots at once.
    "spark.dynamicAllocation.enabled": "false",
    # TensorFlow keeps its cluster for the life of a process: each attempt gets new ones.
    "spark.python.worker.reuse": "false",
    "spark.executorEnv.TF_CPP_MIN_LOG_LEVEL": "3",
}


GOLDEN_IMAGES = 64
MAX_MODEL_BYTES = 2**30
MAX_RECORD_BYTES = 64 * 2**20
INPUT_CONTRACT = {
    "channels": 1,
    "dtype": "uint8",
    "range": [0, 255],
    "normalisation": "x / 127.5 - 1, inside the network",
}


def train(settings: TrainSettings) -> dict[str, Any]:
    """Run the job and return its figures; those without prefix are of the test split.

    Raises:
        InputError: when the table `images` is missing, too small, of one class or of mixed sizes.
        OutputError: when the model folder exists, or cannot be written.
        PlatformError: when there are fewer slots than ranks.
        EagleError: when ranks were lost more often than `max_restarts`, or end with different
            weights.
    """
    run = Run.begin("train", settings)
    storage, place = locate(settings.warehouse)
    if not storage.exists(place):
        raise InputError(f"--warehouse {settings.warehouse}: no such folder")
    check_target(settings.model, settings.overwrite)
    with open_session("train", settings.warehouse, RULES) as spark:
        staging = join(absolute_uri(settings.warehouse), "cxr", "_staging", run.run_id)
        try:
            return _train(spark, run, staging)
        finally:
            storage.delete(locate(staging)[1])


def _train(spark: SparkSession, run: Run, staging: str) -> dict[str, Any]:
    settings: TrainSettings = run.settings
    warehouse = Warehouse(spark)
    ranks = check_ranks(spark, settings.ranks)
    data = read_training_data(warehouse)
    plan = _plan(data, settings, ranks, staging)
    resume = settings.resume or _second_driver(spark)
    trained = train_ranks(spark, plan, settings.max_restarts, resume)
    records = _records(trained.staging, ranks)

    with tempfile.TemporaryDirectory(prefix="eagle-bundle-") as name:
        folder = Path(name, "model")
        folder.mkdir()
        storage, path = locate(join(trained.staging, "model", NETWORK))
        (folder / NETWORK).write_bytes(storage.read(path, MAX_MODEL_BYTES))
        card: dict[str, Any] = {
            "classes": list(data.classes),
            "input": INPUT_CONTRACT | {"size": data.size},
            "mask_threshold": MASK_THRESHOLD,
            "review_below": NEVER_SURE,
            "engines": _exports(folder, data, plan.threads),
            "versions": versions(),
            "training": {
                "table": IMAGES.full_name,
                "warehouse": absolute_uri(settings.warehouse),
                "snapshot_id": data.snapshot,
                "images": data.counts,
                "settings": asdict(settings) | {"ranks": ranks},
                "epochs": records[0]["epochs"],
            },
            "run_id": run.run_id,
        }
        # What is measured is what will be served: the sealed folder, by scoring's own engine.
        bundle = seal(folder, card)
        shipped = join(staging, "bundle")
        publish_bundle(folder, shipped, overwrite=False)
        engine = choose_engine(bundle, "auto")
        held_out = warehouse.at(IMAGES, data.snapshot).where("split IN ('val', 'test')")
        evaluator = Evaluator(shipped, bundle.model_id, engine, plan.threads)
        outcomes = predict_rows(held_out, evaluator)
        parts = {split: outcomes[outcomes["split"] == split] for split in ("val", "test")}
        metrics = {split: summarise(rows, data.classes) for split, rows in parts.items()}
        review_below = review_threshold(parts["val"], data.classes)
        seal(folder, {**card, "metrics": metrics, "review_below": review_below})
        publish_bundle(folder, settings.model, settings.overwrite)
        forget(plan)

    model_id = bundle.model_id
    _write_epochs(warehouse, run, model_id, records)
    names = ("accuracy", "dice", "ece")
    result = {
        **{name: metrics["test"][name] for name in names},
        **{f"val_{name}": metrics["val"][name] for name in names},
        "review_below": review_below,
        "epochs": settings.epochs,
        "ranks": ranks,
        "restarts": len(trained.restart_reasons),
        "restart_reasons": list(trained.restart_reasons),
        "resumed_from": trained.resumed_from,
        "images": data.counts,
        "nodes": sorted({record["node"] for record in records}),
        "rank_peak_memory_mb": [round(record["peak_rss"] / 2**20) for record in records],
        "weights_digests": [record["weights_digest"] for record in records],
        "rank_seconds": max(record["seconds"] for record in records),
        "engine": engine,
        "model_id": model_id,
        "snapshot_id": data.snapshot,
        "run_id": run.run_id,
        "seconds": run.seconds,
    }
    warehouse.record_run(run, result, snapshot_id=data.snapshot, model_id=model_id)
    return result


@dataclass(frozen=True)
class TrainingData:
    """What one snapshot of `images` offers to training.

    Attributes:
        files: split -> URIs of its Parquet files.
        counts: split -> class -> images.
        golden: (n, size, size) uint8, some validation (or training) images.
    """

    snapshot: int
    classes: tuple[str, ...]
    size: int
    files: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, Mapping[str, int]]
    golden: NDArray[np.uint8]


def read_training_data(warehouse: Warehouse) -> TrainingData:
    """Look at `images` as it is now.

    Raises:
        InputError: when it is missing or empty, or holds one class or several sizes only.
    """
    from pyspark.sql.functions import octet_length

    if not warehouse.exists(IMAGES) or (snapshot := warehouse.snapshot(IMAGES)) is None:
        raise InputError(f"no table {IMAGES.full_name} in this warehouse: run preprocess first")
    rows = warehouse.at(IMAGES, snapshot)
    counted = (
        rows.groupBy("split", "label", octet_length("pixels").alias("pixels")).count().collect()
    )
    classes = sorted({row.label for row in counted if row.split == "train"})
    sizes = sorted({math.isqrt(row.pixels) for row in counted})
    if len(classes) < 2:
        raise InputError(f"training needs two classes at least; the train split has {classes}")
    unknown = sorted({row.label for row in counted} - set(classes))
    if unknown:
        raise InputError(f"the train split has no image of {unknown}; add images or another split")
    if len(sizes) > 1:
        raise InputError(f"images of one size are needed; the table has sides {sizes}")
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for row in sorted(counted, key=lambda row: row.label):
        counts[row.split][row.label] = row["count"]
    golden = rows.where(f"split = '{'val' if counts['val'] else 'train'}'").orderBy("image_id")
    pixels = b"".join(row.pixels for row in golden.limit(GOLDEN_IMAGES).select("pixels").collect())
    return TrainingData(
        snapshot=snapshot,
        classes=tuple(classes),
        size=sizes[0],
        files=warehouse.files(IMAGES, snapshot),
        counts=counts,
        golden=np.frombuffer(pixels, np.uint8).reshape(-1, sizes[0], sizes[0]),
    )


def _plan(data: TrainingData, settings: TrainSettings, ranks: int, staging: str) -> TrainPlan:
    groups = {split: read_footers(data.files.get(split, ())) for split in ("train", "val")}
    batch = settings.batch_size
    check_enough(sum(group.rows for group in groups["train"]), ranks, batch)
    return TrainPlan(
        training=plan_rows(groups["train"], ranks, batch),
        validation=plan_rows(groups["val"], ranks, batch),
        classes=data.classes,
        size=data.size,
        batch=batch,
        epochs=settings.epochs,
        seed=settings.seed,
        weights=stage_weights(settings.weights, staging),
        staging=staging,
        checkpoints=checkpoint_folder(
            absolute_uri(settings.warehouse), _identity(data, settings, ranks)
        ),
        threads=1,
    )


def _identity(data: TrainingData, settings: TrainSettings, ranks: int) -> dict[str, Any]:
    """Return all that the weights depend on, and where they go: what `--resume` has to find."""
    told = asdict(settings) | {"ranks": ranks, "model": absolute_uri(settings.model)}
    for name in ("warehouse", "overwrite", "resume", "max_restarts"):
        del told[name]
    return told | {"snapshot": data.snapshot, "versions": versions()}


def _second_driver(spark: SparkSession) -> bool:
    """Whether YARN started this driver because the one before it died."""
    attempt = spark.sparkContext._jsc.sc().applicationAttemptId()
    return bool(attempt.isDefined() and int(attempt.get()) > 1)


def _records(staging: str, ranks: int) -> list[dict[str, Any]]:
    """Return what each rank left, their weights held against each other."""
    records = []
    for rank in range(ranks):
        storage, path = locate(join(staging, f"rank-{rank}.json"))
        records.append(json.loads(storage.read(path, MAX_RECORD_BYTES)))
    digests = {record["weights_digest"] for record in records}
    if len(digests) != 1:
        raise EagleError(f"the ranks ended with different weights: {sorted(digests)}")
    return records


def _exports(folder: Path, data: TrainingData, threads: int) -> dict[str, dict[str, Any]]:
    """Add the exports and the golden images to the folder; return the results of the gate."""
    reference = KerasEngine(folder, threads)
    export_openvino(reference.model, folder)
    wanted = write_golden(folder, data.golden, reference)
    return run_gate(folder, data.golden, wanted, MASK_THRESHOLD, threads)


def _write_epochs(
    warehouse: Warehouse, run: Run, model_id: str, records: Sequence[Mapping[str, Any]]
) -> None:
    rows = [
        (
            *(run.run_id, model_id, record["rank"], int(epoch["epoch"])),
            {name: float(value) for name, value in epoch.items() if value is not None},
        )
        for record in records
        for epoch in record["epochs"]
    ]
    warehouse.ensure(EPOCHS)
    warehouse.append(EPOCHS, warehouse.spark.createDataFrame(rows, EPOCHS.schema()))
