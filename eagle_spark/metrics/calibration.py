"""What a confidence is worth, and which one is enough; pure functions of outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.evaluation import label_arrays
from eagle_spark.metrics.scores import confidence_bins, expected_calibration_error

if TYPE_CHECKING:
    import pandas as pd

WANTED = 0.98  # share of right answers among those that need no review for their confidence
NEVER_SURE = 1.01  # a confidence that no image reaches
# Of fewer images a share says nothing: the one most sure image, if right, would be 100 % of them.
LEAST_SURE = 10
POINTS = 100  # of a risk-coverage curve, about
_TINY = 1e-30

Floats = NDArray[np.float64]


def calibration(
    outcomes: pd.DataFrame, classes: tuple[str, ...], temperature: float
) -> dict[str, Any]:
    """Return what the confidence of outcomes is worth; empty without outcomes.

    `ece_before` and `ece`, `reliability_before` and `reliability` (see `reliability_curve`): before
    and after the logits were divided by the temperature; `risk_coverage` (see `risk_coverage`);
    `coverage_98`, the largest share of most confident images of which 0.98 are right.

    Args:
        outcomes: as `summarise` takes them; probabilities are those after.
    """
    if not len(outcomes):
        return {}
    labels, after = label_arrays(outcomes, classes)
    before = softened(after, temperature)
    confidence, right = _confidence(labels, after)
    reached = np.mean(confidence >= enough_confidence(outcomes, classes))
    return {
        "ece_before": expected_calibration_error(labels, before),
        "ece": expected_calibration_error(labels, after),
        "reliability_before": reliability_curve(*_confidence(labels, before)),
        "reliability": reliability_curve(confidence, right),
        "risk_coverage": risk_coverage(confidence, right),
        "coverage_98": float(reached),
    }


def softened(probabilities: NDArray[Any], temperature: float) -> Floats:
    """Return what `probabilities` `(n, classes)` were before their logits were divided by it."""
    logits = temperature * np.log(np.maximum(probabilities.astype(np.float64), _TINY))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.asarray(shares, np.float64)


def reliability_curve(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Return of each bin of the ECE that holds any: `images`, mean `confidence`, `accuracy`."""
    counts, sure, true = (
        np.bincount(confidence_bins(confidence), weights)
        for weights in (None, confidence, right.astype(np.float64))
    )
    held = counts > 0
    return {
        "images": counts[held].tolist(),
        "confidence": (sure[held] / counts[held]).tolist(),
        "accuracy": (true[held] / counts[held]).tolist(),
    }


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Return `coverage`, shares of the most confident images, and `risk`, the share wrong of each.

    El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification (2010).
    """
    reached, wrong = _most_confident(confidence, ~right)
    some = np.unique(np.linspace(0, len(reached) - 1, POINTS).round().astype(int))
    return {
        "coverage": (reached[some] / len(confidence)).tolist(),
        "risk": wrong[some].tolist(),
    }


def enough_confidence(
    outcomes: pd.DataFrame, classes: tuple[str, ...], wanted: float = WANTED
) -> float:
    """Return the confidence below which a person has to look.

    The lowest confidence such that those images of `outcomes` that reach it are right in at least
    `wanted` of the cases; `NEVER_SURE` where there is none, or fewer than `LEAST_SURE` images reach
    it.
    """
    if not len(outcomes):
        return NEVER_SURE
    confidence, right = _confidence(*label_arrays(outcomes, classes))
    reached, share = _most_confident(confidence, right)
    enough = reached[(share >= wanted) & (reached >= LEAST_SURE)]
    return float(-np.sort(-confidence)[enough[-1] - 1]) if len(enough) else NEVER_SURE


def flagged_shares(flags: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return the share of images that each reason flags, `(n,)` each, and `any` of them."""
    together = {"any": np.any(list(flags.values()), axis=0), **flags}
    return {name: float(np.mean(found)) for name, found in together.items() if len(found)}


def _confidence(
    labels: NDArray[np.int64], probabilities: NDArray[Any]
) -> tuple[Floats, NDArray[np.bool_]]:
    confidence = probabilities.max(axis=1).astype(np.float64)
    return confidence, probabilities.argmax(axis=1) == labels


def _most_confident(
    confidence: Floats, counted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Floats]:
    """Return numbers of most confident images, and the share of them that counts.

    Equally confident images come together.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    reached = last + 1
    return reached, np.cumsum(counted[order])[last] / reached
