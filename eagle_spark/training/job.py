"""The train job: the table `images` becomes a model folder."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.datasets.leakage import FACTS, audit_splits
from eagle_spark.errors import EagleError, InputError
from eagle_spark.io import absolute_uri, join, locate
from eagle_spark.io.lock import lease
from eagle_spark.metrics.calibration import NEVER_SURE
from eagle_spark.metrics.evaluation import metric_rows
from eagle_spark.model.bundle import check_target, is_of_run, publish_bundle
from eagle_spark.model.export import has_int8
from eagle_spark.model.network import NORMALISATION
from eagle_spark.model.review import Limits
from eagle_spark.settings import TrainSettings
from eagle_spark.spark.session import is_second_attempt, open_session, threads_per_task
from eagle_spark.tables import (
    EPOCHS,
    FEATURES,
    IMAGES,
    METRICS,
    RUNS,
    DataFile,
    Run,
    Stages,
    Warehouse,
    versions,
)
from eagle_spark.testing.failpoints import reached
from eagle_spark.training.assemble import EXAMPLES, assemble, export, judge
from eagle_spark.training.checkpoint import checkpoint_folder
from eagle_spark.training.data import TrainingData, read_training_data, some_pixels
from eagle_spark.training.features import Cost, cost, ensure_features, expire_features
from eagle_spark.training.feed import FEATURE_COLUMNS, LABEL_COLUMNS, PIXEL_COLUMNS
from eagle_spark.training.frozen import Backbone, prepare_backbone
from eagle_spark.training.leave_one_source_out import leave_sources_out
from eagle_spark.training.log import write_logs
from eagle_spark.training.plan import (
    SplitRows,
    TrainPlan,
    balance,
    check_enough,
    plan_rows,
    read_footers,
    share_rows,
)
from eagle_spark.training.ranks.launcher import check_ranks
from eagle_spark.training.ranks.rank import MASK_THRESHOLD
from eagle_spark.training.ranks.restarts import forget, train_ranks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RULES = {
    # A barrier stage needs all its slots at once.
    "spark.dynamicAllocation.enabled": "false",
    # TensorFlow keeps its cluster for the life of a process: each attempt gets new ones.
    "spark.python.worker.reuse": "false",
    "spark.executorEnv.TF_CPP_MIN_LOG_LEVEL": "3",
}

MAX_RECORD_BYTES = 64 * 2**20
INPUT_CONTRACT = {
    "channels": 1,
    "dtype": "uint8",
    "range": [0, 255],
    "normalisation": NORMALISATION,
}


def train(settings: TrainSettings) -> dict[str, Any]:
    """Run the job and return its figures; those without prefix are of the test split.

    Raises:
        InputError: when the table `images` is missing, too small, of one class, of mixed sizes or
            without masks.
        LeakingSplits: when patients, copies or near duplicates stand in several splits.
        SettingsError: when the features would take more than the budget.
        OutputError: when the model folder exists, or cannot be written.
        PlatformError: when there are fewer slots than ranks.
        AlreadyRunning: when another run trains the same.
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
    stages = Stages(run)
    warehouse = Warehouse(spark)
    ranks = check_ranks(spark, settings.ranks)
    data = read_training_data(warehouse)
    facts = warehouse.at(IMAGES, data.snapshot).select(*FACTS).toPandas()
    audit_splits(
        facts,
        f"{IMAGES.full_name} in {settings.warehouse}",
        "A model is not tested on what it was trained on: run preprocess on this input again",
    )
    check_enough(data.masked("train"), ranks, settings.batch_size)
    cached = settings.cache_features == "on"
    if not cached and (lacking := data.by_mask.get(("train", False))):
        raise InputError(
            f"--cache-features off wants a mask for every image of the train split; {lacking} have "
            "none: train with it on"
        )
    features = cost(data.by_mask, data.size) if cached else Cost(0, 0)
    features.check(settings.feature_budget)

    stages.end("start")

    def examples() -> NDArray[np.uint8]:
        return some_pixels(warehouse, data.snapshot, "train", EXAMPLES)

    int8 = settings.precision == "int8" or (settings.precision == "auto" and has_int8())
    backbone = prepare_backbone(
        *(settings.warehouse, settings.weights, data.size, settings.seed),
        examples if int8 else None,
    )
    stages.end("backbone")
    print(f"features: {features.rows:,} rows, {features.gigabytes:.2f} GB", file=sys.stderr)
    table, computed, at = IMAGES, 0, data.snapshot
    if cached:
        table = FEATURES
        at, computed = ensure_features(warehouse, data.snapshot, backbone)
    stages.end("features")
    plan = _plan(spark, data, settings, ranks, backbone, warehouse.files(table, at), staging)
    reached("before write")
    resume = settings.resume or is_second_attempt(spark)
    with (
        # Another run of this training would remove its checkpoints, or write over them.
        lease(f"{plan.checkpoints}.lease", run.run_id) as held,
        tempfile.TemporaryDirectory(prefix="eagle-bundle-") as name,
    ):
        # Once more: a run that held the lease before may have published there.
        check_target(settings.model, settings.overwrite)
        trained = train_ranks(spark, plan, settings.max_restarts, resume, held.check)
        records = _records(trained.staging, ranks)
        stages.end("ranks")
        folder = Path(name, "model")
        folder.mkdir()
        assemble(folder, plan, settings.weights, trained.staging)
        write_logs(folder / "logs", trained.staging, records)
        engines = export(folder, data, plan, warehouse)
        stages.end("model")
        card: dict[str, Any] = {
            "classes": list(data.classes),
            "input": INPUT_CONTRACT | {"size": data.size},
            "mask_threshold": MASK_THRESHOLD,
            "review": Limits(NEVER_SURE).written(),
            "engines": engines,
            "versions": versions(),
            "training": {
                "table": IMAGES.full_name,
                "warehouse": absolute_uri(settings.warehouse),
                "snapshot_id": data.snapshot,
                "images": data.counts,
                "sources": data.sources,
                "audited": len(facts),
                "settings": asdict(settings) | {"ranks": ranks},
                "backbone": backbone.digest,
                "temperature": records[0]["temperature"],
                "epochs": records[0]["epochs"],
            },
            "run_id": run.run_id,
        }
        unseen = leave_sources_out(spark, plan, data.groups, facts) if cached else {}
        card["left_out"] = unseen
        reached("written")
        bundle, engine, metrics = judge(folder, card, data, plan, warehouse, staging)
        if cached:
            expire_features(warehouse, backbone)
        stages.end("evaluation")
        reached("audited")
        names = ("accuracy", "dice", "ece")
        result = {
            **{name: metrics["test"][name] for name in names},
            **{f"val_{name}": metrics["val"][name] for name in names},
            "accuracy_by_source": {
                name: found["accuracy"] for name, found in metrics["test"]["by_source"].items()
            },
            "accuracy_left_out": {
                name: found["accuracy"] for name, found in unseen.get("by_source", {}).items()
            },
            "review": bundle.metadata["review"],
            "flagged": bundle.metadata["flagged"],
            "epochs": settings.epochs,
            "steps": plan.steps * plan.epochs,
            "ranks": ranks,
            "restarts": len(trained.restart_reasons),
            "restart_reasons": list(trained.restart_reasons),
            "resumed_from": trained.resumed_from,
            "images": data.counts,
            "backbone": backbone.digest,
            "precision": backbone.precision,
            "feature_rows": features.rows,
            "feature_gb": round(features.gigabytes, 3),
            "features_computed": computed,
            "temperature": records[0]["temperature"],
            "nodes": sorted({record["node"] for record in records}),
            "rank_peak_memory_mb": [round(record["peak_rss"] / 2**20) for record in records],
            "weights_digests": [record["weights_digest"] for record in records],
            "rank_seconds": max(record["seconds"] for record in records),
            "stage_seconds": stages.seconds,
            "engine": engine,
            "model_id": bundle.model_id,
            "snapshot_id": data.snapshot,
            "run_id": run.run_id,
            "seconds": run.seconds,
        }
        measured = metrics | ({"left_out": unseen} if unseen else {})
        held.check()
        with recorded(warehouse, run, result, records, measured):
            reached("publishing")
            publish_bundle(folder, settings.model, settings.overwrite)
        forget(plan)
    return result


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
    threads = threads_per_task(spark)

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
            absolute_uri(settings.warehouse), _identity(data, settings, backbone, ranks, threads)
        ),
        threads=threads,
        use_gpu=int(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0,
    )


