"""Losses and metrics per row; the training loop weights and averages them over the global batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def mask_loss(masks: keras.KerasTensor, probabilities: keras.KerasTensor) -> keras.KerasTensor:
    """Return binary cross-entropy (mean over pixels) plus one minus soft Dice of each row, `(n,)`.

    Soft Dice as in Milletari et al., V-Net (2016), without squares; one pixel is added to numerator
    and denominator, so that two empty masks count as equal.

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


def dice(
    masks: keras.KerasTensor, probabilities: keras.KerasTensor, threshold: float
) -> keras.KerasTensor:
    """Return the Dice coefficient of each row, `(n,)`, after the threshold; both empty is 1.

    Args:
        masks: float, 0 or 1, `(n, size, size, 1)`.
        probabilities: `(n, size, size, 1)`.
    """
    from keras import ops

    axes = (1, 2, 3)
    predicted = ops.cast(probabilities >= threshold, masks.dtype)
    overlap = ops.sum(masks * predicted, axis=axes)
    total = ops.sum(masks, axis=axes) + ops.sum(predicted, axis=axes)
    return ops.where(total > 0, 2.0 * overlap / ops.maximum(total, 1.0), 1.0)
