"""The class head: one hidden layer on standardised statistics, trained by all ranks together.

Each step draws its rows and dropouts, seeded by its number, from all rows of all ranks. Every rank
computes the gradient of the drawn rows that it holds, and the strategy sums the gradients. So the
head does not depend on the number of ranks, except for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.network import LABEL_UNITS
from eagle_spark.training.feed import Samples

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Vector = NDArray[np.float64]
AllReduce = Callable[[Vector], Vector]  # sum over ranks, the same bits on all of them

BATCH_ROWS = 512
FIT_EPOCHS = 20  # over the rows of all ranks
MIN_STEPS = 200
WARM_UP = 0.1  # share of all steps
# AdamW: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019).
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1  # of the kernels
STATISTICS_DROPOUT, UNITS_DROPOUT = 0.2, 0.5  # shares

MIN_VARIANCE = 1e-6  # statistics with variance below this carry no signal and are zeroed
BLOCK_ROWS = 4096
LOG_TEMPERATURE_BOUNDS = np.log(0.05), np.log(20.0)
TEMPERATURE_GRID = 201  # temperatures per search
# Prior of the log temperature, centred at 0: without it, a few validation rows that are all right
# push the temperature to its bound.
LOG_TEMPERATURE_PRIOR_STD = 0.5


@dataclass(frozen=True)
class LabelHead:
    """Logits are `max(statistics @ kernel + bias, 0) @ top_kernel + top_bias`; all float32.

    Attributes:
        kernel: `(statistics, units)`.
        bias: `(units,)`.
        top_kernel: `(units, classes)`.
        top_bias: `(classes,)`.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    top_kernel: NDArray[np.float32]
    top_bias: NDArray[np.float32]

    def logits(self, statistics: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return `(n, classes)`."""
        units = np.maximum(statistics @ self.kernel + self.bias, 0)
        logits: Vector = (units @ self.top_kernel + self.top_bias).astype(np.float64)
        return logits

    def with_temperature(self, temperature: float) -> LabelHead:
        """Return the head whose logits are divided by the temperature."""
        return replace(
            self,
            top_kernel=(self.top_kernel / temperature).astype(np.float32),
            top_bias=(self.top_bias / temperature).astype(np.float32),
        )


class LabelBatch(NamedTuple):
    """The drawn rows of a step that one rank holds.

    Attributes:
        statistics: float32 `(n, statistics)`, standardised, after dropout.
        unit_factors: float32 `(n, LABEL_UNITS)`, of the hidden units' dropout.
        labels: int64 `(n,)`, class numbers.
        weights: float32 `(n,)`; their mean over all rows of all ranks is 1.
    """

    statistics: NDArray[np.float32]
    unit_factors: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]


class StandardisedRows:
    """One rank's training rows with weighted mean 0 and variance 1 over all ranks.

    Every rank makes the same calls.
    """

    def __init__(self, rows: Samples, rank: int, ranks: int, reduce: AllReduce, seed: int) -> None:
        """Standardise the rows in place."""
        self.samples, self._seed = rows, seed
        weights, values = rows.weights, rows.statistics
        sums = reduce(np.concatenate([[weights.sum()], _weighted_sum(weights, values)]))
        total, self._mean = float(sums[0]), sums[1:] / sums[0]
        values -= self._mean.astype(np.float32)
        variance = reduce(_weighted_sum(weights, values, power=2)) / total
        self._scale = np.where(variance > MIN_VARIANCE, np.sqrt(variance), np.inf)
        values /= self._scale.astype(np.float32)
        counts = reduce(np.where(np.arange(ranks) == rank, len(values), 0.0)).astype(int)
        self._first, self._count = int(counts[:rank].sum()), int(counts.sum())
        self._weights = (weights * (self._count / total)).astype(np.float32)

    def draw(self, step: int) -> LabelBatch:
        """Draw the rows and dropouts of a step, with replacement, and return this rank's part."""
        rng = np.random.default_rng((self._seed, step))
        drawn = rng.integers(self._count, size=BATCH_ROWS)
        statistics = self.samples.statistics
        statistics_kept = (
            rng.random((BATCH_ROWS, statistics.shape[1]), np.float32) >= STATISTICS_DROPOUT
        )
        units_kept = rng.random((BATCH_ROWS, LABEL_UNITS), np.float32) >= UNITS_DROPOUT
        local = (drawn >= self._first) & (drawn < self._first + len(statistics))
        rows = drawn[local] - self._first
        return LabelBatch(
            statistics[rows] * (statistics_kept[local] / np.float32(1 - STATISTICS_DROPOUT)),
            units_kept[local] / np.float32(1 - UNITS_DROPOUT),
            self.samples.labels[rows],
            self._weights[rows],
        )

    def unstandardise(self, head: LabelHead) -> LabelHead:
        """Return the head for statistics that are not standardised."""
        kernel = head.kernel / self._scale[:, None]
        bias = head.bias - self._mean @ kernel
        return replace(head, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))


