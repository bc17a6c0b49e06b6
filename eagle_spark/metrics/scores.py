"""What a model is worth, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

OVERLAP = ("dice", "iou", "hausdorff95")
BINS = 15  # of a confidence


def dice(masks: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Dice coefficient of each row, `(n,)`; two empty masks count as 1.

    Args:
        masks: `(n, height, width)`.
        predicted: the same shape.
    """
    overlap = np.logical_and(masks, predicted).sum(axis=(1, 2))
    total = masks.sum(axis=(1, 2)) + predicted.sum(axis=(1, 2))
    return np.where(total > 0, 2.0 * overlap / np.maximum(total, 1), 1.0)


def iou(masks: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return intersection over union of each row, `(n,)`; arguments and rule as in `dice`."""
    overlap = np.logical_and(masks, predicted).sum(axis=(1, 2))
    union = np.logical_or(masks, predicted).sum(axis=(1, 2))
    return np.where(union > 0, overlap / np.maximum(union, 1), 1.0)


def hausdorff95(mask: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Return the 95 % Hausdorff distance in pixels, NaN where either mask is empty.

    For each edge pixel of one mask the distance to the nearest edge pixel of the other; the larger
    of the 95th percentiles of both directions. An edge pixel is one with a neighbour (of four)
    outside the mask or outside the image. Both masks are `(height, width)`.
    """
    from scipy.spatial import KDTree

    if not (mask.any() and predicted.any()):
        return float("nan")
    one, other = np.argwhere(_edge(mask)), np.argwhere(_edge(predicted))
    distances = KDTree(other).query(one)[0], KDTree(one).query(other)[0]
    return float(max(np.percentile(found, 95) for found in distances))


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = np.pad(mask, 1)
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask & ~inner


def overlap_figures(
    mask: NDArray[np.bool_] | None, predicted: NDArray[np.bool_]
) -> dict[str, float]:
    """Return `dice`, `iou` and `hausdorff95` of one image, NaN without a mask."""
    if mask is None:
        return dict.fromkeys(OVERLAP, float("nan"))
    return {
        "dice": float(dice(mask[None], predicted[None])[0]),
        "iou": float(iou(mask[None], predicted[None])[0]),
        "hausdorff95": hausdorff95(mask, predicted),
    }


def expected_calibration_error(
    labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], bins: int = BINS
) -> float:
    """Return the ECE of Guo et al. (2017): bins of equal width over the highest probability.

    The mean over bins, weighted by rows, of the distance between accuracy and mean confidence.

    Args:
        labels: class numbers, `(n,)`, n > 0.
        probabilities: `(n, classes)`.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    gaps = np.bincount(confidence_bins(confidence, bins), weights=right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def confidence_bins(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of equal width, from 0, of each confidence; it holds its upper edge."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    found: NDArray[np.int64] = np.searchsorted(edges, confidence, side="left") - 1
    return np.clip(found, 0, bins - 1)


def confusion_matrix(
    labels: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int
) -> NDArray[np.int64]:
    """Return counts `(classes, classes)`: rows are the true class, columns the predicted one."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)
