"""The train job: a pipeline from the table `images` to a model folder."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eagle_spark.datasets.leakage import SPLIT_COLUMNS, audit_splits
from eagle_spark.errors import InputError, require_extra
from eagle_spark.io import absolute_uri, join, resolve, temporary_folder
from eagle_spark.io.lock import lease
from eagle_spark.metrics.calibration import UNREACHABLE_CONFIDENCE
from eagle_spark.metrics.evaluation import Metrics
from eagle_spark.model.bundle import check_target, publish_bundle
from eagle_spark.model.export import has_int8
from eagle_spark.model.metadata import GateResult, InputContract, ModelMetadata, Training
from eagle_spark.model.network import NORMALISATION
from eagle_spark.model.review import ReviewThresholds
from eagle_spark.settings import TrainSettings
from eagle_spark.spark.session import is_second_attempt, open_session, threads_per_task
from eagle_spark.tables import (
    FEATURES,
    IMAGES,
    DataFile,
    Run,
    StageTimer,
    Table,
    Warehouse,
    versions,
)
from eagle_spark.testing.failpoints import failpoint
from eagle_spark.training.assemble import (
    CALIBRATION_IMAGES,
    assemble_network,
    evaluate_and_seal,
    export_engines,
)
from eagle_spark.training.checkpoint import checkpoint_folder
from eagle_spark.training.data import TrainingData, read_training_data, sample_pixels
from eagle_spark.training.features import (
    FeatureCost,
    ensure_features,
    estimate_cost,
    expire_features,
)
from eagle_spark.training.feed import FEATURE_COLUMNS, LABEL_COLUMNS, PIXEL_COLUMNS
from eagle_spark.training.frozen import Backbone, prepare_backbone
from eagle_spark.training.leave_one_source_out import leave_sources_out
from eagle_spark.training.log import write_logs
from eagle_spark.training.plan import (
    SplitRows,
    TrainPlan,
    check_batch_fits,
    class_source_weights,
    plan_rows,
    read_footers,
    share_rows,
)
from eagle_spark.training.ranks.launcher import check_ranks
from eagle_spark.training.ranks.rank import MASK_THRESHOLD, RankRecord, read_records
from eagle_spark.training.ranks.restarts import TrainingOutcome, delete_checkpoints, train_ranks
from eagle_spark.training.result import TrainResult, run_record

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

TRAINING_CONF = {
    # A barrier stage needs all its slots at once.
    "spark.dynamicAllocation.enabled": "false",
    # TensorFlow keeps its cluster for the life of a process: each attempt gets new ones.
    "spark.python.worker.reuse": "false",
    "spark.executorEnv.TF_CPP_MIN_LOG_LEVEL": "3",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Inputs:
    """The checked inputs of a training.

    Attributes:
        images: `SPLIT_COLUMNS` of all images of the snapshot.
        cost: of the features; zero without a cache.
    """

    settings: TrainSettings
    ranks: int
    data: TrainingData
    images: pd.DataFrame
    cost: FeatureCost

    @property
    def cached(self) -> bool:
        """Whether ranks read the table `features`, else `images`."""
        return self.settings.cache_features == "on"


def train(settings: TrainSettings) -> TrainResult:
    """Train a model on the table `images` and publish its folder.

    Raises:
        InputError: when the table `images` is missing, too small, of one class, of mixed sizes or
            without masks.
        SplitLeakageError: when several splits hold a patient, copies or near duplicates.
        SettingsError: when the features would exceed the budget.
        OutputError: when the model folder exists, or cannot be written.
        PlatformError: when there are fewer slots than ranks.
        AlreadyRunningError: when another run trains the same model.
        EagleError: when ranks were lost more often than `max_restarts`, or end with different
            weights.
    """
    require_extra("train")
    run = Run.begin("train", settings)
    storage, path = resolve(settings.warehouse)
    if not storage.exists(path):
        raise InputError(f"`warehouse` {settings.warehouse}: no such folder")
    check_target(settings.model, settings.overwrite)
    with open_session("train", settings.warehouse, TRAINING_CONF) as spark:
        place = join(absolute_uri(settings.warehouse), "cxr", "_staging", run.run_id)
        with temporary_folder(place) as staging:
            return _train(spark, run, staging)


def _train(spark: SparkSession, run: Run[TrainSettings], staging: str) -> TrainResult:
    settings, stages, warehouse = run.settings, StageTimer(run), Warehouse(spark)
    inputs = _read_inputs(spark, warehouse, settings)
    stages.end("start")
    backbone = _prepare_backbone(warehouse, inputs)
    stages.end("backbone")
    table, snapshot, computed = _prepare_features(warehouse, inputs, backbone)
    stages.end("features")
    plan = _plan(spark, inputs, backbone, warehouse.files(table, snapshot), staging)
    failpoint("before write")
    resume = settings.resume or is_second_attempt(spark)
    with (
        # Another run of this training would delete its checkpoints, or overwrite them.
        lease(f"{plan.checkpoints}.lease", run.run_id) as held,
        tempfile.TemporaryDirectory(prefix="eagle-bundle-") as name,
    ):
        # Again: an earlier holder of the lease may have published there.
        check_target(settings.model, settings.overwrite)
        outcome = train_ranks(spark, plan, settings.max_restarts, resume, held.check)
        records = read_records(outcome.staging, inputs.ranks)
        stages.end("ranks")
        folder = Path(name, "model")
        engines = _build_model(folder, inputs, plan, warehouse, outcome.staging, records)
        stages.end("model")
        groups, images = inputs.data.source_class_counts, inputs.images
        left_out = leave_sources_out(spark, plan, groups, images) if plan.cached else Metrics()
        metadata = _describe_model(run, inputs, plan, records, engines, left_out)
        failpoint("written")
        sealed, engine = _evaluate(folder, metadata, inputs, plan, warehouse)
        stages.end("evaluation")
        failpoint("audited")
        result = _make_result(
            run, inputs, plan, computed, outcome, records, sealed, engine, stages.seconds
        )
        held.check()
        metrics = {**sealed.metrics, "left_out": sealed.left_out}
        with run_record(warehouse, run, result, records, metrics):
            failpoint("publishing")
            publish_bundle(folder, settings.model, settings.overwrite)
        delete_checkpoints(plan)
    return result


def _read_inputs(spark: SparkSession, warehouse: Warehouse, settings: TrainSettings) -> _Inputs:
    """Read the present snapshot of `images`, and check all that needs no backbone."""
    ranks = check_ranks(spark, settings.ranks)
    data = read_training_data(warehouse)
    images = warehouse.read_images(data.snapshot).select(*SPLIT_COLUMNS).toPandas()
    audit_splits(
        images,
        f"{IMAGES.full_name} in {settings.warehouse}",
        "A model is not tested on its training images: run preprocess on this input again",
    )
    check_batch_fits(data.count_masked("train"), ranks, settings.batch_size)
    cached = settings.cache_features == "on"
    if not cached and (unmasked := data.mask_counts.get(("train", False))):
        raise InputError(
            f"`cache_features` off needs a mask for every image of the train split; {unmasked} "
            "have none: train with it on"
        )
    feature_cost = estimate_cost(data.mask_counts, data.size) if cached else FeatureCost(0, 0)
    feature_cost.check_budget(settings.feature_budget)
    return _Inputs(settings, ranks, data, images, feature_cost)


def _prepare_backbone(warehouse: Warehouse, inputs: _Inputs) -> Backbone:
    settings, data = inputs.settings, inputs.data
    examples = partial(sample_pixels, warehouse, data.snapshot, "train", CALIBRATION_IMAGES)
    int8 = settings.precision == "int8" or (settings.precision == "auto" and has_int8())
    return prepare_backbone(
        *(settings.warehouse, settings.weights, data.size, settings.seed),
        examples if int8 else None,
    )


def _prepare_features(
    warehouse: Warehouse, inputs: _Inputs, backbone: Backbone
) -> tuple[Table, int, int]:
    """Compute missing features if they are cached.

    Returns:
        Table and snapshot that ranks read, and the number of rows computed.
    """
    _log.info("features: %s rows, %.2f GB", f"{inputs.cost.rows:,}", inputs.cost.gigabytes)
    if not inputs.cached:
        return IMAGES, inputs.data.snapshot, 0
    return FEATURES, *ensure_features(warehouse, inputs.data.snapshot, backbone)


def _plan(
    spark: SparkSession, inputs: _Inputs, backbone: Backbone, files: list[DataFile], staging: str
) -> TrainPlan:
    settings, data, threads = inputs.settings, inputs.data, threads_per_task(spark)
    key = _checkpoint_key(inputs, backbone, threads)
    return TrainPlan(
        training=_plan_split("train", inputs, backbone, files),
        validation=_plan_split("val", inputs, backbone, files),
        cached=inputs.cached,
        classes=data.classes,
        row_weights=class_source_weights(data.source_class_counts),
        backbone=backbone,
        batch=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        staging=staging,
        checkpoints=checkpoint_folder(absolute_uri(settings.warehouse), key),
        threads=threads,
        use_gpu=int(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0,
    )


def _plan_split(
    split: str, inputs: _Inputs, backbone: Backbone, files: Sequence[DataFile]
) -> SplitRows:
    """Plan the rows of a split; files of `features` by bucket, of `images` by name."""
    selected = [file for file in files if file.partition["split"] == split]
    if inputs.cached:
        of_backbone = [file for file in selected if file.partition["backbone"] == backbone.digest]
        selected = sorted(of_backbone, key=lambda file: file.partition["bucket"])
    masked = [file.uri for file in selected if not inputs.cached or file.partition["masked"]]
    columns = FEATURE_COLUMNS if inputs.cached else PIXEL_COLUMNS
    return SplitRows(
        plan_rows(read_footers(masked, columns), inputs.ranks, inputs.settings.batch_size),
        share_rows(read_footers([file.uri for file in selected], LABEL_COLUMNS), inputs.ranks),
    )


def _checkpoint_key(inputs: _Inputs, backbone: Backbone, threads: int) -> dict[str, object]:
    """Return all that the weights depend on, and the model URI; `--resume` needs an equal key."""
    settings = inputs.settings
    key = settings.model_dump() | {"ranks": inputs.ranks, "model": absolute_uri(settings.model)}
    for name in ("warehouse", "overwrite", "resume", "max_restarts", "feature_budget"):
        del key[name]
    return key | {
        "backbone": backbone.digest,
        "threads": threads,
        "snapshot": inputs.data.snapshot,
        "versions": versions(),
    }


def _build_model(
    folder: Path,
    inputs: _Inputs,
    plan: TrainPlan,
    warehouse: Warehouse,
    staging: str,
    records: Sequence[RankRecord],
) -> dict[str, GateResult]:
    """Write the network, the logs and the exports; return the gate's result of each engine."""
    folder.mkdir()
    assemble_network(folder, plan, inputs.settings.weights, staging)
    write_logs(folder / "logs", staging, records)
    return export_engines(folder, inputs.data, plan, warehouse)


