"""Losses per row; weighting and averaging over the global batch is the loop's."""

from __future__ import annotations

from typing import Any


def mask_loss(masks: Any, probabilities: Any) -> Any:
    """Return binary cross-entropy (mean over pixels) plus one minus soft Dice of each row, `(n,)`.

    Soft Dice as in Milletari et al., V-Net (2016), without squares; one pixel is added above and
    below, so that two empty masks count as equal.

    Args:
        masks: float, 0 or 1, `(n, size, size, 1)`.
        probabilities: `(n, size, size, 1)`.
    """
    from keras import ops

    axes = (1, 2, 3)
    entropy = ops.mean(ops.binary_crossentropy(masks, probabilities), axis=axes)
    overlap = ops.sum(masks * probabilities, axis=axes)
    total = ops.sum(masks, axis=axes) + ops.sum(probabilities, axis=axes)
    return entropy + 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)


def dice(masks: Any, probabilities: Any, threshold: float) -> Any:
    """Return the Dice coefficient of each row, `(n,)`, after the threshold; both empty is 1."""
    from keras import ops

    axes = (1, 2, 3)
    found = ops.cast(probabilities >= threshold, masks.dtype)
    overlap = ops.sum(masks * found, axis=axes)
    total = ops.sum(masks, axis=axes) + ops.sum(found, axis=axes)
    return ops.where(total > 0, 2.0 * overlap / ops.maximum(total, 1.0), 1.0)
