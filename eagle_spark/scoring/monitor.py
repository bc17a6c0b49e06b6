"""Drift of a run's predictions from the validation split and from recent runs of the same model."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from eagle_spark.io import absolute_uri
from eagle_spark.metrics.distribution import (
    SOME_IMAGES,
    Distribution,
    count_bins,
    derive_reference,
    merge_distributions,
    parse_distribution,
)
from eagle_spark.metrics.drift import (
    MIN_IMAGES,
    NUMERIC_COLUMNS,
    PSI_ALERT,
    Histogram,
    Reference,
    stability_index,
)
from eagle_spark.model.review import Flag
from eagle_spark.scoring.audit import filter_runs
from eagle_spark.scoring.figures import ANY_FLAG, DISTRIBUTION_COLUMNS, compute_distribution
from eagle_spark.spark.batches import map_batches
from eagle_spark.spark.session import is_second_attempt
from eagle_spark.tables import RUNS, Warehouse

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_log = logging.getLogger(__name__)

REFERENCE_RUNS = 30
MAX_RUNS = 100  # of a model, in which earlier attempts and rates are sought
TRAINING, RECENT_RUNS = "training", "recent_runs"
_TEXTS = pa.schema([("distribution", pa.string())])
_NAMES = {TRAINING: "the validation split", RECENT_RUNS: "recent runs"}

Drift = dict[str, float]  # column -> population stability index
Record = tuple[str, dict[str, Any], dict[str, Any]]  # of a run: id, settings, result


@dataclass(frozen=True)
class Attempt:
    """Figures of a run that the next one has to repeat, as its caller never received them.

    Attributes:
        drift_by: reference to drift.
        flagged: review reason to number of rows.
    """

    drift_by: Mapping[str, Drift] = field(default_factory=dict)
    flagged: Mapping[str, int] = field(default_factory=dict)


def measure_drift(rows: DataFrame, reference: Reference) -> Drift:
    """Return the population stability index of `label` and of numeric columns of scored rows.

    Args:
        rows: scored rows of `predictions`.
        reference: of the validation split, or of `make_reference`.

    Returns:
        Column to index; empty if there are fewer than `MIN_IMAGES` rows, or no reference.
    """
    if not reference.images:
        return {}
    return compute_drift(reference, *_count(rows, reference.edges))


def compute_drift(
    reference: Reference, images: int, labels: Mapping[str, int], bins: Mapping[str, Sequence[int]]
) -> Drift:
    """Return what `measure_drift` returns, from counts of scored rows.

    Args:
        reference: to compare with.
        images: number of rows.
        labels: rows by label.
        bins: column to rows between `reference.edges`; a null is in the first bin.
    """
    if images < MIN_IMAGES or not reference.images:
        return {}
    counts = [labels.get(name, 0) for name in reference.label]
    drift = {"label": stability_index(list(reference.label.values()), counts, reference.images)}
    for name in reference.edges:
        shares = reference.numeric[name].shares
        drift[name] = stability_index(shares, bins[name], reference.images)
    return {name: round(value, 3) for name, value in drift.items()}


def make_reference(rows: DataFrame, classes: Sequence[str]) -> Reference:
    """Return the distribution of scored rows, in tenths; an empty one of fewer than `MIN_IMAGES`.

    A column that is null throughout, as an earlier version did not write it, is left out.
    """
    tenths = ", ".join(str(tenth / 10) for tenth in range(1, 10))
    (percentiles,) = rows.selectExpr(
        *(f"percentile_approx({name}, array({tenths}), 1000)" for name in NUMERIC_COLUMNS)
    ).collect()
    edges = {
        name: sorted(set(values))
        for name, values in zip(NUMERIC_COLUMNS, percentiles, strict=True)
        if values
    }
    total, labels, bins = _count(rows, edges)
    if total < MIN_IMAGES:
        return Reference()
    return Reference(
        images=total,
        label={name: labels.get(name, 0) / total for name in classes},
        numeric={
            name: Histogram(edges[name], [count / total for count in bins[name]]) for name in edges
        },
    )


def measure_distribution(rows: DataFrame) -> Distribution:
    """Return the distribution of scored rows of `predictions`."""
    texts = map_batches(rows.select(*DISTRIBUTION_COLUMNS), _dump_distribution, _TEXTS).collect()
    parts = [parse_distribution(row.distribution) for row in texts]
    return merge_distributions(part for part in parts if part)


def _dump_distribution(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the distribution of all batches, as a row of text."""
    text = merge_distributions(map(compute_distribution, batches)).dumps()
    yield pa.RecordBatch.from_pylist([{"distribution": text}], schema=_TEXTS)


