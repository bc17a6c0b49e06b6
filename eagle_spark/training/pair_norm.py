"""Batch normalisation whose statistics in training are those of two rows at a time.

The pairs of a batch are the same however many ranks share it, so that ranks need not ask each other
in the middle of a step: synchronising three layers took longer than the rest of the step. Known as
ghost batch normalisation (Hoffer et al. 2017, arXiv:1705.08741); Dice is that of whole batches.
"""

from __future__ import annotations

from typing import Any

PAIR = 2  # rows


def pair_normalisation(**options: Any) -> Any:
    """Return a `keras.layers.BatchNormalization` that does so; afterwards it is like any other.

    A batch must hold a multiple of `PAIR` rows. Its moving mean and variance are this rank's own.
    """
    import keras
    from keras import ops

    class PairNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # untyped
        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            if not training:
                return super().call(inputs, training=False, mask=mask)
            height, width, channels = inputs.shape[1:]
            pairs = ops.reshape(inputs, (-1, PAIR, height, width, channels))
            mean, variance = ops.moments(pairs, (1, 2, 3), keepdims=True)
            for moving, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
                now = ops.mean(found, axis=(0, 1, 2, 3))
                moving.assign(moving * self.momentum + now * (1.0 - self.momentum))
            scale = self.gamma * ops.rsqrt(variance + self.epsilon)
            normalised = (pairs - mean) * scale + self.beta
            return ops.reshape(normalised, (-1, height, width, channels))

    return PairNormalization(**options)
