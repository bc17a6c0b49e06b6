"""Whether tonight's images look to the model like those it was validated on.

The population stability index of the predicted classes, of the confidence and of the lung area: sum
over bins of (a - e) * ln(a / e), e the validation split's share and a tonight's. By chance alone it
is about (bins - 1) * (1/n + 1/m) (Yurdakul, Statistical Properties of Population Stability Index,
2018), which is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

LARGE = 0.25  # the rule of thumb of those who use the index: below 0.1 none, above 0.25 large
LEAST_IMAGES = 100  # of fewer the index says more about chance than chance is taken off
LEAST_SHARE = 1e-4  # of an empty bin


def stability_index(expected: Sequence[float], found: Sequence[int], images: int) -> float:
    """Return the index, 0 where chance explains it.

    Args:
        expected: share of each bin among `images` reference images.
        found: tonight's images in each bin.
    """
    total = sum(found)
    if not total or not images:
        return 0.0
    pairs = [
        (max(e, LEAST_SHARE), max(count / total, LEAST_SHARE))
        for e, count in zip(expected, found, strict=True)
    ]
    index = sum((a - e) * math.log(a / e) for e, a in pairs)
    return max(0.0, index - (len(pairs) - 1) * (1 / total + 1 / images))


def shift_of(rows: DataFrame, reference: Mapping[str, Any]) -> dict[str, float]:
    """Return the index of `label`, `confidence` and `lung_area` of scored rows.

    Empty of fewer than `LEAST_IMAGES`.

    Args:
        reference: what training keeps in the model's card, see `reference_of`.
    """
    from pyspark.sql.functions import col, count, lit, sum

    names = ("confidence", "lung_area")
    above = [
        sum((col(name) >= lit(edge)).cast("int"))
        for name in names
        for edge in reference[name]["edges"]
    ]
    total, *counts = rows.agg(count("path"), *above).collect()[0]
    if total < LEAST_IMAGES:
        return {}
    images = reference["images"]
    labels = {row.label: row["count"] for row in rows.groupBy("label").count().collect()}
    classes = reference["label"]
    found = {
        "label": stability_index(
            list(classes.values()), [labels.get(name, 0) for name in classes], images
        )
    }
    for name in names:
        edges = reference[name]["edges"]
        own, counts = counts[: len(edges)], counts[len(edges) :]
        bins = [high - low for high, low in pairwise([total, *own, 0])]
        found[name] = stability_index(reference[name]["shares"], bins, images)
    return {name: round(value, 3) for name, value in found.items()}
