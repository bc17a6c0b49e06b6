"""The result of the train job, and its rows in the tables `epochs`, `metrics` and `runs`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from eagle_spark.metrics.evaluation import Metrics, iter_metric_rows
from eagle_spark.model.bundle import was_written_by
from eagle_spark.settings import TrainSettings
from eagle_spark.tables import EPOCHS, METRICS, RUNS, Run, Warehouse
from eagle_spark.training.ranks.rank import RankRecord

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """The figures of one training; those without a prefix are of the test split.

    Attributes:
        accuracy: share of correct labels; None, as every other metric, if the split has no image
            for it.
        dice: mean Dice coefficient of the lung masks.
        ece: expected calibration error.
        val_accuracy: `accuracy` of the validation split.
        val_dice: `dice` of the validation split.
        val_ece: `ece` of the validation split.
        accuracy_by_source: source -> accuracy.
        accuracy_left_out: source -> accuracy of a class head that was trained without the source.
        review: thresholds beyond which a prediction needs review, see `ReviewThresholds`.
        flagged: split -> reason -> share of images that need review.
        epochs: passes over the train split.
        steps: steps of all epochs.
        ranks: number of training processes.
        restarts: number of restarts after a rank died or hung.
        restart_reasons: reason of each restart.
        resumed_from: steps in the checkpoint of an earlier driver; 0 without one.
        images: split -> class -> number of images.
        backbone: SHA-256 of the backbone.
        precision: precision of the frozen backbone.
        feature_rows: rows of `features` that the training needs.
        feature_gb: size of the rows that `feature_rows` counts, GB.
        features_computed: rows of `features` that this run computed.
        temperature: temperature of the class head.
        nodes: names of the machines that ran ranks.
        rank_peak_memory_mb: peak memory of each rank, MiB.
        weights_digests: SHA-256 of the weights of each rank.
        rank_seconds: wall time of the slowest rank.
        stage_seconds: stage -> wall time.
        engine: engine that computed the predictions.
        model_id: id of the model.
        snapshot_id: snapshot of the table `images` that the run read.
        run_id: id of this run.
        seconds: wall time.
    """

    accuracy: float | None
    dice: float | None
    ece: float | None
    val_accuracy: float | None
    val_dice: float | None
    val_ece: float | None
    accuracy_by_source: Mapping[str, float | None]
    accuracy_left_out: Mapping[str, float | None]
    review: Mapping[str, object]
    flagged: Mapping[str, Mapping[str, float]]
    epochs: int
    steps: int
    ranks: int
    restarts: int
    restart_reasons: tuple[str, ...]
    resumed_from: int
    images: Mapping[str, Mapping[str, int]]
    backbone: str
    precision: str
    feature_rows: int
    feature_gb: float
    features_computed: int
    temperature: float
    nodes: tuple[str, ...]
    rank_peak_memory_mb: tuple[int, ...]
    weights_digests: tuple[str, ...]
    rank_seconds: float
    stage_seconds: Mapping[str, float]
    engine: str
    model_id: str
    snapshot_id: int
    run_id: str
    seconds: float


@contextmanager
def run_record(
    warehouse: Warehouse,
    run: Run[TrainSettings],
    result: TrainResult,
    records: Sequence[RankRecord],
    metrics: Mapping[str, Metrics],
) -> Iterator[None]:
    """Write the rows of the model that the block publishes; delete them if it does not.

    Rows are written first: a folder published without them would never get any, as a training whose
    model folder exists is refused. A killed run may leave rows without a folder; every folder names
    its own run.

    Args:
        records: of every rank.
        metrics: split -> metrics.
    """
    try:
        _write_epochs(warehouse, run.run_id, result.model_id, records)
        _write_metrics(warehouse, run.run_id, result.model_id, metrics)
        warehouse.record_run(run.record(result, model_id=result.model_id), result.snapshot_id)
        yield
    except BaseException:
        # A signal may come when the folder is already there.
        for table in (
            () if was_written_by(run.settings.model, run.run_id) else (EPOCHS, METRICS, RUNS)
        ):
            try:
                warehouse.delete(table, f"run_id = '{run.run_id}'")
            except Exception as error:  # the first error counts
                _log.warning(
                    "%s keeps rows of %s, which published no model: %s",
                    *(table.full_name, run.run_id, str(error).splitlines()[0]),
                )
        raise


def _write_epochs(
    warehouse: Warehouse, run_id: str, model_id: str, records: Sequence[RankRecord]
) -> None:
    rows = [
        (
            *(run_id, model_id, record["rank"], number),
            {name: float(value) for name, value in epoch.items() if value is not None},
        )
        for record in records
        for number, epoch in enumerate(record["epochs"], 1)
    ]
    warehouse.create_or_migrate(EPOCHS)
    warehouse.append(EPOCHS, warehouse.spark.createDataFrame(rows, EPOCHS.schema()))


def _write_metrics(
    warehouse: Warehouse, run_id: str, model_id: str, metrics: Mapping[str, Metrics]
) -> None:
    rows = [
        (run_id, model_id, split, *row)
        for split, summary in metrics.items()
        for row in iter_metric_rows(summary)
    ]
    warehouse.create_or_migrate(METRICS)
    warehouse.append(METRICS, warehouse.spark.createDataFrame(rows, METRICS.schema()))