def _describe_model(
    run: Run[TrainSettings],
    inputs: _Inputs,
    plan: TrainPlan,
    records: Sequence[RankRecord],
    engines: Mapping[str, GateResult],
    left_out: Metrics,
) -> ModelMetadata:
    """Return the metadata of the model before its evaluation."""
    settings, data = inputs.settings, inputs.data
    return ModelMetadata(
        classes=data.classes,
        input=InputContract(
            channels=1,
            dtype="uint8",
            range=[0, 255],
            normalisation=NORMALISATION,
            size=data.size,
        ),
        mask_threshold=MASK_THRESHOLD,
        review=ReviewThresholds(confidence=UNREACHABLE_CONFIDENCE, novelty={}, mask={}),
        engines=engines,
        versions=versions(),
        training=Training(
            table=IMAGES.full_name,
            warehouse=absolute_uri(settings.warehouse),
            snapshot_id=data.snapshot,
            images=data.counts,
            sources=data.sources,
            audited=len(inputs.images),
            settings=settings.model_dump() | {"ranks": inputs.ranks},
            backbone=plan.backbone.digest,
            temperature=records[0]["temperature"],
            epochs=records[0]["epochs"],
        ),
        run_id=run.run_id,
        left_out=left_out,
    )


def _evaluate(
    folder: Path, metadata: ModelMetadata, inputs: _Inputs, plan: TrainPlan, warehouse: Warehouse
) -> tuple[ModelMetadata, str]:
    """Evaluate and seal the model; delete features that no training uses any more.

    Returns:
        The metadata of the sealed model, and its best engine.
    """
    bundle, engine = evaluate_and_seal(folder, metadata, inputs.data, plan, warehouse, plan.staging)
    if plan.cached:
        expire_features(warehouse, plan.backbone)
    return bundle.metadata, engine


