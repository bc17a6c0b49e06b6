"""The class head: one hidden layer on standardised statistics, fitted by all ranks together.

Each step draws its rows, and what is dropped, by its own number from all rows of all ranks: every
rank takes those of them that it holds, and the gradients are summed up. So the head does not depend
on the number of ranks, beyond what float64 rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.network import LABEL_UNITS
from eagle_spark.training.feed import Labelled

Vector = NDArray[np.float64]
Reduce = Callable[[Vector], Vector]  # sum over ranks, the same bits on all of them

BATCH = 512  # rows of a step
PASSES = 20  # over the rows of all ranks
LEAST_STEPS = 200
WARM_UP = 0.1  # share of all steps
# Of AdamW: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019).
RATE = 3e-3  # the peak; up in a line, down in a cosine
MOMENTS = 0.9, 0.999
DECAY = 0.1
TINY = 1e-7
DROP_STATISTICS, DROP_UNITS = 0.2, 0.5  # shares

SMALL = 1e-6  # variance below which a statistic is silent: what it would say, nobody taught it
BLOCK_ROWS = 4096
# Temperatures that are tried, as logarithms.
COLD, HOT = np.log(0.05), np.log(20.0)
GRID = 201
# A few validation rows that are all right would have it go to the limit: its logarithm is held to
# 0 as if it were drawn with this deviation.
SPREAD = 0.5


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

    def cooled(self, temperature: float) -> LabelHead:
        """Return the head whose logits are divided by the temperature."""
        return replace(
            self,
            top_kernel=(self.top_kernel / temperature).astype(np.float32),
            top_bias=(self.top_bias / temperature).astype(np.float32),
        )


class LabelFit:
    """One rank's part in fitting the head; every rank makes the same calls.

    A point is one float64 vector: steps done, weights, and AdamW's two moments of them.
    """

    def __init__(
        self, rows: Labelled, classes: int, rank: int, ranks: int, reduce: Reduce, seed: int
    ) -> None:
        """Standardise the rows in place: mean 0 and variance 1 over all ranks, rows weighed."""
        self._rank, self._reduce, self._seed = rank, reduce, seed
        statistics = rows.statistics.shape[1]
        self._shapes = [
            (statistics, LABEL_UNITS),
            (LABEL_UNITS,),
            (LABEL_UNITS, classes),
            (classes,),
        ]
        weights, values = rows.weights, rows.statistics
        sums = reduce(np.concatenate([[weights.sum()], _weighed_sum(weights, values)]))
        total, self._mean = float(sums[0]), sums[1:] / sums[0]
        values -= self._mean.astype(np.float32)
        spread = reduce(_weighed_sum(weights, values, power=2)) / total
        self._scale = np.where(spread > SMALL, np.sqrt(spread), np.inf)
        values /= self._scale.astype(np.float32)
        self._rows = rows
        counts = reduce(np.where(np.arange(ranks) == rank, len(values), 0.0)).astype(int)
        self._first, self._count = int(counts[:rank].sum()), int(counts.sum())
        self._weights = weights * (self._count / total)
        self.steps = max(LEAST_STEPS, PASSES * self._count // BATCH)

    def start(self) -> Vector:
        """Return the point to begin at (He et al. 2015, arXiv:1502.01852; the top is silent)."""
        kernel, *others = [np.zeros(shape) for shape in self._shapes]
        if self._rank == 0:
            draw = np.random.default_rng((self._seed, 0))
            kernel = draw.normal(0.0, np.sqrt(2 / len(kernel)), kernel.shape)
        weights = self._reduce(_flat([kernel, *others]))
        return np.concatenate([[0.0], weights, np.zeros(2 * len(weights))])

    def improve(self, point: Vector, share: float) -> Vector:
        """Go on from `point` until `share` of all steps are done; the same on all ranks."""
        weights, slope, square = _state(point).copy()
        decay = _flat([np.full(shape, DECAY * (len(shape) > 1)) for shape in self._shapes])
        first, second = MOMENTS
        done = int(point[0])
        for step in range(done + 1, int(self.steps * share) + 1):
            gradient = self._reduce(self._gradient(weights, step))
            slope += (1 - first) * (gradient - slope)
            square += (1 - second) * (gradient**2 - square)
            pace = slope / (1 - first**step) / (np.sqrt(square / (1 - second**step)) + TINY)
            weights -= self._rate(step) * (pace + decay * weights)
            done = step
        return np.concatenate([[float(done)], weights, slope, square])

    def finish(self, point: Vector, rows: Labelled) -> tuple[Vector, float]:
        """Go on to the end; return the point, and the temperature that `rows` speak for."""
        point = self.improve(point, 1.0)
        return point, self.temperature(self.head(point), rows)

    def head(self, point: Vector) -> LabelHead:
        """Return the head for statistics as they are, not standardised."""
        kernel, bias, *top = self._split(_state(point)[0])
        kernel = kernel / self._scale[:, None]
        parts = (kernel, bias - self._mean @ kernel, *top)
        return LabelHead(*(part.astype(np.float32) for part in parts))

    def temperature(self, head: LabelHead, rows: Labelled) -> float:
        """Return what the logits are to be divided by to be least surprised by `rows`; 1 of none.

        Guo et al., On Calibration of Modern Neural Networks (2017), with a prior. The surprise is
        the sum of the rows' negative log probabilities, over all ranks.
        """
        logits, truth = head.logits(rows.statistics), (np.arange(len(rows.labels)), rows.labels)
        low, high = COLD, HOT
        for _ in range(2):  # the second time around the best of the first
            grid = np.linspace(low, high, GRID)
            surprise = [-_log_softmax(logits / heat)[truth].sum() for heat in np.exp(grid)]
            best = grid[np.argmin(self._reduce(np.array(surprise)) + (grid / SPREAD) ** 2 / 2)]
            low, high = best - (high - low) / GRID, best + (high - low) / GRID
        return float(np.exp(best))

    def own_figures(self, point: Vector) -> dict[str, float]:
        """Return mean loss and accuracy over the rows that are fitted, of all ranks."""
        parts = [part.astype(np.float32) for part in self._split(_state(point)[0])]
        return self.figures(LabelHead(*parts), self._rows)

    def figures(self, head: LabelHead, rows: Labelled) -> dict[str, float]:
        """Return the same over other rows; empty where there are none."""
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

    def _rate(self, step: int) -> float:
        rise = min(1.0, step / (WARM_UP * self.steps))
        return float(RATE * rise * (1 + np.cos(np.pi * (step - 1) / self.steps)) / 2)

    def _gradient(self, weights: Vector, step: int) -> Vector:
        """Return this rank's part of the gradient of a step's mean loss."""
        draw = np.random.default_rng((self._seed, step))
        drawn = draw.integers(self._count, size=BATCH)
        kept = draw.random((BATCH, self._shapes[0][0]), np.float32) >= DROP_STATISTICS
        alive = draw.random((BATCH, LABEL_UNITS), np.float32) >= DROP_UNITS
        own = (drawn >= self._first) & (drawn < self._first + len(self._weights))
        rows = drawn[own] - self._first
        kernel, bias, top_kernel, top_bias = self._split(weights)
        values = self._rows.statistics[rows] * (kept[own] / (1.0 - DROP_STATISTICS))
        found = values @ kernel + bias
        gate = alive[own] * (found > 0) / (1.0 - DROP_UNITS)
        units = found * gate
        wrong = np.exp(_log_softmax(units @ top_kernel + top_bias))
        wrong[np.arange(len(rows)), self._rows.labels[rows]] -= 1.0
        wrong *= self._weights[rows, None] / BATCH
        back = wrong @ top_kernel.T * gate
        return _flat([values.T @ back, back.sum(axis=0), units.T @ wrong, wrong.sum(axis=0)])


def _state(point: Vector) -> Vector:
    """Return weights and both moments of a point, one row each."""
    return point[1:].reshape(3, -1)


def _flat(parts: list[Vector]) -> Vector:
    return np.concatenate([part.ravel() for part in parts])


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(first, first + BLOCK_ROWS) for first in range(0, rows, BLOCK_ROWS))


def _weighed_sum(weights: Vector, values: NDArray[np.float32], power: int = 1) -> Vector:
    """Return the sum over rows in float64, without a copy of all values."""
    total = np.zeros(values.shape[1])
    for block in _blocks(len(values)):
        total += weights[block] @ values[block].astype(np.float64) ** power
    return total


def _log_softmax(logits: Vector) -> Vector:
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    result: Any = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(result, np.float64)
