"""Drift of a distribution: the population stability index.

The sum over bins of (a - e) * ln(a / e), e the share among the reference images and a the share
among the images in question. By chance alone it is about (bins - 1) * (1/n + 1/m) (Yurdakul,
Statistical Properties of Population Stability Index, 2018), which is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

PSI_ALERT = 0.25  # the rule of thumb: below 0.1 none, above 0.25 large
MIN_IMAGES = 100  # of fewer the index measures chance more exactly than chance is subtracted
NUMERIC_COLUMNS = ("confidence", "lung_area", "novelty")
_MIN_SHARE = 1e-4  # of an empty bin


@dataclass(frozen=True)
class Histogram:
    """Shares of a column's values.

    Attributes:
        edges: ascending, between the bins; each belongs to the bin above it.
        shares: of each bin; one more than there are edges.
    """

    edges: Sequence[float]
    shares: Sequence[float]


@dataclass(frozen=True)
class Reference:
    """The distribution of predictions that others are compared with.

    Attributes:
        images: number of images it is made of; 0 if there is none.
        label: class to share.
        numeric: column of `NUMERIC_COLUMNS` to histogram.
    """

    images: int = 0
    label: Mapping[str, float] = field(default_factory=dict)
    numeric: Mapping[str, Histogram] = field(default_factory=dict)

    @property
    def edges(self) -> dict[str, Sequence[float]]:
        """The edges of each numeric column, in the order of `NUMERIC_COLUMNS`."""
        return {name: self.numeric[name].edges for name in NUMERIC_COLUMNS if name in self.numeric}

    def to_dict(self) -> dict[str, object]:
        """Return the form in `metadata.json`: columns beside `images` and `label`."""
        columns = {name: asdict(histogram) for name, histogram in self.numeric.items()}
        label = {"label": dict(self.label)} if self.label else {}
        return {"images": self.images, **label, **columns}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Reference:
        """Return the reference that `to_dict` wrote; an empty one for an empty mapping.

        Raises:
            ValueError: when `values` is not what `to_dict` writes.
        """
        images, label = values.get("images", 0), values.get("label", {})
        if not isinstance(images, int) or not isinstance(label, Mapping):
            raise ValueError("images must be a count and label a mapping")
        if images and not label:
            raise ValueError("label is empty")
        numeric = {
            name: _parse_histogram(name, value)
            for name, value in values.items()
            if name not in ("images", "label")
        }
        shares = _parse_numbers("label", list(label.values()))
        return cls(images, dict(zip(label, shares, strict=True)), numeric)


def _parse_histogram(name: str, value: object) -> Histogram:
    if not isinstance(value, Mapping) or value.keys() != {"edges", "shares"}:
        raise ValueError(f"{name} must hold edges and shares")
    edges, shares = (_parse_numbers(name, value[key]) for key in ("edges", "shares"))
    if len(shares) != len(edges) + 1:
        raise ValueError(f"{name}: wanted one share more than edges; got {len(shares)}")
    return Histogram(edges, shares)


def _parse_numbers(name: str, values: object) -> list[float]:
    if not isinstance(values, list) or not all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in values
    ):
        raise ValueError(f"{name}: wanted a list of finite numbers")
    return values


def stability_index(expected: Sequence[float], counts: Sequence[int], images: int) -> float:
    """Return the population stability index, 0 where chance explains it.

    Args:
        expected: share of each bin among `images` reference images.
        counts: images in each bin.
        images: number of reference images.
    """
    total = sum(counts)
    if not total or not images:
        return 0.0
    shares = [
        (max(share, _MIN_SHARE), max(count / total, _MIN_SHARE))
        for share, count in zip(expected, counts, strict=True)
    ]
    index = sum((a - e) * math.log(a / e) for e, a in shares)
    return max(0.0, index - (len(shares) - 1) * (1 / total + 1 / images))