def measure_recent_drift(
    warehouse: Warehouse,
    model_id: str,
    classes: Sequence[str],
    distribution: Distribution,
    rows: DataFrame,
    run_ids: Sequence[str],
) -> dict[str, Drift]:
    """Return the drift of what these runs scored from recent runs; empty if either is too few.

    SQL reads the rows where one of the recent runs has no distribution in `runs`.

    Args:
        warehouse: to read `runs` from.
        model_id: of the model.
        classes: of the model.
        distribution: of the new rows.
        rows: scored rows of the model, of these and of earlier runs.
        run_ids: runs whose rows are new.
    """
    if distribution.images < MIN_IMAGES:
        return {}
    recent = read_recent_distribution(warehouse, model_id)
    if recent is None:
        before = filter_runs(rows, select_recent_run_ids(rows, run_ids))
        drift = measure_drift(filter_runs(rows, run_ids), make_reference(before, classes))
    elif recent.images < MIN_IMAGES:
        drift = {}
    else:
        reference = derive_reference(recent, classes)
        bins = count_bins(distribution, reference.edges)
        drift = compute_drift(reference, distribution.images, distribution.labels, bins)
    return {RECENT_RUNS: drift} if drift else {}


def read_recent_distribution(warehouse: Warehouse, model_id: str) -> Distribution | None:
    """Return the distribution of what the `REFERENCE_RUNS` newest runs with images scored.

    Args:
        warehouse: to read `runs` from.
        model_id: of the model.

    Returns:
        None if one of these runs, or one between them, has no distribution of the present grid.
    """
    if warehouse.exists(RUNS):  # of an earlier version, without distributions
        warehouse.create_or_migrate(RUNS)
    rows = warehouse.read_newest_runs(
        ("run_id", "distribution"),
        {"job": "score", "model_id": model_id},
        REFERENCE_RUNS,
        {"distribution": SOME_IMAGES},
    )
    texts = {row["run_id"]: row["distribution"] for row in rows}
    parts = [None if text is None else parse_distribution(text) for text in texts.values()]
    present = [part for part in parts if part is not None]
    return merge_distributions(present) if len(present) == len(parts) else None


def select_recent_run_ids(rows: DataFrame, excluded: Sequence[str]) -> list[str]:
    """Return the `REFERENCE_RUNS` runs that wrote rows last, except the excluded ones."""
    from pyspark.sql.functions import col, max

    others = rows.where(~col("run_id").isin(list(excluded)))
    newest = others.groupBy("run_id").agg(max("scored_at").alias("at"))
    return [row.run_id for row in newest.orderBy("at", ascending=False).take(REFERENCE_RUNS)]


def count_flags(rows: DataFrame) -> dict[str, int]:
    """Return the number of rows of `predictions` per review reason, and with `any` reason."""
    from pyspark.sql.functions import expr

    conditions = {ANY_FLAG: "needs_review"}
    conditions |= {str(flag): f"array_contains(review_reasons, '{flag}')" for flag in Flag}
    counts = [expr(f"count_if({test})").alias(name) for name, test in conditions.items()]
    return rows.agg(*counts).collect()[0].asDict()


