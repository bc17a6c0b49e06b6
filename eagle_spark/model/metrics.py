"""What a model is worth, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def accuracy(labels: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]) -> float:
    """Return the share of equal labels; both `(n,)`, n > 0."""
    return float(np.mean(labels == predicted))


def dice(masks: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Dice coefficient of each row, `(n,)`; two empty masks count as 1.

    Args:
        masks: `(n, height, width)`.
        predicted: the same shape.
    """
    overlap = np.logical_and(masks, predicted).sum(axis=(1, 2))
    total = masks.sum(axis=(1, 2)) + predicted.sum(axis=(1, 2))
    return np.where(total > 0, 2.0 * overlap / np.maximum(total, 1), 1.0)


def expected_calibration_error(
    labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], bins: int = 15
) -> float:
    """Return the ECE of Guo et al. (2017): bins of equal width over the highest probability.

    The mean over bins, weighted by rows, of the distance between accuracy and mean confidence. A
    bin holds its upper edge, not its lower one.

    Args:
        labels: class numbers, `(n,)`, n > 0.
        probabilities: `(n, classes)`.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    number = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gaps = np.bincount(number, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def confusion_matrix(
    labels: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Return counts `(classes, classes)`: rows are the true class, columns the predicted one."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def recall_per_class(confusion: NDArray[np.int64]) -> list[float | None]:
    """Return the recall of each class, None for a class without rows."""
    totals = confusion.sum(axis=1)
    return [
        float(confusion[i, i] / total) if total else None for i, total in enumerate(totals.tolist())
    ]
