"""Rates of programs that write rows in batches, and their spread over rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import numpy as np

START, END = 0.2, 0.8  # shares of the rows; the rate between them is steady


def compute_steady_rate(times: Sequence[float], workers: int) -> float:
    """Compute the rows per second between the first and the last fifth of the rows.

    The rows are counted between the ends of two batches that are a multiple of `workers` batches
    apart: the batches that other workers have in work are then in the same state at both ends.
    Counted between two rows instead, up to a batch of each worker is an error: 40 % of five
    batches.

    Args:
        times: of all rows, seconds, in any order; rows of one batch have the time of its end.
        workers: batches in work at a time.

    Raises:
        ValueError: when too few batches end in that part of the rows.
    """
    ends, rows = np.unique(np.asarray(times, np.float64), return_counts=True)
    done = np.cumsum(rows)
    inner = np.flatnonzero((done >= START * len(times)) & (done <= END * len(times)))
    batches = (len(inner) - 1) // workers * workers
    if batches < 1:
        raise ValueError(f"wanted more than {workers} ends of batches; got {len(inner)}")
    first, last = inner[0], inner[batches]
    return float((done[last] - done[first]) / (ends[last] - ends[first]))


def summarise_ratios(ours: Iterable[float], others: Iterable[float]) -> dict[str, float]:
    """Return the median, minimum and maximum of the ratios within rounds.

    Args:
        ours: a value per round.
        others: the value of another program in the same rounds.
    """
    ratios = [own / other for own, other in zip(ours, others, strict=True)]
    spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {name: round(value, 3) for name, value in spread.items()}
