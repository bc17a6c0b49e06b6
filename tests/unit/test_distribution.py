"""Distributions of runs: they add up, and their tenths stand for those of the rows."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest

from eagle_spark.metrics.distribution import (
    GRID_EDGES,
    SOME_IMAGES,
    Distribution,
    count_bins,
    count_grid_bins,
    derive_reference,
    merge_distributions,
    parse_distribution,
)
from eagle_spark.metrics.drift import NUMERIC_COLUMNS, PSI_ALERT, Histogram, Reference
from eagle_spark.scoring.monitor import compute_drift

CLASSES = ("A", "B")
TOLERANCE = 0.02
Columns = dict[str, Any]


def draw(
    rows: int,
    seed: int,
    odds: float = 3.0,
    area: float = 0.25,
    novelty: float = 0.0,
    b: float = 0.3,
) -> Columns:
    """Return columns of rows: log odds of the confidence, area and novelty are normal."""
    random = np.random.default_rng(seed)
    return {
        "label": np.where(random.random(rows) < b, "B", "A"),
        "confidence": 1 / (1 + np.exp(-random.normal(odds, 1.5, rows))),
        "lung_area": random.normal(area, 0.05, rows),
        "novelty": random.normal(novelty, 0.4, rows),
    }


def distribute(columns: Columns) -> Distribution:
    labels, counts = np.unique(columns["label"], return_counts=True)
    return Distribution(
        len(columns["label"]),
        dict(zip(labels.tolist(), counts.tolist(), strict=True)),
        {name: count_grid_bins(name, columns[name]) for name in NUMERIC_COLUMNS},
    )


def count(values: Any, edges: Any) -> list[int]:
    bins = np.searchsorted(edges, values, side="right")
    return [int(number) for number in np.bincount(bins, minlength=len(edges) + 1)]


def measure_rows(before: Columns, new: Columns) -> dict[str, float]:
    """Return the drift by the rows themselves, in tenths as SQL computes them."""
    rows, numeric = len(before["label"]), {}
    for name in NUMERIC_COLUMNS:
        tenths = np.quantile(before[name], np.arange(1, 10) / 10, method="inverted_cdf")
        edges = np.unique(tenths).tolist()
        shares = [number / rows for number in count(before[name], edges)]
        numeric[name] = Histogram(edges, shares)
    label = {name: float(np.mean(before["label"] == name)) for name in CLASSES}
    reference = Reference(rows, label, numeric)
    bins = {name: count(new[name], edges) for name, edges in reference.edges.items()}
    return compute_drift(reference, len(new["label"]), distribute(new).labels, bins)


def measure_distributions(before: Distribution, new: Distribution) -> dict[str, float]:
    reference = derive_reference(before, CLASSES)
    return compute_drift(reference, new.images, new.labels, count_bins(new, reference.edges))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("change", "alerts"),
    [
        ({}, []),
        ({"odds": 2.7, "area": 0.255, "novelty": 0.1}, []),
        ({"odds": 2.0}, ["confidence"]),
        ({"area": 0.29}, ["lung_area"]),
        ({"novelty": 0.35}, ["novelty"]),
        ({"b": 0.6}, ["label"]),
    ],
)
def test_the_index_of_distributions_is_that_of_the_rows(
    seed: int, change: dict[str, float], alerts: list[str]
) -> None:
    runs = [draw(600, 100 * seed + number) for number in range(5)]
    before = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
    new = draw(1500, 100 * seed + 50, **change)
    exact = measure_rows(before, new)
    drift = measure_distributions(merge_distributions(map(distribute, runs)), distribute(new))
    assert drift.keys() == exact.keys()
    for name, index in exact.items():
        assert drift[name] == pytest.approx(index, abs=TOLERANCE), name
    assert [name for name, index in drift.items() if index > PSI_ALERT] == alerts


def test_distributions_add_up_in_any_grouping() -> None:
    runs = [draw(50, seed) for seed in range(3)]
    whole = distribute({name: np.concatenate([run[name] for run in runs]) for name in runs[0]})
    a, b, c = map(distribute, runs)
    assert merge_distributions([a, b, c]) == whole
    assert merge_distributions([merge_distributions([c, a]), Distribution(), b]) == whole
    assert merge_distributions([]) == Distribution()
    assert pickle.loads(pickle.dumps(whole)) == whole  # noqa: S301


@pytest.mark.parametrize("rows", [1, 100, 20_000])
def test_a_distribution_is_read_as_it_was_written(rows: int) -> None:
    made = distribute(draw(rows, 1))
    text = made.dumps()
    assert parse_distribution(text) == made
    assert text.startswith(SOME_IMAGES)
    assert len(text) < 8000


def test_a_distribution_of_no_images_is_an_empty_object() -> None:
    text = Distribution().dumps()
    assert text == "{}"
    assert not text.startswith(SOME_IMAGES)
    assert parse_distribution(text) == Distribution()


def test_the_bins_of_another_grid_are_not_read() -> None:
    values = json.loads(distribute(draw(10, 1)).dumps())
    assert parse_distribution(json.dumps({**values, "grid": 0})) is None


def test_each_column_has_ascending_edges() -> None:
    assert tuple(GRID_EDGES) == NUMERIC_COLUMNS
    for edges in GRID_EDGES.values():
        assert np.all(np.diff(edges) > 0)
        assert np.isfinite(edges).all()


def test_values_of_any_size_have_a_bin() -> None:
    values = np.repeat([-np.inf, -1e9, 0.0, 1e9, np.inf, np.nan], 50)
    counts = count_grid_bins("novelty", values)
    last = len(GRID_EDGES["novelty"])
    assert (counts[0], counts[last], sum(counts.values())) == (100, 150, 300)
    made = Distribution(300, {"A": 300}, {"novelty": counts})
    reference = derive_reference(made, CLASSES)
    assert sum(reference.numeric["novelty"].shares) == pytest.approx(1)
    assert measure_distributions(made, made)["novelty"] == 0


def test_nulls_are_in_the_first_bin_and_a_column_of_nulls_is_left_out() -> None:
    some = {"confidence": count_grid_bins("confidence", np.linspace(0.4, 0.99, 150))}
    made = Distribution(200, {"A": 150, "B": 50}, some)
    reference = derive_reference(made, CLASSES)
    assert reference.edges.keys() == {"confidence"}
    shares = reference.numeric["confidence"].shares
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(0.25 + 0.075, abs=0.02)
    nothing = Distribution(100, {"A": 100})
    bins = count_bins(nothing, reference.edges)["confidence"]
    assert (bins[0], sum(bins)) == (100, 100)


@pytest.mark.parametrize("value", [0.0, 0.25, 0.999, 1.0])
def test_a_column_of_one_value_differs_from_one_of_another_value(value: float) -> None:
    def repeat(number: float) -> Distribution:
        bins = count_grid_bins("lung_area", np.full(300, number))
        return Distribution(300, {"A": 300}, {"lung_area": bins})

    assert measure_distributions(repeat(value), repeat(value))["lung_area"] == 0
    for other in (0.1, 0.9):
        assert measure_distributions(repeat(value), repeat(other))["lung_area"] > PSI_ALERT


def test_two_clusters_have_an_edge_between_them() -> None:
    values = np.concatenate([np.full(100, 0.2), np.full(100, 0.6)])
    made = Distribution(200, {"A": 200}, {"lung_area": count_grid_bins("lung_area", values)})
    shares = derive_reference(made, CLASSES).numeric["lung_area"].shares
    assert [share for share in shares if share] == [0.5, 0.5]