class LabelTrainer:
    """The class head within the heads, its optimizer and its compiled step.

    To be constructed within the strategy's scope. While it trains, the head takes standardised
    statistics.
    """

    def __init__(self, heads: keras.Model, steps: int, strategy: tf.distribute.Strategy) -> None:
        """Take `heads` from `build_heads`, to be trained for `steps` steps in all."""
        import keras
        import tensorflow as tf

        self._units, self._label = heads.get_layer("label_units"), heads.get_layer("label")
        self._steps = steps
        self.optimizer = keras.optimizers.AdamW(
            build_schedule(steps, PEAK_LEARNING_RATE), weight_decay=WEIGHT_DECAY
        )
        self.optimizer.exclude_from_weight_decay(var_names=["bias"])
        self.optimizer.build(self._variables)
        self._run = tf.function(
            lambda batch: strategy.run(self._step, (batch,)), reduce_retracing=True
        )

    def advance(
        self, rows: StandardisedRows, share: float, tick: Callable[[], object] = lambda: None
    ) -> None:
        """Run steps until `share` of all steps are done; `tick` is called after each."""
        done = int(self.optimizer.iterations.numpy())
        for step in range(done + 1, int(self._steps * share) + 1):
            self._run(rows.draw(step))
            tick()

    def head(self) -> LabelHead:
        """Return the head as it is."""
        return LabelHead(*self._units.get_weights(), *self._label.get_weights())

    def set_head(self, head: LabelHead) -> None:
        self._units.set_weights([head.kernel, head.bias])
        self._label.set_weights([head.top_kernel, head.top_bias])

    @property
    def _variables(self) -> list[keras.Variable]:
        return [*self._units.trainable_variables, *self._label.trainable_variables]

    def _step(self, batch: LabelBatch) -> None:
        import keras
        import tensorflow as tf

        with tf.GradientTape() as tape:
            logits = self._label(self._units(batch.statistics) * batch.unit_factors)
            losses = keras.losses.sparse_categorical_crossentropy(
                batch.labels, logits, from_logits=True
            )
            # The optimizer sums gradients over ranks.
            loss = tf.reduce_sum(losses * batch.weights) / BATCH_ROWS
        self.optimizer.apply(tape.gradient(loss, self._variables), self._variables)


def build_schedule(steps: int, peak: float) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate that rises linearly to `peak`, then falls to 0 as a cosine.

    Args:
        steps: of the whole training.
        peak: learning rate after the first tenth of the steps.
    """
    import keras

    warm_up = max(1, int(steps * WARM_UP))
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, steps - warm_up),
        warmup_target=peak,
        warmup_steps=warm_up,
    )


def count_label_steps(rows: int) -> int:
    """Return the steps of a training of the class head.

    Args:
        rows: training rows of all ranks.
    """
    return max(MIN_STEPS, FIT_EPOCHS * rows // BATCH_ROWS)


def fit_temperature(head: LabelHead, rows: Samples, reduce: AllReduce) -> float:
    """Return the temperature of the smallest loss over `rows` of all ranks; 1 without rows.

    Guo et al., On Calibration of Modern Neural Networks (2017), with a prior. The loss is the sum
    of the rows' negative log probabilities.
    """
    logits, truth = head.logits(rows.statistics), (np.arange(len(rows.labels)), rows.labels)
    low, high = LOG_TEMPERATURE_BOUNDS
    for _ in range(2):  # the second search is around the best of the first
        grid = np.linspace(low, high, TEMPERATURE_GRID)
        nll = [-_log_softmax(logits / value)[truth].sum() for value in np.exp(grid)]
        penalty = (grid / LOG_TEMPERATURE_PRIOR_STD) ** 2 / 2
        best = grid[np.argmin(reduce(np.array(nll)) + penalty)]
        low, high = (
            best - (high - low) / TEMPERATURE_GRID,
            best + (high - low) / TEMPERATURE_GRID,
        )
    return float(np.exp(best))


def compute_metrics(head: LabelHead, rows: Samples, reduce: AllReduce) -> dict[str, float]:
    """Return mean loss and accuracy over `rows` of all ranks; empty without rows."""
    sums = np.zeros(3)
    for block in _blocks(len(rows.labels)):
        log = _log_softmax(head.logits(rows.statistics[block]))
        labels = rows.labels[block]
        loss = -log[np.arange(len(log)), labels].sum()
        sums += len(log), loss, (log.argmax(axis=1) == labels).sum()
    sums = reduce(sums)
    if not sums[0]:
        return {}
    return {"classification_loss": sums[1] / sums[0], "accuracy": sums[2] / sums[0]}


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(first, first + BLOCK_ROWS) for first in range(0, rows, BLOCK_ROWS))


def _weighted_sum(weights: Vector, values: NDArray[np.float32], power: int = 1) -> Vector:
    """Return the weighted sum over rows in float64, without a copy of all values."""
    total = np.zeros(values.shape[1])
    for block in _blocks(len(values)):
        total += weights[block] @ values[block].astype(np.float64) ** power
    return total


def _log_softmax(logits: Vector) -> Vector:
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    result = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(result, np.float64)
