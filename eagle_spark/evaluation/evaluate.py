"""The evaluate job: metrics of a model on a labelled folder, compared with its metadata."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from eagle_spark.datasets.split import find_conflicting_labels
from eagle_spark.errors import Reason
from eagle_spark.evaluation.examine import EvaluationWorker, evaluate_images
from eagle_spark.evaluation.labelled import list_labelled_images, parse_class_mapping
from eagle_spark.io import absolute_uri
from eagle_spark.metrics.drift import NUMERIC_COLUMNS, PSI_ALERT, Reference
from eagle_spark.metrics.evaluation import Metrics, summarise
from eagle_spark.metrics.record import Interval
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.engines import PREDICTION_IMPORTS, choose_engine
from eagle_spark.model.predictor import REJECTED, SCORED, ModelRef
from eagle_spark.model.review import Flag
from eagle_spark.scoring.monitor import measure_drift
from eagle_spark.settings import EvaluateSettings
from eagle_spark.spark.progress import watch_rows
from eagle_spark.spark.session import open_session, threads_per_task
from eagle_spark.tables.runs import Run

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

WORKER_IMPORTS = (*PREDICTION_IMPORTS, "eagle_spark.evaluation.examine")
NOVELTY_ALERT = 0.25  # share of images flagged as novel; a few hundredths on the training sources

_log = logging.getLogger(__name__)

ClassMetrics = Mapping[str, float | None]  # class -> metric


@dataclass(frozen=True)
class EvaluateResult:
    """Result of the evaluate job; see `GroupMetrics` for the metrics.

    `listed == images + rejected`.

    Attributes:
        listed: number of listed files.
        rejected: number of rejected files.
        by_reason: `Reason` -> number of rejected files.
        images: number of scored images, to which all metrics refer.
        intervals: values of `Intervals` that are set.
        accuracy_by_source: source -> accuracy.
        wrong: wrong predictions.
        wrong_flagged: wrong predictions that have `needs_review`.
        right_flagged: correct predictions that have `needs_review`.
        wrong_flagged_by: `Flag` -> wrong predictions; an image may have several flags.
        right_flagged_by: `Flag` -> correct predictions.
        card_accuracy: accuracy of the test split in the model's metadata.
        card_interval: 95 % confidence interval of `card_accuracy`.
        drift: largest of `drift_by`.
        drift_by: column -> population stability index against the validation split.
        out_of_range: whether a criterion applies; None if no criterion applies and the model has
            no `card_interval`.
        out_of_range_by: the criteria that apply, as text.
        engine: engine that computed the predictions.
        model_id: id of the model.
        run_id: id of this run.
        seconds: wall time.
    """

    listed: int
    rejected: int
    by_reason: dict[str, int]
    images: int
    patients: int
    ece: float | None
    confusion: Sequence[Sequence[int]]
    counted: Mapping[str, int]
    accuracy: float | None
    balanced_accuracy: float | None
    recall_by_class: ClassMetrics
    precision_by_class: ClassMetrics
    f1_by_class: ClassMetrics
    auroc_by_class: ClassMetrics
    dice: float | None
    iou: float | None
    hausdorff95: float | None
    intervals: Mapping[str, object]
    accuracy_by_source: dict[str, float | None]
    wrong: int
    wrong_flagged: int
    right_flagged: int
    wrong_flagged_by: dict[str, int]
    right_flagged_by: dict[str, int]
    card_accuracy: float | None
    card_interval: Interval | None
    drift: float | None
    drift_by: dict[str, float]
    out_of_range: bool | None
    out_of_range_by: list[str]
    engine: str
    model_id: str
    run_id: str
    seconds: float


class _Comparison(TypedDict):
    card_accuracy: float | None
    card_interval: Interval | None
    drift: float | None
    drift_by: dict[str, float]
    out_of_range: bool | None
    out_of_range_by: list[str]


def evaluate(settings: EvaluateSettings) -> EvaluateResult:
    """Run the job; it writes nothing.

    Raises:
        ModelError: when the model folder is incomplete or altered.
        InputError: when the folder cannot be listed, or has no class folder.
        SettingsError: when `classes` has a class that the model does not have.
    """
    run = Run.begin("evaluate", settings)
    bundle = open_bundle(settings.model)
    metadata = bundle.metadata
    engine = choose_engine(bundle, "auto")
    class_mapping = parse_class_mapping(settings.classes, metadata.classes)
    candidates = list_labelled_images(settings.input, class_mapping)
    with open_session("evaluate", None, imports=WORKER_IMPORTS) as spark:
        model = ModelRef(
            absolute_uri(settings.model), metadata.model_id, engine, threads_per_task(spark)
        )
        accepted = [candidate for candidate in candidates if candidate.reason is None]
        with watch_rows(spark, "evaluate", len(accepted)) as count_rows:
            rows = evaluate_images(spark, accepted, count_rows(EvaluationWorker(model)))
        conflicts = find_conflicting_labels(
            rows["image_id"].fillna(rows["path"]).tolist(), rows["truth"].tolist()
        )
        rows.loc[conflicts, ["status", "reason"]] = [REJECTED, str(Reason.CONFLICTING_LABELS)]
        scored = rows[rows["status"] == SCORED]
        drift = _compute_drift(spark, scored, metadata.reference)
    reasons = Counter(
        str(candidate.reason) for candidate in candidates if candidate.reason is not None
    )
    reasons.update(rows.loc[rows["status"] != SCORED, "reason"])
    comparison = _compare_with_test_split(scored, drift, metadata.test_metrics)
    for criterion in comparison["out_of_range_by"]:
        _log.warning("out of the range of the model's metadata: %s", criterion)
    truth = scored.drop(columns="label").rename(columns={"truth": "label"})
    metrics = summarise(truth, metadata.classes)
    wrong = (scored["label"] != scored["truth"]).to_numpy(bool)
    flagged = scored["needs_review"].to_numpy(bool)
    return EvaluateResult(
        listed=len(candidates),
        rejected=len(candidates) - len(scored),
        by_reason=dict(sorted(reasons.items())),
        images=metrics.images,
        patients=metrics.patients,
        ece=metrics.ece,
        confusion=metrics.confusion,
        counted=metrics.counted,
        accuracy=metrics.accuracy,
        balanced_accuracy=metrics.balanced_accuracy,
        recall_by_class=metrics.recall_by_class,
        precision_by_class=metrics.precision_by_class,
        f1_by_class=metrics.f1_by_class,
        auroc_by_class=metrics.auroc_by_class,
        dice=metrics.dice,
        iou=metrics.iou,
        hausdorff95=metrics.hausdorff95,
        intervals=metrics.intervals.to_dict(),
        accuracy_by_source={name: group.accuracy for name, group in metrics.by_source.items()},
        wrong=int(wrong.sum()),
        wrong_flagged=int((wrong & flagged).sum()),
        right_flagged=int((~wrong & flagged).sum()),
        wrong_flagged_by=_count_flags(scored[wrong]),
        right_flagged_by=_count_flags(scored[~wrong]),
        **comparison,
        engine=engine,
        model_id=metadata.model_id,
        run_id=run.run_id,
        seconds=run.seconds,
    )


def _count_flags(rows: pd.DataFrame) -> dict[str, int]:
    flags = rows["review_reasons"].to_list()
    return {str(flag): sum(1 for row in flags if flag in row) for flag in Flag}


def _compute_drift(
    spark: SparkSession, scored: pd.DataFrame, reference: Reference
) -> dict[str, float]:
    if not reference.images or scored.empty:
        return {}
    columns = ["path", "label", *NUMERIC_COLUMNS]
    return measure_drift(spark.createDataFrame(scored[columns]), reference)


def _compare_with_test_split(
    scored: pd.DataFrame, drift: Mapping[str, float], test: Metrics
) -> _Comparison:
    """Return the criteria of accuracy, novelty and drift by which the images are out of range."""
    interval = test.intervals.accuracy
    criteria = [
        f"{name}: population stability index (PSI) {value} against the validation split; "
        f"alert above {PSI_ALERT}"
        for name, value in drift.items()
        if value > PSI_ALERT
    ]
    novel = float((scored["novelty"] > 1).mean()) if len(scored) else 0.0
    if novel > NOVELTY_ALERT:
        criteria.insert(
            0,
            f"{novel:.0%} of the images are out-of-distribution (novelty above 1); "
            f"alert above {NOVELTY_ALERT:.0%}",
        )
    accuracy = float((scored["label"] == scored["truth"]).mean()) if len(scored) else None
    if interval and accuracy is not None and accuracy < interval[0]:
        criteria.insert(
            0,
            f"accuracy {accuracy:.3f} is below {interval[0]:.3f}, the lower end of the test "
            "split's 95 % confidence interval",
        )
    return {
        "card_accuracy": test.accuracy,
        "card_interval": interval,
        "drift": max(drift.values(), default=None),
        "drift_by": dict(drift),
        "out_of_range": bool(criteria) if criteria or interval else None,
        "out_of_range_by": criteria,
    }
