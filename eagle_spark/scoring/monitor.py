"""Whether tonight's images look to the model like those it was validated on, and like last nights'.

The population stability index of the predicted classes, of the confidence, of the lung area and of
novelty, which sums up the features and the detail of an image: sum
over bins of (a - e) * ln(a / e), e the share there and a tonight's. By chance alone it
is about (bins - 1) * (1/n + 1/m) (Yurdakul, Statistical Properties of Population Stability Index,
2018), which is taken off.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from eagle_spark.scoring.rows import of_runs
from eagle_spark.spark.session import is_second_attempt
from eagle_spark.tables import PREDICTIONS, RUNS, Warehouse

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

NIGHTS = 30  # that tonight is held against
LARGE = 0.25  # the rule of thumb of those who use the index: below 0.1 none, above 0.25 large
LEAST_IMAGES = 100  # of fewer the index says more about chance than chance is taken off
NUMBERS = ("confidence", "lung_area", "novelty")
LEAST_SHARE = 1e-4  # of an empty bin

Shift = Mapping[str, Mapping[str, float]]  # reference -> what -> index


def last_nights(
    warehouse: Warehouse, scored: DataFrame, mine: str, tonight: Sequence[str]
) -> list[str]:
    """Return who wrote the rows of the last runs that published any of these, but for tonight's.

    Args:
        scored: published rows.
        mine: SQL condition that tells the model.
        tonight: runs.
    """
    wrote = _writers(scored).difference(tonight)
    nights = (wrote.intersection(told) for told in _told(warehouse, mine))
    return sorted(set[str]().union(*islice(filter(None, nights), NIGHTS)))


def untold_runs(warehouse: Warehouse, rows: DataFrame, mine: str) -> list[str]:
    """Return runs that wrote these published rows, and of which no run told in `runs`.

    Such a run, or one that went on with its rows, was killed after it had published.

    Args:
        mine: SQL condition that tells the model.
    """
    return sorted(_writers(rows).difference(*_told(warehouse, mine)))


def _writers(rows: DataFrame) -> set[str]:
    return {row.run_id for row in rows.select("run_id").distinct().collect()}


def _told(warehouse: Warehouse, mine: str) -> list[set[str]]:
    """Return whose rows each run in `runs` may have published, the newest run first."""
    if not warehouse.exists(RUNS):
        return []
    runs = warehouse.read(RUNS).where(f"job = 'score' AND {mine}")
    runs = runs.orderBy("started_at", ascending=False)
    published = "get_json_object(result, '$.published_runs') AS published"
    rows = runs.selectExpr("run_id", published).collect()
    return [{row.run_id, *json.loads(row.published or "[]")} for row in rows]


def shifts_before(spark: SparkSession, warehouse: Warehouse) -> list[Shift]:
    """Return what earlier attempts of this application on YARN said of their night.

    YARN starts anew what ends with an exit code of its own, as with `LOOK_FIRST`: without this the
    second attempt, with little or nothing left to score, would end with 0, and nobody look.
    """
    if not (is_second_attempt(spark) and warehouse.exists(RUNS)):
        return []
    runs = warehouse.read(RUNS).where(
        "job = 'score' AND get_json_object(result, '$.application') = "
        f"'{spark.sparkContext.applicationId}'"
    )
    return [json.loads(row.result)["shift_by"] for row in runs.select("result").collect()]


def largest(shifts: Iterable[Shift]) -> dict[str, dict[str, float]]:
    """Return the largest index of each reference and thing in any of these."""
    found: dict[str, dict[str, float]] = {}
    for shift in shifts:
        for name, by in shift.items():
            own = found.setdefault(name, {})
            own |= {what: max(value, own.get(what, value)) for what, value in by.items()}
    return found


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
    """Return the index of `label` and each of `NUMBERS` of scored rows.

    Empty where either side has fewer than `LEAST_IMAGES`; of a model's validation split any number
    will do.

    Args:
        reference: what training keeps in the model's card, or `nights_reference`.
    """
    names = [name for name in NUMBERS if name in reference]
    edges = {name: reference[name]["edges"] for name in names}
    total, labels, bins = _counted(rows, edges)
    if total < LEAST_IMAGES:
        return {}
    images, classes = reference["images"], reference["label"]
    own = [labels.get(name, 0) for name in classes]
    found = {"label": stability_index(list(classes.values()), own, images)}
    for name in names:
        found[name] = stability_index(reference[name]["shares"], bins[name], images)
    return {name: round(value, 3) for name, value in found.items()}


def shift_of_runs(
    warehouse: Warehouse,
    mine: str,
    runs: Sequence[str],
    training: Mapping[str, Any],
    classes: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Hold what these runs published against the validation split and earlier nights.

    Args:
        mine: SQL condition that tells the model.
        training: what training keeps in the model's card.
    """
    if not runs:
        return {}
    scored = warehouse.read(PREDICTIONS).where(f"{mine} AND status = 'scored'")
    tonight = of_runs(scored, runs)
    references = {"training": training}
    if tonight.limit(LEAST_IMAGES).count() == LEAST_IMAGES:
        past = of_runs(scored, last_nights(warehouse, scored, mine, runs))
        references["nights"] = nights_reference(past, classes)
    return {
        name: shift_of(tonight, reference)
        for name, reference in references.items()
        if reference.get("images")
    }


def warn(found: Shift) -> bool:
    """Warn of what `shift_of` found large, by reference; return whether anything is."""
    large = [
        (name, what, value)
        for name, by in found.items()
        for what, value in by.items()
        if value > LARGE
    ]
    for name, what, value in large:
        with suppress(OSError):  # on a full disk, say: the night is published
            print(
                f"warning: {what} of tonight's images is not that of {name} (stability index "
                f"{value}, large above {LARGE}): look at some before you believe what the model "
                "says",
                file=sys.stderr,
                flush=True,
            )
    return bool(large)


def nights_reference(rows: DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Return what the scored rows of earlier nights look like; empty of too few.

    A number that an earlier version did not give is left out.
    """
    tenths = ", ".join(str(tenth / 10) for tenth in range(1, 10))
    edges = {
        name: sorted(set(found))
        for name, found in zip(
            NUMBERS,
            rows.selectExpr(
                *(f"percentile_approx({name}, array({tenths}), 1000)" for name in NUMBERS)
            ).collect()[0],
            strict=True,
        )
        if found
    }
    total, labels, bins = _counted(rows, edges)
    if total < LEAST_IMAGES:
        return {}
    shares = {name: [count / total for count in found] for name, found in bins.items()}
    return {
        "images": total,
        "label": {name: labels.get(name, 0) / total for name in classes},
        **{name: {"edges": edges[name], "shares": shares[name]} for name in edges},
    }


def _counted(
    rows: DataFrame, edges: Mapping[str, Sequence[float]]
) -> tuple[int, dict[str, int], dict[str, list[int]]]:
    """Return the number of rows, of each label, and in each bin between edges."""
    from pyspark.sql.functions import col, count, lit, sum

    above = [
        sum((col(name) >= lit(edge)).cast("int")) for name, own in edges.items() for edge in own
    ]
    total, *counts = rows.agg(count("path"), *above).collect()[0]
    bins = {}
    for name, own in edges.items():
        reached, counts = counts[: len(own)], counts[len(own) :]
        bins[name] = [high - low for high, low in pairwise([total, *reached, 0])] if total else []
    labels = {row.label: row["count"] for row in rows.groupBy("label").count().collect()}
    return total, labels, bins
