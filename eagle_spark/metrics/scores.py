"""Metrics of classification and segmentation in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer]
Probabilities = NDArray[np.floating]

OVERLAP_METRICS = ("dice", "iou", "hausdorff95")
CONFIDENCE_BINS = 15


def dice(masks: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the Dice coefficient of each image, `(n,)`; two empty masks count as 1.

    Args:
        masks: `(n, height, width)`.
        predicted: the same shape.
    """
    overlap = np.logical_and(masks, predicted).sum(axis=(1, 2))
    total = masks.sum(axis=(1, 2)) + predicted.sum(axis=(1, 2))
    return np.where(total > 0, 2.0 * overlap / np.maximum(total, 1), 1.0)


def iou(masks: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the intersection over union of each image, `(n,)`; empty masks as in `dice`."""
    overlap = np.logical_and(masks, predicted).sum(axis=(1, 2))
    union = np.logical_or(masks, predicted).sum(axis=(1, 2))
    return np.where(union > 0, overlap / np.maximum(union, 1), 1.0)


def hausdorff95(mask: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Return the 95 % Hausdorff distance in pixels; NaN where either mask is empty.

    The distances are those from each edge pixel of one mask to the nearest edge pixel of the other;
    the larger of the 95th percentiles of both directions is returned. An edge pixel has a neighbour
    (of four) outside the mask or outside the image.

    Args:
        mask: `(height, width)`.
        predicted: the same shape.
    """
    from scipy.spatial import KDTree

    if not (mask.any() and predicted.any()):
        return float("nan")
    true_edge, predicted_edge = np.argwhere(_find_edge(mask)), np.argwhere(_find_edge(predicted))
    to_predicted = KDTree(predicted_edge).query(true_edge)[0]
    to_true = KDTree(true_edge).query(predicted_edge)[0]
    return float(max(np.percentile(distances, 95) for distances in (to_predicted, to_true)))


def _find_edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def compute_overlap_metrics(
    mask: NDArray[np.bool_] | None, predicted: NDArray[np.bool_]
) -> dict[str, float]:
    """Return `OVERLAP_METRICS` of one image, masks `(height, width)`; NaN without a mask."""
    if mask is None:
        return dict.fromkeys(OVERLAP_METRICS, float("nan"))
    return {
        "dice": float(dice(mask[None], predicted[None])[0]),
        "iou": float(iou(mask[None], predicted[None])[0]),
        "hausdorff95": hausdorff95(mask, predicted),
    }


def expected_calibration_error(
    labels: Integers, probabilities: Probabilities, bins: int = CONFIDENCE_BINS
) -> float:
    """Return the expected calibration error (ECE) of Guo et al. (2017).

    The mean over bins of the highest probability, weighted by images, of the distance between
    accuracy and mean confidence.

    Args:
        labels: class indices, `(n,)`, n > 0.
        probabilities: `(n, classes)`.
        bins: number of bins of equal width.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    gaps = np.bincount(assign_confidence_bins(confidence, bins), weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def assign_confidence_bins(
    confidence: NDArray[np.float64], bins: int = CONFIDENCE_BINS
) -> NDArray[np.int64]:
    """Return the bin of equal width, from 0, of each confidence; bins include their upper edge."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    indices: NDArray[np.int64] = np.searchsorted(edges, confidence, side="left") - 1
    return np.clip(indices, 0, bins - 1)


def confusion_matrix(labels: Integers, predicted: Integers, classes: int) -> NDArray[np.int64]:
    """Return counts `(classes, classes)`: rows are the true class, columns the predicted one."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)
