"""Ghost batch normalisation (Hoffer et al. 2017, arXiv:1705.08741) over pairs of rows.

The pairs of a batch do not depend on the number of ranks, so ranks need no synchronisation within a
step: synchronising three layers took longer than the rest of the step. Dice equals that of
normalisation over whole batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

PAIR = 2  # rows


def pair_normalisation(**options: object) -> keras.layers.Layer:
    """Return a `keras.layers.BatchNormalization` that normalises each pair of rows in training.

    A batch must hold a multiple of `PAIR` rows. Moving mean and variance are those of this rank.
    Inference is that of `BatchNormalization`.

    Args:
        options: of `keras.layers.BatchNormalization`.
    """
    import keras
    from keras import ops

    class PairNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # untyped
        def call(
            self,
            inputs: keras.KerasTensor,
            training: bool | None = None,
            mask: keras.KerasTensor | None = None,
        ) -> keras.KerasTensor:
            if not training:
                return super().call(inputs, training=False, mask=mask)
            height, width, channels = inputs.shape[1:]
            pairs = ops.reshape(inputs, (-1, PAIR, height, width, channels))
            mean, variance = ops.moments(pairs, (1, 2, 3), keepdims=True)
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                batch_mean = ops.mean(value, axis=(0, 1, 2, 3))
                moving.assign(moving * self.momentum + batch_mean * (1.0 - self.momentum))
            scale = self.gamma * ops.rsqrt(variance + self.epsilon)
            normalised = (pairs - mean) * scale + self.beta
            return ops.reshape(normalised, (-1, height, width, channels))

    return PairNormalization(**options)