def read_previous_attempts(
    spark: SparkSession, warehouse: Warehouse, model_id: str, images: str
) -> list[Attempt]:
    """Return the figures of earlier attempts at this run whose exit code reached no caller.

    These are the newest run of this model and folder if it was killed after it had published, and
    the first attempt of this application on YARN, which restarts an application that exits with a
    code other than 0, such as `EXIT_NEEDS_ATTENTION`. The second attempt has little or nothing
    left to score and would exit with 0.

    Args:
        spark: session of this run.
        warehouse: to read `runs` from.
        model_id: of the model.
        images: the setting of that name.
    """
    records = read_recent_records(warehouse, model_id)
    folder = absolute_uri(images)
    attempts: dict[str, Attempt] = {}
    for run_id, settings, result in records:
        if absolute_uri(settings["images"]) == folder:
            # A run that was active when another one recorded it has two rows.
            if result.get("finished") is False and not any(
                other == run_id and figures.get("finished") for other, _, figures in records
            ):
                attempts[run_id] = Attempt(result["drift_by"], result["flagged"])
            break
    if is_second_attempt(spark):
        application = str(spark.sparkContext.applicationId)
        for run_id, _, result in records:
            if result.get("application") == application:  # the newest holds those before it
                attempts[run_id] = Attempt(result.get("drift_by", {}), result["flagged"])
                break
    return list(attempts.values())


def read_recent_records(warehouse: Warehouse, model_id: str) -> list[Record]:
    """Return the records of the newest runs of a model, the newest first.

    Args:
        warehouse: to read `runs` from.
        model_id: of the model.
    """
    columns, condition = ("run_id", "settings", "result"), {"job": "score", "model_id": model_id}
    return [
        (row["run_id"], json.loads(row["settings"]), json.loads(row["result"]))
        for row in warehouse.read_newest_runs(columns, condition, MAX_RUNS)
    ]


def merge_drift(attempts: Iterable[Mapping[str, Drift]]) -> dict[str, Drift]:
    """Return the largest index of each reference and column."""
    merged: dict[str, Drift] = {}
    for drift_by in attempts:
        for name, drift in drift_by.items():
            largest = merged.setdefault(name, {})
            for column, value in drift.items():
                largest[column] = max(value, largest.get(column, value))
    return merged


def merge_flags(attempts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of each count."""
    total: Counter[str] = Counter()
    for flagged in attempts:
        total.update(flagged)
    return dict(total)


def find_alerts(drift_by: Mapping[str, Drift]) -> list[tuple[str, str, float]]:
    """Return reference, column and index of each index above `PSI_ALERT`."""
    return [
        (name, column, value)
        for name, drift in drift_by.items()
        for column, value in drift.items()
        if value > PSI_ALERT
    ]


def warn_of_drift(drift_by: Mapping[str, Drift]) -> None:
    """Log a warning per index above `PSI_ALERT`."""
    for name, column, value in find_alerts(drift_by):
        _log.warning(
            "%s of this run's images differs from %s (population stability index %s, alert above "
            "%s): check a sample of images before relying on these predictions",
            *(column, _NAMES.get(name, name), value, PSI_ALERT),
        )


def _count(
    rows: DataFrame, edges: Mapping[str, Sequence[float]]
) -> tuple[int, dict[str, int], dict[str, list[int]]]:
    """Return the number of rows, rows per label, and per column the rows in each bin."""
    from pyspark.sql.functions import col, count, lit, sum

    above = [
        sum((col(name) >= lit(edge)).cast("int"))
        for name, values in edges.items()
        for edge in values
    ]
    # The sum of nulls alone is null.
    total, *counts = (number or 0 for number in rows.agg(count("path"), *above).collect()[0])
    bins = {}
    for name, values in edges.items():
        cumulative, counts = counts[: len(values)], counts[len(values) :]
        steps = [total, *cumulative, 0]
        bins[name] = [high - low for high, low in pairwise(steps)] if total else []
    labels = {row.label: row["count"] for row in rows.groupBy("label").count().collect()}
    return total, labels, bins
