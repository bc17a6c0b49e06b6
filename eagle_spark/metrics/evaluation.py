"""All that is said of a model on labelled images, with intervals: pure functions of outcomes.

An outcome is a row: `source`, `patient` (qualified by source; null where not known), `label`,
`probabilities` (in the order of the classes); `dice`, `iou` and `hausdorff95`, null without a mask.

Intervals are 95 % percentile bootstrap intervals (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13) over patients: all images of a patient are drawn together, and an image
of no known patient is one of its own. A figure of 0 or 1 has an interval of no width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.scores import OVERLAP, confusion_matrix, expected_calibration_error

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
DRAWS = 1000
LEVEL = 0.95
BY_CLASS = ("recall", "precision", "f1", "auroc")
_CELLS_AT_ONCE = 1 << 21  # draws x images that are held
_SEED = 7

Floats = NDArray[np.float64]
Row = tuple[str, str, str, float, float | None, float | None, int]


def summarise(outcomes: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the figures of all outcomes, and `by_source` those of each source alone.

    `images`, `patients`, `accuracy`, `balanced_accuracy`, `ece`; `recall_by_class`,
    `precision_by_class`, `f1_by_class`, `auroc_by_class` (one class against the rest);
    `confusion` (rows true, columns predicted); `dice`, `iou`, `hausdorff95` (pixels), means over
    the images that `counted` gives the number of; `intervals`, name -> [low, high], and for names
    by class class -> [low, high]. None stands where nothing counts.

    Images with a mask count for Dice and IoU, which are 0 where no lung was found; for the
    Hausdorff distance only those where some was.
    """
    sources = {
        str(name): _summary(rows, classes) for name, rows in outcomes.groupby("source", sort=True)
    }
    return _summary(outcomes, classes) | {"by_source": sources}


