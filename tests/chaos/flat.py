"""The trend of a figure while images are scored, as two numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

WARM_UP_SHARE = 0.1  # of the images; not part of the trend
UNIT_IMAGES = 10_000  # of slopes
MAX_POINTS = 2_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """The trend of a figure.

    Attributes:
        median: of the steady part.
        slope: percent of the median in 10,000 images, of the Theil-Sen line over the steady part.
        ratio: of its mean in the last quarter of the images to that in the second.
    """

    median: float
    slope: float
    ratio: float


def fit_trend(images: Sequence[float], values: Sequence[float], count: int) -> Trend | None:
    """Fit the trend of values; None if a quarter of the images has no value.

    Args:
        images: scored when each value was measured.
        values: of the figure.
        count: of all images.
    """
    done, samples = np.asarray(images, np.float64), np.asarray(values, np.float64)
    steady = done >= WARM_UP_SHARE * count
    second, last = (
        samples[(done > count * low) & (done <= count * (low + 0.25))] for low in (0.25, 0.75)
    )
    if not (len(second) and len(last)):
        return None
    median = float(np.median(samples[steady]))
    # The time is quadratic in the points: a sample of many is enough.
    sample = slice(None, None, 1 + int(steady.sum()) // MAX_POINTS)
    slope = float(theilslopes(samples[steady][sample], done[steady][sample] / UNIT_IMAGES).slope)
    return Trend(median, 100 * slope / median, float(last.mean() / second.mean()))