def _identity(
    data: TrainingData, settings: TrainSettings, backbone: Backbone, ranks: int, threads: int
) -> dict[str, Any]:
    """Return all that the weights depend on, and where they go: what `--resume` has to find."""
    told = asdict(settings) | {"ranks": ranks, "model": absolute_uri(settings.model)}
    for name in ("warehouse", "overwrite", "resume", "max_restarts", "feature_budget"):
        del told[name]
    return told | {
        "backbone": backbone.digest,
        "threads": threads,
        "snapshot": data.snapshot,
        "versions": versions(),
    }


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


@contextmanager
def recorded(
    warehouse: Warehouse,
    run: Run,
    result: dict[str, Any],
    records: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
) -> Iterator[None]:
    """Write the rows of the model that is published within the block, and take them back if it
    is not.

    Rows come first: a folder without rows would stay so, as nobody trains what is there already.
    Those that a killed run leaves tell of no folder, which names its own run.
    """
    model_id: str = result["model_id"]
    try:
        _write_epochs(warehouse, run, model_id, records)
        _write_metrics(warehouse, run, model_id, metrics)
        warehouse.record_run(run, result, snapshot_id=result["snapshot_id"], model_id=model_id)
        yield
    except BaseException:
        # A signal may come when the folder is there already.
        for table in () if is_of_run(run.settings.model, run.run_id) else (EPOCHS, METRICS, RUNS):
            try:
                warehouse.remove(table, f"run_id = '{run.run_id}'", "main")
            except Exception as error:  # the one on its way counts
                said = str(error).splitlines()[0]
                print(
                    f"warning: {table.full_name} keeps rows of {run.run_id}, of which there is "
                    f"no model: {said}",
                    file=sys.stderr,
                )
        raise


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


def _write_metrics(
    warehouse: Warehouse, run: Run, model_id: str, metrics: Mapping[str, Mapping[str, Any]]
) -> None:
    rows = [
        (run.run_id, model_id, split, *row)
        for split, summary in metrics.items()
        for row in metric_rows(summary)
    ]
    warehouse.ensure(METRICS)
    warehouse.append(METRICS, warehouse.spark.createDataFrame(rows, METRICS.schema()))
