"""Calibration of confidence, and the confidence threshold for review; functions of outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.evaluation import extract_label_arrays
from eagle_spark.metrics.record import Record
from eagle_spark.metrics.scores import (
    Probabilities,
    assign_confidence_bins,
    expected_calibration_error,
)

if TYPE_CHECKING:
    import pandas as pd

TARGET_ACCURACY = 0.98  # of predictions whose confidence requires no review
UNREACHABLE_CONFIDENCE = 1.01  # above the confidence of every image
# The accuracy of fewer images is not informative: of a single correct image it is 100 %.
MIN_CONFIDENT_IMAGES = 10
MAX_CURVE_POINTS = 100  # of a risk-coverage curve
_MIN_PROBABILITY = 1e-30

Floats = NDArray[np.float64]


class ReliabilityCurve(Record):
    """Number of images, mean confidence and accuracy of each non-empty bin of the ECE.

    Attributes:
        images: number of images of each bin.
        confidence: mean confidence of each bin.
        accuracy: share of correct labels of each bin.
    """

    images: Sequence[int]
    confidence: Sequence[float]
    accuracy: Sequence[float]


class RiskCoverage(Record):
    """Shares of the most confident images, and the error rate of each share.

    El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification (2010).

    Attributes:
        coverage: shares of the most confident images.
        risk: error rate of each share.
    """

    coverage: Sequence[float]
    risk: Sequence[float]


class Calibration(Record):
    """Calibration of confidence before and after temperature scaling.

    Attributes:
        ece_before: expected calibration error before temperature scaling.
        ece: expected calibration error after temperature scaling.
        reliability_before: reliability curve before temperature scaling.
        reliability: reliability curve after temperature scaling.
        risk_coverage: error rates of the most confident images.
        coverage_98: largest share of most confident images with an accuracy of 0.98.
    """

    ece_before: float
    ece: float
    reliability_before: ReliabilityCurve
    reliability: ReliabilityCurve
    risk_coverage: RiskCoverage
    coverage_98: float


def compute_calibration(
    outcomes: pd.DataFrame, classes: tuple[str, ...], temperature: float
) -> Calibration | None:
    """Compute the calibration of confidence before and after temperature scaling.

    Args:
        outcomes: as for `summarise`; probabilities after temperature scaling.
        classes: in the order of the probabilities.
        temperature: divisor of the logits.

    Returns:
        None without outcomes.
    """
    if not len(outcomes):
        return None
    labels, after = extract_label_arrays(outcomes, classes)
    before = undo_temperature(after, temperature)
    confidence, correct = _compute_confidence(labels, after)
    coverage = np.mean(confidence >= confidence_threshold(outcomes, classes))
    return Calibration(
        ece_before=expected_calibration_error(labels, before),
        ece=expected_calibration_error(labels, after),
        reliability_before=compute_reliability_curve(*_compute_confidence(labels, before)),
        reliability=compute_reliability_curve(confidence, correct),
        risk_coverage=compute_risk_coverage(confidence, correct),
        coverage_98=float(coverage),
    )


def undo_temperature(probabilities: Probabilities, temperature: float) -> Floats:
    """Return probabilities `(n, classes)` as they were before temperature scaling."""
    logits = temperature * np.log(np.maximum(probabilities.astype(np.float64), _MIN_PROBABILITY))
    unscaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    unscaled /= unscaled.sum(axis=1, keepdims=True)
    return np.asarray(unscaled, np.float64)


def compute_reliability_curve(confidence: Floats, correct: NDArray[np.bool_]) -> ReliabilityCurve:
    """Return the reliability of predictions, `(n,)` each."""
    images, confidence_sum, correct_sum = (
        np.bincount(assign_confidence_bins(confidence), weights)
        for weights in (None, confidence, correct.astype(np.float64))
    )
    filled = images > 0
    return ReliabilityCurve(
        images=images[filled].tolist(),
        confidence=(confidence_sum[filled] / images[filled]).tolist(),
        accuracy=(correct_sum[filled] / images[filled]).tolist(),
    )


def compute_risk_coverage(confidence: Floats, correct: NDArray[np.bool_]) -> RiskCoverage:
    """Return the risk of predictions, `(n,)`, at `MAX_CURVE_POINTS` coverages at most."""
    counts, error_rates = _rate_most_confident(confidence, ~correct)
    points = np.unique(np.linspace(0, len(counts) - 1, MAX_CURVE_POINTS).round().astype(int))
    return RiskCoverage(
        coverage=(counts[points] / len(confidence)).tolist(), risk=error_rates[points].tolist()
    )


def confidence_threshold(
    outcomes: pd.DataFrame,
    classes: tuple[str, ...],
    target_accuracy: float = TARGET_ACCURACY,
) -> float:
    """Return the confidence below which an image needs review.

    This is the lowest confidence at or above which at least `target_accuracy` of the outcomes are
    correct; `UNREACHABLE_CONFIDENCE` without such a confidence, or where fewer than
    `MIN_CONFIDENT_IMAGES` images reach it.
    """
    if not len(outcomes):
        return UNREACHABLE_CONFIDENCE
    confidence, correct = _compute_confidence(*extract_label_arrays(outcomes, classes))
    counts, accuracies = _rate_most_confident(confidence, correct)
    accepted = counts[(accuracies >= target_accuracy) & (counts >= MIN_CONFIDENT_IMAGES)]
    if not len(accepted):
        return UNREACHABLE_CONFIDENCE
    return float(-np.sort(-confidence)[accepted[-1] - 1])


def compute_flagged_shares(flags: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return the share of flagged images for each reason, and for `any` of them.

    Args:
        flags: reason -> `(n,)`.
    """
    with_any = {"any": np.any(list(flags.values()), axis=0), **flags}
    return {name: float(np.mean(flagged)) for name, flagged in with_any.items() if len(flagged)}


def _compute_confidence(
    labels: NDArray[np.int64], probabilities: Probabilities
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the confidence `(n,)` of each prediction, and whether it is correct."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    return confidence, probabilities.argmax(axis=1) == labels


def _rate_most_confident(
    confidence: Floats, selected: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Floats]:
    """Return numbers of most confident images, and the share of them that is selected.

    Equally confident images are never separated.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    counts = last + 1
    return counts, np.cumsum(selected[order])[last] / counts
