"""The class head: multinomial logistic regression on standardised statistics, over all ranks.

The loss is convex, so its minimum does not depend on order, batches or the number of ranks. Rank 0
runs the solver; every rank works out loss and gradient of its own rows, and they are summed up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.training.feed import Labelled

Vector = NDArray[np.float64]
Reduce = Callable[[Vector], Vector]  # sum over ranks, the same bits on all of them
Loss = Callable[[Vector], tuple[float, Vector]]  # point -> value and gradient
Solve = Callable[[Loss, Vector], Vector]

# Weights of the squared norm that are tried, the strongest first. For 2,000 images and copies the
# first was best in cross-validation, for 20,000 the last two.
L2 = (0.2, 0.05, 0.01, 0.003)
# Where the smallest L2 is all that curves the loss, a gradient of 1e-5 is far from the minimum.
NEAR_MINIMUM = {"ftol": 1e-11, "gtol": 1e-7}
SMALL = 1e-6  # added to the variance: a statistic that never varies stays silent
BLOCK_ROWS = 4096
COLD, HOT = 0.05, 20.0  # limits of the temperature
# A few validation rows that are all right would have it go to the limit: its logarithm is held to
# 0 as if it were drawn with this deviation.
SPREAD = 0.5


@dataclass(frozen=True)
class LabelHead:
    """Logits are `statistics @ kernel + bias`.

    Attributes:
        kernel: float32 `(statistics, classes)`.
        bias: float32 `(classes,)`.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, statistics: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return `(n, classes)`."""
        return (statistics @ self.kernel + self.bias).astype(np.float64)

    def cooled(self, temperature: float) -> LabelHead:
        """Return the head whose logits are divided by the temperature."""
        return LabelHead(
            (self.kernel / temperature).astype(np.float32),
            (self.bias / temperature).astype(np.float32),
        )


class LabelFit:
    """One rank's part in fitting the head; every rank makes the same calls."""

    def __init__(self, rows: Labelled, classes: int, rank: int, reduce: Reduce) -> None:
        """Standardise the rows in place: mean 0 and variance 1 over all ranks, rows weighed."""
        self._rank, self._reduce, self._classes = rank, reduce, classes
        self._l2 = L2[0]
        weights, values = rows.weights, rows.statistics
        sums = reduce(np.concatenate([[weights.sum()], _weighed_sum(weights, values)]))
        self._total, self._mean = float(sums[0]), sums[1:] / sums[0]
        values -= self._mean.astype(np.float32)
        spread = reduce(_weighed_sum(weights, values, power=2)) / self._total
        self._scale = np.sqrt(spread + SMALL)
        values /= self._scale.astype(np.float32)
        self._values = values
        self._labels, self._weights = rows.labels, weights / self._total

    def start(self) -> Vector:
        """Return the point to begin at: all zeros."""
        return np.zeros((self._values.shape[1] + 1) * self._classes)

    def improve(self, point: Vector, iterations: int, l2: float = L2[0]) -> Vector:
        """Go on from `point` for at most so many iterations of L-BFGS; the same on all ranks.

        Args:
            l2: weight of half the squared norm of the kernel beside the mean loss of a row.
        """
        from scipy.optimize import minimize

        self._l2 = l2

        def solve(loss: Loss, start: Vector) -> Vector:
            bounds = {"maxiter": iterations, "maxfun": 2 * iterations, "maxcor": 20}
            found = minimize(
                loss, start, jac=True, method="L-BFGS-B", options={**bounds, **NEAR_MINIMUM}
            )
            return np.asarray(found.x, np.float64)

        return self._together(self._loss, solve, point)

    def finish(self, point: Vector, iterations: int, rows: Labelled) -> tuple[Vector, float, float]:
        """Go on to the minimum, with that of the `L2` which `rows` (validation) speak for.

        Returns:
            Point, temperature and L2: those by which `rows` are the least surprising; temperature 1
            and the middle L2 where no rank has rows.
        """
        count = self._reduce(np.array([float(len(rows.labels))]))[0]
        if not count:
            middle = L2[len(L2) // 2]
            return self.improve(point, iterations, middle), 1.0, middle
        best: tuple[float, Vector, float, float] | None = None
        for l2 in L2:
            point = self.improve(point, iterations, l2)
            temperature, surprise = self.temperature(self.head(point), rows)
            if best is None or surprise < best[0]:
                best = surprise, point, temperature, l2
        assert best
        return best[1:]

    def head(self, point: Vector) -> LabelHead:
        """Return the head for statistics as they are, not standardised."""
        kernel, bias = self._split(point)
        kernel = kernel / self._scale[:, None]
        return LabelHead(kernel.astype(np.float32), (bias - self._mean @ kernel).astype(np.float32))

    def temperature(self, head: LabelHead, rows: Labelled) -> tuple[float, float]:
        """Return what the logits are to be divided by to be least surprised by `rows`, and the
        surprise.

        Guo et al., On Calibration of Modern Neural Networks (2017), with a prior. The surprise is
        the sum of the rows' negative log probabilities, over all ranks.
        """
        from scipy.optimize import minimize_scalar

        logits, labels = head.logits(rows.statistics), rows.labels

        def surprise(point: Vector) -> tuple[float, Vector]:
            loss = -_log_softmax(logits / np.exp(point[0]))[np.arange(len(labels)), labels]
            held = (point[0] / SPREAD) ** 2 / 2 if self._rank == 0 else 0.0
            return float(loss.sum() + held), np.zeros(2)

        def solve(loss: Loss, _start: Vector) -> Vector:
            bounds = (np.log(COLD), np.log(HOT))
            found = minimize_scalar(lambda log: loss(np.array([log, 0.0]))[0], bounds=bounds)
            return np.array([found.x, found.fun])

        log, value = self._together(surprise, solve, np.zeros(2)).tolist()
        return float(np.exp(log)), float(value)

    def own_figures(self, point: Vector) -> dict[str, float]:
        """Return mean loss and accuracy over the rows that are fitted, of all ranks."""
        return self._figures(self._logits(point), self._labels)

    def figures(self, head: LabelHead, rows: Labelled) -> dict[str, float]:
        """Return the same over other rows; empty where there are none."""
        return self._figures(head.logits(rows.statistics), rows.labels)

    def _figures(self, logits: Vector, labels: NDArray[np.int64]) -> dict[str, float]:
        loss = -_log_softmax(logits)[np.arange(len(logits)), labels]
        right = logits.argmax(axis=1) == labels
        sums = self._reduce(np.array([len(logits), loss.sum(), right.sum()], np.float64))
        if not sums[0]:
            return {}
        return {"classification_loss": sums[1] / sums[0], "accuracy": sums[2] / sums[0]}

    def _split(self, point: Vector) -> tuple[Vector, Vector]:
        table = point.reshape(-1, self._classes)
        return table[:-1], table[-1]

    def _logits(self, point: Vector) -> Vector:
        kernel, bias = self._split(point)
        return (self._values @ kernel.astype(np.float32)).astype(np.float64) + bias

    def _loss(self, point: Vector) -> tuple[float, Vector]:
        """Return this rank's part of the loss and its gradient; the L2 term is rank 0's."""
        kernel, _ = self._split(point)
        log = _log_softmax(self._logits(point))
        rows = np.arange(len(log))
        value = -float(self._weights @ log[rows, self._labels])
        wrong = np.exp(log)
        wrong[rows, self._labels] -= 1.0
        wrong *= self._weights[:, None]
        slope = np.vstack([self._values.T @ wrong.astype(np.float32), wrong.sum(axis=0)])
        if self._rank == 0:
            value += self._l2 / 2 * float(np.sum(kernel**2))
            slope[:-1] += self._l2 * kernel
        return value, slope.astype(np.float64).ravel()

    def _together(self, part: Loss, solve: Solve, start: Vector) -> Vector:
        """Let rank 0 solve for the sum of all ranks' `part`; return its answer on every rank.

        The others only answer: their arithmetic may differ in the last bit, and must not lead them
        to ask for another number of sums.
        """

        def ask(point: Vector) -> tuple[float, Vector]:
            self._reduce(np.concatenate([[1.0], point]))
            return answer(point)

        def answer(point: Vector) -> tuple[float, Vector]:
            value, slope = part(point)
            sums = self._reduce(np.concatenate([[value], slope]))
            return float(sums[0]), sums[1:]

        if self._rank == 0:
            found = solve(ask, start)
            return self._reduce(np.concatenate([[0.0], found]))[1:]
        while True:
            told = self._reduce(np.zeros(len(start) + 1))
            if told[0] == 0.0:
                return told[1:]
            answer(told[1:])


def _weighed_sum(weights: Vector, values: NDArray[np.float32], power: int = 1) -> Vector:
    """Return the sum over rows in float64, without a copy of all values."""
    total = np.zeros(values.shape[1])
    for first in range(0, len(values), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        total += weights[block] @ values[block].astype(np.float64) ** power
    return total


def _log_softmax(logits: Vector) -> Vector:
    shifted = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
    result: Any = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(result, np.float64)
