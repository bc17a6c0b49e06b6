"""The class head: one hidden layer on standardised statistics, fitted by all ranks together.

Each step draws its rows and dropouts, seeded by its number, from all rows of all ranks. Every rank
computes the gradient of the drawn rows that it holds, and the gradients are summed. So the head
does not depend on the number of ranks, except for rounding in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.network import LABEL_UNITS
from eagle_spark.training.feed import Samples

Vector = NDArray[np.float64]
AllReduce = Callable[[Vector], Vector]  # sum over ranks, the same bits on all of them

BATCH_ROWS = 512
FIT_EPOCHS = 20  # over the rows of all ranks
MIN_STEPS = 200
WARM_UP = 0.1  # share of all steps
# AdamW: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019).
PEAK_LEARNING_RATE = 3e-3  # after a linear warm-up; then a cosine decay
BETAS = 0.9, 0.999
WEIGHT_DECAY = 0.1
EPSILON = 1e-7
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


class LabelFit:
    """One rank's part in fitting the head; every rank makes the same calls.

    A state is one float64 vector: steps done, weights, and AdamW's two moments of them.
    """

    def __init__(
        self, rows: Samples, classes: int, rank: int, ranks: int, reduce: AllReduce, seed: int
    ) -> None:
        """Standardise the rows in place: weighted mean 0 and variance 1 over all ranks."""
        self._rank, self._reduce, self._seed = rank, reduce, seed
        statistics = rows.statistics.shape[1]
        self._shapes = [
            (statistics, LABEL_UNITS),
            (LABEL_UNITS,),
            (LABEL_UNITS, classes),
            (classes,),
        ]
        weights, values = rows.weights, rows.statistics
        sums = reduce(np.concatenate([[weights.sum()], _weighted_sum(weights, values)]))
        total, self._mean = float(sums[0]), sums[1:] / sums[0]
        values -= self._mean.astype(np.float32)
        variance = reduce(_weighted_sum(weights, values, power=2)) / total
        self._scale = np.where(variance > MIN_VARIANCE, np.sqrt(variance), np.inf)
        values /= self._scale.astype(np.float32)
        self._rows = rows
        counts = reduce(np.where(np.arange(ranks) == rank, len(values), 0.0)).astype(int)
        self._first, self._count = int(counts[:rank].sum()), int(counts.sum())
        self._weights = weights * (self._count / total)
        self.steps = max(MIN_STEPS, FIT_EPOCHS * self._count // BATCH_ROWS)

    def initial_state(self) -> Vector:
        """Return the initial state (He et al. 2015, arXiv:1502.01852; the top layer is zero)."""
        kernel, *others = [np.zeros(shape) for shape in self._shapes]
        if self._rank == 0:
            rng = np.random.default_rng((self._seed, 0))
            kernel = rng.normal(0.0, np.sqrt(2 / len(kernel)), kernel.shape)
        weights = self._reduce(_flatten([kernel, *others]))
        return np.concatenate([[0.0], weights, np.zeros(2 * len(weights))])

    def advance(self, state: Vector, share: float) -> Vector:
        """Run steps from `state` until `share` of all steps are done; the same on all ranks."""
        weights, mean, square = _weights_and_moments(state).copy()
        decay = _flatten(
            [np.full(shape, WEIGHT_DECAY * (len(shape) > 1)) for shape in self._shapes]
        )
        beta_1, beta_2 = BETAS
        done = int(state[0])
        for step in range(done + 1, int(self.steps * share) + 1):
            gradient = self._reduce(self._compute_gradient(weights, step))
            mean += (1 - beta_1) * (gradient - mean)
            square += (1 - beta_2) * (gradient**2 - square)
            update = mean / (1 - beta_1**step) / (np.sqrt(square / (1 - beta_2**step)) + EPSILON)
            weights -= self._learning_rate(step) * (update + decay * weights)
            done = step
        return np.concatenate([[float(done)], weights, mean, square])

    def finish(self, state: Vector, rows: Samples) -> tuple[Vector, float]:
        """Run all remaining steps; return the state, and the temperature fitted to `rows`."""
        state = self.advance(state, 1.0)
        return state, self.fit_temperature(self.build_head(state), rows)

    def build_head(self, state: Vector) -> LabelHead:
        """Return the head for statistics that are not standardised."""
        kernel, bias, *top = self._split(_weights_and_moments(state)[0])
        kernel = kernel / self._scale[:, None]
        parts = (kernel, bias - self._mean @ kernel, *top)
        return LabelHead(*(part.astype(np.float32) for part in parts))

    def fit_temperature(self, head: LabelHead, rows: Samples) -> float:
        """Return the temperature of the smallest loss over `rows` of all ranks; 1 without rows.

        Guo et al., On Calibration of Modern Neural Networks (2017), with a prior. The loss is
        the sum of the rows' negative log probabilities.
        """
        logits, truth = head.logits(rows.statistics), (np.arange(len(rows.labels)), rows.labels)
        low, high = LOG_TEMPERATURE_BOUNDS
        for _ in range(2):  # the second search is around the best of the first
            grid = np.linspace(low, high, TEMPERATURE_GRID)
            nll = [-_log_softmax(logits / value)[truth].sum() for value in np.exp(grid)]
            penalty = (grid / LOG_TEMPERATURE_PRIOR_STD) ** 2 / 2
            best = grid[np.argmin(self._reduce(np.array(nll)) + penalty)]
            low, high = (
                best - (high - low) / TEMPERATURE_GRID,
                best + (high - low) / TEMPERATURE_GRID,
            )
        return float(np.exp(best))

    def train_metrics(self, state: Vector) -> dict[str, float]:
        """Return mean loss and accuracy over the training rows of all ranks."""
        parts = [part.astype(np.float32) for part in self._split(_weights_and_moments(state)[0])]
        return self.compute_metrics(LabelHead(*parts), self._rows)

    def compute_metrics(self, head: LabelHead, rows: Samples) -> dict[str, float]:
        """Return mean loss and accuracy over `rows` of all ranks; empty without rows."""
        sums = np.zeros(3)
        for block in _blocks(len(rows.labels)):
            log = _log_softmax(head.logits(rows.statistics[block]))
            labels = rows.labels[block]
            loss = -log[np.arange(len(log)), labels].sum()
            sums += len(log), loss, (log.argmax(axis=1) == labels).sum()
        sums = self._reduce(sums)
        if not sums[0]:
            return {}
        return {"classification_loss": sums[1] / sums[0], "accuracy": sums[2] / sums[0]}

    def _split(self, weights: Vector) -> list[Vector]:
        edges = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        parts = np.split(weights, edges)
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _learning_rate(self, step: int) -> float:
        warm_up = min(1.0, step / (WARM_UP * self.steps))
        cosine = 1 + np.cos(np.pi * (step - 1) / self.steps)
        return float(PEAK_LEARNING_RATE * warm_up * cosine / 2)

    def _compute_gradient(self, weights: Vector, step: int) -> Vector:
        """Return this rank's part of the gradient of a step's mean loss."""
        rng = np.random.default_rng((self._seed, step))
        drawn = rng.integers(self._count, size=BATCH_ROWS)
        statistics_kept = (
            rng.random((BATCH_ROWS, self._shapes[0][0]), np.float32) >= STATISTICS_DROPOUT
        )
        units_kept = rng.random((BATCH_ROWS, LABEL_UNITS), np.float32) >= UNITS_DROPOUT
        local = (drawn >= self._first) & (drawn < self._first + len(self._weights))
        rows = drawn[local] - self._first
        kernel, bias, top_kernel, top_bias = self._split(weights)
        values = self._rows.statistics[rows] * (statistics_kept[local] / (1.0 - STATISTICS_DROPOUT))
        hidden = values @ kernel + bias
        gate = units_kept[local] * (hidden > 0) / (1.0 - UNITS_DROPOUT)
        units = hidden * gate
        top_gradient = np.exp(_log_softmax(units @ top_kernel + top_bias))
        top_gradient[np.arange(len(rows)), self._rows.labels[rows]] -= 1.0
        top_gradient *= self._weights[rows, None] / BATCH_ROWS
        gradient = top_gradient @ top_kernel.T * gate
        return _flatten(
            [
                values.T @ gradient,
                gradient.sum(axis=0),
                units.T @ top_gradient,
                top_gradient.sum(axis=0),
            ]
        )


def _weights_and_moments(state: Vector) -> Vector:
    """Return weights and both moments of a state, one row each."""
    return state[1:].reshape(3, -1)


def _flatten(parts: list[Vector]) -> Vector:
    return np.concatenate([part.ravel() for part in parts])


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
