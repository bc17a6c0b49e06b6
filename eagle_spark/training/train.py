"""The train job: the table `images` becomes a model folder."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.dataset.split import SPLITS
from eagle_spark.errors import EagleError, InputError
from eagle_spark.model.bundle import check_target, publish_bundle, seal
from eagle_spark.model.engines import OPENVINO_FILE, KerasEngine, choose_engine
from eagle_spark.model.exports import export_openvino
from eagle_spark.model.gate import run_gate, write_golden
from eagle_spark.model.metadata import NETWORK, WEIGHTS
from eagle_spark.model.weights import weights_file
from eagle_spark.session import open_session
from eagle_spark.settings import TrainSettings
from eagle_spark.storage import absolute_uri, join, locate
from eagle_spark.tables import EPOCHS, FEATURES, IMAGES, DataFile, Run, Warehouse, versions
from eagle_spark.training.checkpoint import checkpoint_folder
from eagle_spark.training.evaluation import (
    NEVER_SURE,
    Evaluator,
    predict_rows,
    review_threshold,
    summarise,
)
from eagle_spark.training.features import Cost, cost, ensure_features, expire_features
from eagle_spark.training.feed import FEATURE_COLUMNS, LABEL_COLUMNS, PIXEL_COLUMNS
from eagle_spark.training.frozen import Backbone, prepare_backbone
from eagle_spark.training.launcher import check_ranks
from eagle_spark.training.log import write_logs
from eagle_spark.training.loop import HEADS, MASK_THRESHOLD, unpack_arrays
from eagle_spark.training.plan import (
    SplitRows,
    TrainPlan,
    balance,
    check_enough,
    plan_rows,
    read_footers,
    share_rows,
)
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
        InputError: when the table `images` is missing, too small, of one class, of mixed sizes or
            without masks.
        SettingsError: when the features would take more than the budget.
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
    check_enough(data.masked("train"), ranks, settings.batch_size)
    cached = settings.cache_features == "on"
    features = cost(data.by_mask, data.size) if cached else Cost(0, 0)
    features.check(settings.feature_budget)
    backbone = prepare_backbone(settings.warehouse, settings.weights, data.size, settings.seed)
    print(f"features: {features.rows:,} rows, {features.gigabytes:.2f} GB", file=sys.stderr)
    table, computed, at = IMAGES, 0, data.snapshot
    if cached:
        table = FEATURES
        at, computed = ensure_features(warehouse, data.snapshot, backbone)
    plan = _plan(spark, data, settings, ranks, backbone, warehouse.files(table, at), staging)
    resume = settings.resume or _second_driver(spark)
    trained = train_ranks(spark, plan, settings.max_restarts, resume)
    records = _records(trained.staging, ranks)

    with tempfile.TemporaryDirectory(prefix="eagle-bundle-") as name:
        folder = Path(name, "model")
        folder.mkdir()
        _assemble(folder, plan, settings.weights, trained.staging)
        write_logs(folder / "logs", trained.staging, records)
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
                "sources": data.sources,
                "settings": asdict(settings) | {"ranks": ranks},
                "backbone": backbone.digest,
                "temperature": records[0]["temperature"],
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
    if cached:
        expire_features(warehouse, backbone)

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
        "backbone": backbone.digest,
        "feature_rows": features.rows,
        "feature_gb": round(features.gigabytes, 3),
        "features_computed": computed,
        "temperature": records[0]["temperature"],
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
        counts: split -> class -> images.
        groups: (source, class) -> images of the train split.
        by_mask: (split, whether they have a mask) -> images.
        golden: (n, size, size) uint8, some validation (or training) images.
    """

    snapshot: int
    classes: tuple[str, ...]
    size: int
    counts: Mapping[str, Mapping[str, int]]
    groups: Mapping[tuple[str, str], int]
    by_mask: Mapping[tuple[str, bool], int]
    golden: NDArray[np.uint8]

    def masked(self, split: str) -> int:
        """Return how many images of the split have a mask."""
        return self.by_mask.get((split, True), 0)

    @property
    def sources(self) -> dict[str, dict[str, int]]:
        """Source -> class -> images of the train split."""
        found: dict[str, dict[str, int]] = {}
        for (source, label), count in sorted(self.groups.items()):
            found.setdefault(source, {})[label] = count
        return found