def label_arrays(
    outcomes: pd.DataFrame, classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return class numbers `(n,)` and probabilities `(n, classes)`, n > 0."""
    labels = np.array([classes.index(label) for label in outcomes["label"]], np.int64)
    return labels, np.stack(outcomes["probabilities"].to_list())


def metric_rows(summary: Mapping[str, Any]) -> Iterator[Row]:
    """Yield (source, class, name, value, low, high, n) of every figure of `summarise`.

    `n` is the number of images that the figure is over. A cell of the confusion matrix is called
    `predicted:<class>`.
    """
    for source, found in [(ALL, summary), *summary["by_source"].items()]:
        if not found["images"]:
            continue
        names, confusion = list(found["recall_by_class"]), np.array(found["confusion"])
        intervals = found["intervals"]
        for name in ("accuracy", "balanced_accuracy", "ece", *OVERLAP):
            counted = found["counted"].get(name, found["images"])
            low, high = intervals.get(name) or (None, None)
            if found[name] is not None:
                yield source, ALL, name, found[name], low, high, counted
        of_class = {
            "precision": confusion.sum(axis=0).tolist(),
            "auroc": [found["images"]] * len(names),
        }
        for name in BY_CLASS:
            counts = of_class.get(name, confusion.sum(axis=1).tolist())
            for label, count in zip(names, counts, strict=True):
                value = found[f"{name}_by_class"][label]
                low, high = intervals[f"{name}_by_class"][label] or (None, None)
                if value is not None:
                    yield source, label, name, value, low, high, count
        for label, cells in zip(names, confusion.tolist(), strict=True):
            for other, count in zip(names, cells, strict=True):
                name = f"predicted:{other}"
                yield source, label, name, float(count), None, None, sum(cells)


def _summary(outcomes: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    if not len(outcomes):
        plain = ("accuracy", "balanced_accuracy", "ece", *OVERLAP)
        by_class = [f"{name}_by_class" for name in BY_CLASS]
        return {"images": 0} | dict.fromkeys(plain) | {name: {} for name in by_class}
    labels, probabilities = label_arrays(outcomes, classes)
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    groups = _groups(outcomes)
    measured = {name: outcomes[name].to_numpy(np.float64) for name in OVERLAP}
    measures = [
        _label_measure(labels, probabilities),
        _mean_measure(np.stack(list(measured.values()))),
    ]
    values, low, high = _with_intervals(measures, groups)
    found: dict[str, Any] = {
        "images": len(outcomes),
        "patients": int(groups.max()) + 1,
        "ece": expected_calibration_error(labels, probabilities),
        "confusion": confusion.tolist(),
        "counted": {name: int(np.isfinite(column).sum()) for name, column in measured.items()},
    }
    intervals: dict[str, Any] = {}
    columns = iter(zip(map(_number, values), map(_pair, low, high), strict=True))
    for name in ("accuracy", "balanced_accuracy"):
        found[name], intervals[name] = next(columns)
    for name in (f"{name}_by_class" for name in BY_CLASS):
        pairs = {label: next(columns) for label in classes}
        found[name] = {label: value for label, (value, _) in pairs.items()}
        intervals[name] = {label: ends for label, (_, ends) in pairs.items()}
    for name in OVERLAP:
        found[name], intervals[name] = next(columns)
    return found | {"intervals": intervals}


def _groups(outcomes: pd.DataFrame) -> NDArray[np.int64]:
    """Return the patient of each row as a number from 0; every row of none has its own."""
    import pandas as pd

    codes = pd.factorize(outcomes["patient"])[0].astype(np.int64)
    unknown = np.flatnonzero(codes < 0)
    codes[unknown] = codes.max(initial=-1) + 1 + np.arange(len(unknown))
    return codes


Measure = Callable[[Floats], Floats]  # weights (draws, images) -> figures (draws, figures), or NaN


def _with_intervals(
    measures: list[Measure], groups: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Return the figures of all rows, and the ends of their intervals; NaN where there is none."""
    draw, patients = np.random.default_rng(_SEED), int(groups.max()) + 1

    def figures(weights: Floats) -> Floats:
        return np.concatenate([measure(weights) for measure in measures], axis=1)

    values = figures(np.ones((1, len(groups))))[0]
    found, step = [], max(1, _CELLS_AT_ONCE // len(groups))
    for first in range(0, DRAWS, step):
        times = draw.multinomial(
            patients, np.full(patients, 1 / patients), min(step, DRAWS - first)
        )
        found.append(figures(times[:, groups].astype(np.float64)))
    drawn = np.concatenate(found)
    low, high = np.full((2, len(values)), np.nan)
    for at in np.flatnonzero(np.isfinite(values)).tolist() if patients > 1 else []:
        sound = drawn[np.isfinite(drawn[:, at]), at]
        low[at], high[at] = np.quantile(sound, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return values, low, high


def _label_measure(labels: NDArray[np.int64], probabilities: NDArray[Any]) -> Measure:
    """Accuracy, balanced accuracy; then recall, precision, F1 and AUROC, each of every class."""
    classes = probabilities.shape[1]
    cells = np.eye(classes**2)[labels * classes + probabilities.argmax(axis=1)]
    ranked = [_auroc(labels == number, probabilities[:, number]) for number in range(classes)]

    def measure(weights: Floats) -> Floats:
        confusion = (weights @ cells).reshape(-1, classes, classes)
        right = np.diagonal(confusion, axis1=1, axis2=2)
        true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        recall = _ratio(right, true)
        balanced = _ratio(np.nansum(recall, axis=1), np.isfinite(recall).sum(axis=1))
        accuracy = _ratio(right.sum(axis=1), weights.sum(axis=1))
        auroc = np.stack([one(weights) for one in ranked], axis=1)
        by_class = (recall, _ratio(right, predicted), _ratio(2 * right, true + predicted), auroc)
        return np.concatenate([np.stack((accuracy, balanced), axis=1), *by_class], axis=1)

    return measure


def _auroc(positive: NDArray[np.bool_], scores: NDArray[Any]) -> Measure:
    """The area under the ROC curve: the share of pairs in the right order, ties counting half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))

    def measure(weights: Floats) -> Floats:
        ordered = weights[:, order]
        of_positive = np.add.reduceat(ordered * positive[order], starts, axis=1)
        of_others = np.add.reduceat(ordered * ~positive[order], starts, axis=1)
        below = np.cumsum(of_others, axis=1) - of_others / 2
        pairs = of_positive.sum(axis=1) * of_others.sum(axis=1)
        return _ratio((of_positive * below).sum(axis=1), pairs)

    return measure


def _mean_measure(columns: Floats) -> Measure:
    """Mean of each row of `columns` over the images where it is a number."""
    counts, filled = np.isfinite(columns), np.nan_to_num(columns)
    return lambda weights: _ratio(weights @ filled.T, weights @ counts.T)


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    found: Floats = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _pair(low: float, high: float) -> list[float] | None:
    return [float(low), float(high)] if np.isfinite(low) else None
