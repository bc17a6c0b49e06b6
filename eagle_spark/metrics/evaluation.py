"""Metrics of a model on labelled images with confidence intervals; functions of outcomes.

An outcome is a row: `source`, `patient` (qualified by source; null if unknown), `label`,
`probabilities` (in the order of the classes); `dice`, `iou` and `hausdorff95`, null without a mask.

Intervals are 95 % percentile bootstrap intervals (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13) over patients: all images of a patient are drawn together, and an image
without known patient is drawn alone. The interval of a metric of 0 or 1 has zero width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.record import Interval, Record
from eagle_spark.metrics.scores import (
    OVERLAP_METRICS,
    Probabilities,
    confusion_matrix,
    expected_calibration_error,
)

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
BOOTSTRAP_DRAWS = 1000
CONFIDENCE_LEVEL = 0.95
CLASS_METRICS = ("recall", "precision", "f1", "auroc")
_MAX_CELLS = 1 << 21  # draws x images in memory
_SEED = 7

_IMAGE_METRICS = ("accuracy", "balanced_accuracy", "ece", *OVERLAP_METRICS)

Floats = NDArray[np.float64]
MetricRow = tuple[str, str, str, float, float | None, float | None, int]


class Intervals(Record):
    """95 % confidence intervals of metrics; the keys are those of `GroupMetrics`.

    An interval is None if its metric is undefined, or if all images are of one patient.
    """

    accuracy: Interval | None = None
    balanced_accuracy: Interval | None = None
    recall_by_class: Mapping[str, Interval | None] = {}
    precision_by_class: Mapping[str, Interval | None] = {}
    f1_by_class: Mapping[str, Interval | None] = {}
    auroc_by_class: Mapping[str, Interval | None] = {}
    dice: Interval | None = None
    iou: Interval | None = None
    hausdorff95: Interval | None = None


class GroupMetrics(Record):
    """Metrics of a group of images; a metric over no images is None.

    Attributes:
        images: number of images.
        patients: number of patients; an image without a known patient counts as one.
        ece: expected calibration error.
        confusion: number of images; rows true, columns predicted.
        counted: `dice`, `iou` and `hausdorff95` -> number of images in the mean.
        accuracy: share of correct labels.
        balanced_accuracy: mean recall of the classes.
        recall_by_class: class -> recall.
        precision_by_class: class -> precision.
        f1_by_class: class -> F1.
        auroc_by_class: class -> area under the ROC curve, one class against the rest.
        dice: mean Dice coefficient of the lung masks, over images with a mask; 0 where the
            predicted mask is empty.
        iou: mean intersection over union of the lung masks, over the images of `dice`.
        hausdorff95: mean 95 % Hausdorff distance of the lung masks in pixels, over images where
            neither mask is empty.
        intervals: 95 % confidence intervals of the metrics.
    """

    images: int = 0
    patients: int = 0
    ece: float | None = None
    confusion: Sequence[Sequence[int]] = ()
    counted: Mapping[str, int] = {}
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    recall_by_class: Mapping[str, float | None] = {}
    precision_by_class: Mapping[str, float | None] = {}
    f1_by_class: Mapping[str, float | None] = {}
    auroc_by_class: Mapping[str, float | None] = {}
    dice: float | None = None
    iou: float | None = None
    hausdorff95: float | None = None
    intervals: Intervals = Intervals()

    def select(self, name: str) -> tuple[float | None, Interval | None]:
        """Return a metric of all classes, by its name, and its interval."""
        return getattr(self, name), getattr(self.intervals, name, None)

    def select_class(self, name: str, label: str) -> tuple[float | None, Interval | None]:
        """Return one of `CLASS_METRICS` of a class, and its interval."""
        values: Mapping[str, float | None] = getattr(self, f"{name}_by_class")
        intervals: Mapping[str, Interval | None] = getattr(self.intervals, f"{name}_by_class")
        return values.get(label), intervals.get(label)


class Metrics(GroupMetrics):
    """Metrics of all images, and of each source.

    Attributes:
        by_source: source -> metrics.
    """

    by_source: Mapping[str, GroupMetrics] = {}


def summarise(outcomes: pd.DataFrame, classes: tuple[str, ...]) -> Metrics:
    """Compute the metrics of all outcomes and of each source.

    Args:
        outcomes: one row per image.
        classes: in the order of the probabilities.
    """
    sources = {
        str(name): _summarise_rows(rows, classes)
        for name, rows in outcomes.groupby("source", sort=True)
    }
    return Metrics.model_validate(_summarise_rows(outcomes, classes) | {"by_source": sources})


def extract_label_arrays(
    outcomes: pd.DataFrame, classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], Probabilities]:
    """Return class indices `(n,)` and probabilities `(n, classes)`, n > 0."""
    labels = np.array([classes.index(label) for label in outcomes["label"]], np.int64)
    return labels, np.stack(outcomes["probabilities"].to_list())


def iter_metric_rows(metrics: Metrics) -> Iterator[MetricRow]:
    """Yield (source, class, name, value, low, high, n) for every metric of `summarise`.

    `n` is the number of images of the metric. A cell of the confusion matrix has the name
    `predicted:<class>`.
    """
    yield from _iter_group_rows(ALL, metrics)
    for source, group in metrics.by_source.items():
        yield from _iter_group_rows(source, group)


def _iter_group_rows(source: str, group: GroupMetrics) -> Iterator[MetricRow]:
    if not group.images:
        return
    labels, confusion = list(group.recall_by_class), np.array(group.confusion)
    for name in _IMAGE_METRICS:
        value, interval = group.select(name)
        if value is not None:
            count = group.counted.get(name, group.images)
            yield source, ALL, name, value, *(interval or (None, None)), count
    class_counts = {
        "precision": confusion.sum(axis=0).tolist(),
        "auroc": [group.images] * len(labels),
    }
    for name in CLASS_METRICS:
        counts = class_counts.get(name, confusion.sum(axis=1).tolist())
        for label, count in zip(labels, counts, strict=True):
            value, interval = group.select_class(name, label)
            if value is not None:
                yield source, label, name, value, *(interval or (None, None)), count
    for label, cells in zip(labels, confusion.tolist(), strict=True):
        for predicted, count in zip(labels, cells, strict=True):
            name = f"predicted:{predicted}"
            yield source, label, name, float(count), None, None, sum(cells)


def _summarise_rows(outcomes: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, object]:
    """Compute the values of `GroupMetrics`."""
    if not len(outcomes):
        by_class = [f"{name}_by_class" for name in CLASS_METRICS]
        return {"images": 0} | dict.fromkeys(_IMAGE_METRICS) | {name: {} for name in by_class}
    labels, probabilities = extract_label_arrays(outcomes, classes)
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    patients = _number_patients(outcomes)
    overlap = {name: outcomes[name].to_numpy(np.float64) for name in OVERLAP_METRICS}
    statistics = [
        _create_label_statistic(labels, probabilities),
        _create_mean_statistic(np.stack(list(overlap.values()))),
    ]
    values, low, high = _bootstrap(statistics, patients)
    metrics: dict[str, object] = {
        "images": len(outcomes),
        "patients": int(patients.max()) + 1,
        "ece": expected_calibration_error(labels, probabilities),
        "confusion": confusion.tolist(),
        "counted": {name: int(np.isfinite(column).sum()) for name, column in overlap.items()},
    }
    intervals: dict[str, object] = {}
    estimates = iter(zip(map(_to_optional, values), map(_to_interval, low, high), strict=True))
    for name in ("accuracy", "balanced_accuracy"):
        metrics[name], intervals[name] = next(estimates)
    for name in (f"{name}_by_class" for name in CLASS_METRICS):
        by_label = {label: next(estimates) for label in classes}
        metrics[name] = {label: value for label, (value, _) in by_label.items()}
        intervals[name] = {label: interval for label, (_, interval) in by_label.items()}
    for name in OVERLAP_METRICS:
        metrics[name], intervals[name] = next(estimates)
    return metrics | {"intervals": intervals}


def _number_patients(outcomes: pd.DataFrame) -> NDArray[np.int64]:
    """Return the patient of each row as a number from 0; a row without patient has its own."""
    import pandas as pd

    codes = pd.factorize(outcomes["patient"])[0].astype(np.int64)
    unknown = np.flatnonzero(codes < 0)
    codes[unknown] = codes.max(initial=-1) + 1 + np.arange(len(unknown))
    return codes


# Weights (draws, images) -> values (draws, values); NaN where undefined.
Statistic = Callable[[Floats], Floats]


def _bootstrap(
    statistics: list[Statistic], patients: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Return the values of all rows and the bounds of their intervals, `(values,)` each.

    Undefined values and bounds are NaN.
    """
    generator, patient_count = np.random.default_rng(_SEED), int(patients.max()) + 1

    def compute(weights: Floats) -> Floats:
        return np.concatenate([statistic(weights) for statistic in statistics], axis=1)

    values = compute(np.ones((1, len(patients))))[0]
    batches, step = [], max(1, _MAX_CELLS // len(patients))
    uniform = np.full(patient_count, 1 / patient_count)
    for first in range(0, BOOTSTRAP_DRAWS, step):
        draws = min(step, BOOTSTRAP_DRAWS - first)
        times_drawn = generator.multinomial(patient_count, uniform, draws)
        batches.append(compute(times_drawn[:, patients].astype(np.float64)))
    drawn = np.concatenate(batches)
    low, high = np.full((2, len(values)), np.nan)
    quantiles = [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2]
    for index in np.flatnonzero(np.isfinite(values)).tolist() if patient_count > 1 else []:
        finite = drawn[np.isfinite(drawn[:, index]), index]
        low[index], high[index] = np.quantile(finite, quantiles)
    return values, low, high


def _create_label_statistic(labels: NDArray[np.int64], probabilities: Probabilities) -> Statistic:
    """Accuracy, balanced accuracy; then recall, precision, F1 and AUROC of every class."""
    classes = probabilities.shape[1]
    cells = np.eye(classes**2)[labels * classes + probabilities.argmax(axis=1)]
    aurocs = [_create_auroc(labels == index, probabilities[:, index]) for index in range(classes)]

    def compute(weights: Floats) -> Floats:
        confusion = (weights @ cells).reshape(-1, classes, classes)
        correct = np.diagonal(confusion, axis1=1, axis2=2)
        true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        recall = _divide(correct, true)
        balanced = _divide(np.nansum(recall, axis=1), np.isfinite(recall).sum(axis=1))
        accuracy = _divide(correct.sum(axis=1), weights.sum(axis=1))
        auroc = np.stack([statistic(weights) for statistic in aurocs], axis=1)
        precision, f1 = _divide(correct, predicted), _divide(2 * correct, true + predicted)
        averages = np.stack((accuracy, balanced), axis=1)
        return np.concatenate([averages, recall, precision, f1, auroc], axis=1)

    return compute


def _create_auroc(positive: NDArray[np.bool_], scores: Probabilities) -> Statistic:
    """Area under the ROC curve: the share of pairs in the right order; ties count half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))

    def compute(weights: Floats) -> Floats:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * positive[order], starts, axis=1)
        negatives = np.add.reduceat(ordered * ~positive[order], starts, axis=1)
        negatives_below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return _divide((positives * negatives_below).sum(axis=1), pairs)

    return compute


def _create_mean_statistic(columns: Floats) -> Statistic:
    """Mean of each of `columns` `(values, images)` over images with a finite value."""
    is_finite, filled = np.isfinite(columns), np.nan_to_num(columns)
    return lambda weights: _divide(weights @ filled.T, weights @ is_finite.T)


def _divide(numerator: Floats, denominator: NDArray[np.number]) -> Floats:
    """Divide elementwise; NaN where the denominator is 0."""
    quotient: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _to_optional(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _to_interval(low: float, high: float) -> Interval | None:
    return (float(low), float(high)) if np.isfinite(low) else None