def _make_result(
    run: Run[TrainSettings],
    inputs: _Inputs,
    plan: TrainPlan,
    computed: int,
    outcome: TrainingOutcome,
    records: Sequence[RankRecord],
    metadata: ModelMetadata,
    engine: str,
    stage_seconds: Mapping[str, float],
) -> TrainResult:
    test, val = metadata.metrics["test"], metadata.metrics["val"]
    return TrainResult(
        accuracy=test.accuracy,
        dice=test.dice,
        ece=test.ece,
        val_accuracy=val.accuracy,
        val_dice=val.dice,
        val_ece=val.ece,
        accuracy_by_source=_accuracy_by_source(test),
        accuracy_left_out=_accuracy_by_source(metadata.left_out),
        review=metadata.review.to_dict(),
        flagged=metadata.flagged,
        epochs=plan.epochs,
        steps=plan.steps * plan.epochs,
        ranks=inputs.ranks,
        restarts=len(outcome.restart_reasons),
        restart_reasons=outcome.restart_reasons,
        resumed_from=outcome.resumed_from,
        images=inputs.data.counts,
        backbone=plan.backbone.digest,
        precision=plan.backbone.precision,
        feature_rows=inputs.cost.rows,
        feature_gb=round(inputs.cost.gigabytes, 3),
        features_computed=computed,
        temperature=records[0]["temperature"],
        nodes=tuple(sorted({record["node"] for record in records})),
        rank_peak_memory_mb=tuple(round(record["peak_rss"] / 2**20) for record in records),
        weights_digests=tuple(record["weights_digest"] for record in records),
        rank_seconds=max(record["seconds"] for record in records),
        stage_seconds=stage_seconds,
        engine=engine,
        model_id=metadata.model_id,
        snapshot_id=inputs.data.snapshot,
        run_id=run.run_id,
        seconds=run.seconds,
    )


def _accuracy_by_source(metrics: Metrics) -> dict[str, float | None]:
    return {source: group.accuracy for source, group in metrics.by_source.items()}
