"""Distributions of predictions that add up over runs: rows by label and by bins of a fixed grid.

Edges at tenths of the sum are edges of the grid, so that no rows have to be read for them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.drift import NUMERIC_COLUMNS, Histogram, Reference

GRID = 1  # of `GRID_EDGES`: counts of another grid cannot be added
TENTHS = np.arange(1, 10) / 10

Floats = NDArray[np.float64]
Bins = Mapping[int, int]  # number of a bin, from 0, to values in it; empty bins are left out


def _create_grid() -> dict[str, Floats]:
    # Most confidences are near 1: steps of their log odds. Novelties, 0 usual, 1 unusual, have no
    # limit: steps of 1/256 near 0, and of 1/64 of the value far from it.
    log_odds = np.arange(-5 * 32, 17 * 32 + 1) / 32
    sinh = np.arange(-680, 680 + 1) / 64
    return {
        "confidence": 1 / (1 + np.exp(-log_odds)),
        "lung_area": np.arange(1, 1024) / 1024,
        "novelty": np.sinh(sinh) / 4,
    }


GRID_EDGES: Mapping[str, Floats] = MappingProxyType(_create_grid())
"""Numeric column to the ascending edges between its bins; each belongs to the bin above it."""


@dataclass(frozen=True)
class Distribution:
    """Counts of scored rows of `predictions`. Picklable.

    Attributes:
        images: number of rows.
        labels: label to rows.
        bins: numeric column to rows in each bin of `GRID_EDGES`; a null is in none.
    """

    images: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    bins: Mapping[str, Bins] = field(default_factory=dict)

    def dumps(self) -> str:
        """Return the distribution as JSON, a few kB; `{}` for one of no images.

        The bins of a column are the number of the first bin, and the counts from it to the last
        one.
        """
        if not self.images:
            return "{}"
        columns = {name: _to_range(bins) for name, bins in self.bins.items() if bins}
        values = {"grid": GRID, "images": self.images, "label": dict(self.labels), **columns}
        return json.dumps(values, separators=(",", ":"))


SOME_IMAGES = '{"'
"""The first characters of the JSON of a distribution that has images."""


def parse_distribution(text: str) -> Distribution | None:
    """Return the distribution that `dumps` wrote; None if its bins are those of another grid."""
    values = json.loads(text)
    if not values:
        return Distribution()
    if values["grid"] != GRID:
        return None
    bins = {
        name: {
            first: count for first, count in enumerate(values[name][1:], values[name][0]) if count
        }
        for name in NUMERIC_COLUMNS
        if name in values
    }
    return Distribution(values["images"], values["label"], bins)


def _to_range(bins: Bins) -> list[int]:
    first, last = min(bins), max(bins)
    return [first, *(bins.get(number, 0) for number in range(first, last + 1))]


def count_grid_bins(name: str, values: Floats) -> dict[int, int]:
    """Return the number of values of a numeric column in each bin of its grid.

    Args:
        name: of the column.
        values: `(n,)`; NaN is above all edges, as in Spark.
    """
    bins = np.searchsorted(GRID_EDGES[name], values, side="right")
    numbers, counts = np.unique(bins, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def merge_distributions(parts: Iterable[Distribution]) -> Distribution:
    """Return the distribution of the rows of all parts."""
    images = 0
    labels: Counter[str] = Counter()
    bins: dict[str, Counter[int]] = {}
    for part in parts:
        images += part.images
        labels.update(part.labels)
        for name, counts in part.bins.items():
            if counts:
                bins.setdefault(name, Counter()).update(counts)
    return Distribution(images, dict(labels), {name: dict(bins[name]) for name in bins})


def count_bins(
    distribution: Distribution, edges: Mapping[str, Sequence[float]]
) -> dict[str, list[int]]:
    """Return, for each numeric column, the rows between edges; a null is in the first bin.

    Args:
        distribution: of the rows.
        edges: column to ascending edges of its grid.
    """
    counts = {}
    for name, values in edges.items():
        below = _count_below(name, distribution)
        steps = below[np.searchsorted(GRID_EDGES[name], values)]
        total = sum(distribution.bins.get(name, {}).values())
        counts[name] = np.diff(steps, prepend=0, append=total).tolist()
        counts[name][0] += distribution.images - total
    return counts


def derive_reference(distribution: Distribution, classes: Sequence[str]) -> Reference:
    """Return the reference of a distribution, its numeric columns in about tenths.

    A column that is null throughout is left out.

    Args:
        distribution: of at least one image.
        classes: of the model.
    """
    images = distribution.images
    edges = {
        name: _select_edges(name, distribution)
        for name in NUMERIC_COLUMNS
        if distribution.bins.get(name)
    }
    bins = count_bins(distribution, edges)
    return Reference(
        images=images,
        label={name: distribution.labels.get(name, 0) / images for name in classes},
        numeric={
            name: Histogram(edges[name], [count / images for count in bins[name]]) for name in edges
        },
    )


def _count_below(name: str, distribution: Distribution) -> NDArray[np.int64]:
    """Return the number of values below each edge of the grid."""
    counts = np.zeros(len(GRID_EDGES[name]) + 1, np.int64)
    for number, count in distribution.bins.get(name, {}).items():
        counts[number] = count
    return np.cumsum(counts)[:-1]


def _select_edges(name: str, distribution: Distribution) -> list[float]:
    """Return the edges of the grid next to the tenths of the values."""
    below = _count_below(name, distribution)
    tenths = TENTHS * sum(distribution.bins[name].values())
    last = len(below) - 1
    # The edges of the bin that holds the tenth; where bins beside it are empty, its own.
    above = np.clip(np.searchsorted(below, tenths), 0, last)
    under = np.clip(np.searchsorted(below, tenths, side="right") - 1, 0, last)
    is_above = below[above] - tenths <= tenths - below[under]
    numbers = np.unique(np.where(is_above, above, under))
    edges: list[float] = GRID_EDGES[name][numbers].tolist()
    return edges