def read_training_data(warehouse: Warehouse) -> TrainingData:
    """Look at `images` as it is now.

    Raises:
        InputError: when it is missing or empty, or holds one class, several sizes or no mask.
    """
    if not warehouse.exists(IMAGES) or (snapshot := warehouse.snapshot(IMAGES)) is None:
        raise InputError(f"no table {IMAGES.full_name} in this warehouse: run preprocess first")
    rows = warehouse.at(IMAGES, snapshot)
    counted = (
        rows.selectExpr(
            *("split", "label", "source", "octet_length(pixels) AS pixels"),
            "mask IS NOT NULL AS masked",
        )
        .groupBy("split", "label", "source", "pixels", "masked")
        .count()
        .collect()
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
    if not any(row.masked for row in counted if row.split == "train"):
        raise InputError(
            "no image of the train split has a mask, and the network learns masks too: "
            "add a folder with <Class>/masks by preprocess"
        )
    by_label: Counter[tuple[str, str]] = Counter()
    by_mask: Counter[tuple[str, bool]] = Counter()
    groups: Counter[tuple[str, str]] = Counter()
    for row in counted:
        by_label[row.split, row.label] += row["count"]
        by_mask[row.split, row.masked] += row["count"]
        if row.split == "train":
            groups[row.source, row.label] += row["count"]
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for (split, label), count in sorted(by_label.items()):
        counts[split][label] = count
    golden = rows.where(f"split = '{'val' if counts['val'] else 'train'}'").orderBy("image_id")
    pixels = b"".join(row.pixels for row in golden.limit(GOLDEN_IMAGES).select("pixels").collect())
    return TrainingData(
        snapshot=snapshot,
        classes=tuple(classes),
        size=sizes[0],
        counts=counts,
        groups=groups,
        by_mask=by_mask,
        golden=np.frombuffer(pixels, np.uint8).reshape(-1, sizes[0], sizes[0]),
    )


def _plan(
    spark: SparkSession,
    data: TrainingData,
    settings: TrainSettings,
    ranks: int,
    backbone: Backbone,
    files: Sequence[DataFile],
    staging: str,
) -> TrainPlan:
    cached = settings.cache_features == "on"
    threads = int(spark.conf.get("spark.task.cpus", "1") or 1)

    def rows_of(split: str) -> SplitRows:
        """Files of `features` in the order of their buckets, of `images` in that of their names."""
        mine = [file for file in files if file.partition["split"] == split]
        if cached:
            mine = [file for file in mine if file.partition["backbone"] == backbone.digest]
            mine.sort(key=lambda file: file.partition["bucket"])
        masked = [file.uri for file in mine if not cached or file.partition["masked"]]
        columns = FEATURE_COLUMNS if cached else PIXEL_COLUMNS
        return SplitRows(
            plan_rows(read_footers(masked, columns), ranks, settings.batch_size),
            share_rows(read_footers([file.uri for file in mine], LABEL_COLUMNS), ranks),
        )

    return TrainPlan(
        training=rows_of("train"),
        validation=rows_of("val"),
        cached=cached,
        classes=data.classes,
        row_weights=balance(data.groups),
        backbone=backbone,
        batch=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        staging=staging,
        checkpoints=checkpoint_folder(
            absolute_uri(settings.warehouse), _identity(data, settings, ranks, threads)
        ),
        threads=threads,
        use_gpu=int(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0,
    )


def _assemble(folder: Path, plan: TrainPlan, weights: str, staging: str) -> None:
    """Put backbone and trained heads together into one network, and save it in the folder."""
    from eagle_spark.model.network import build_network

    storage, path = locate(join(staging, HEADS))
    heads = unpack_arrays(storage.read(path, MAX_MODEL_BYTES))
    with weights_file(weights) as file:
        network = build_network(plan.classes, plan.size, weights=file, seed=plan.seed)
    network.get_layer("heads").set_weights(heads)
    network.save(folder / NETWORK)
    network.save_weights(folder / WEIGHTS)


def _identity(
    data: TrainingData, settings: TrainSettings, ranks: int, threads: int
) -> dict[str, Any]:
    """Return all that the weights depend on, and where they go: what `--resume` has to find."""
    told = asdict(settings) | {"ranks": ranks, "model": absolute_uri(settings.model)}
    for name in ("warehouse", "overwrite", "resume", "max_restarts", "feature_budget"):
        del told[name]
    return told | {"threads": threads, "snapshot": data.snapshot, "versions": versions()}


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
    export_openvino(reference.model, folder / OPENVINO_FILE)
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
