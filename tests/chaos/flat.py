"""Whether a figure stays the same while images are scored, as two numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

STEADY = 0.1  # of the images: what comes before is beginning
PER = 10_000  # images
POINTS = 2_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Flat:
    """How a figure changes.

    Attributes:
        median: of the steady part.
        slope: percent of the median in 10,000 images, of the Theil-Sen line over the steady part.
        ratio: of its mean in the last quarter of the images to that in the second.
    """

    median: float
    slope: float
    ratio: float


def flatness(images: Sequence[float], values: Sequence[float], count: int) -> Flat | None:
    """Judge values that were seen when so many of `count` images had been scored.

    None where a quarter has no value.
    """
    done, seen = np.asarray(images, np.float64), np.asarray(values, np.float64)
    steady = done >= STEADY * count
    second, last = (
        seen[(done > count * low) & (done <= count * (low + 0.25))] for low in (0.25, 0.75)
    )
    if not (len(second) and len(last)):
        return None
    median = float(np.median(seen[steady]))
    # Pairs of all points are formed: of very many, every so manyth does.
    some = slice(None, None, 1 + int(steady.sum()) // POINTS)
    slope = float(theilslopes(seen[steady][some], done[steady][some] / PER).slope)
    return Flat(median, 100 * slope / median, float(last.mean() / second.mean()))
