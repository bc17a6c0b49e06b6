"""Drift of a run's images from those of the validation split and of recent runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame

from eagle_spark.metrics.distribution import Distribution
from eagle_spark.metrics.drift import MIN_IMAGES, PSI_ALERT, Reference, stability_index
from eagle_spark.scoring import monitor
from eagle_spark.scoring.monitor import (
    REFERENCE_RUNS,
    find_alerts,
    make_reference,
    measure_distribution,
    measure_drift,
    measure_recent_drift,
    merge_drift,
    merge_flags,
    read_recent_distribution,
    select_recent_run_ids,
    warn_of_drift,
)
from eagle_spark.settings import MaintainSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import RUNS, Run, Warehouse
from eagle_spark.training.evaluation import compute_reference

CLASSES = ("COVID", "Normal")
START = datetime(2026, 11, 1, tzinfo=timezone.utc)
SETTINGS = MaintainSettings(warehouse="w")


def outcomes(rows: int, seed: int, sure: float = 4.0, covid: float = 0.3) -> pd.DataFrame:
    """Return predictions and lung areas in the form of an evaluation."""
    draw = np.random.default_rng(seed)
    first = draw.random(rows) < covid
    confidence = 0.5 + draw.beta(sure, 1.0, rows) / 2
    probabilities = np.where(first, confidence, 1 - confidence)
    return pd.DataFrame(
        {
            "label": np.where(first, *CLASSES),
            "probabilities": list(np.stack([probabilities, 1 - probabilities], axis=1)),
            "area": draw.normal(0.25, 0.05, rows),
            "novelty": draw.normal(0.0, 0.4, rows),
        }
    )


def scored(spark: Any, rows: pd.DataFrame) -> Any:
    """Return outcomes as rows of the table `predictions`."""
    table = pd.DataFrame(
        {
            "path": [f"file:///{i}" for i in range(len(rows))],
            "label": [CLASSES[int(p[1] > p[0])] for p in rows["probabilities"]],
            "confidence": [float(max(p)) for p in rows["probabilities"]],
            "lung_area": rows["area"],
            "novelty": rows["novelty"],
        }
    )
    return spark.createDataFrame(
        table,
        "path STRING, label STRING, confidence DOUBLE, lung_area DOUBLE, novelty DOUBLE",
    )


def reference(rows: pd.DataFrame) -> Reference:
    return compute_reference(rows, CLASSES, rows["novelty"].to_numpy())


def test_the_index_follows_its_formula() -> None:
    index = stability_index([0.5, 0.5], [8000, 2000], 10**9)
    assert index == pytest.approx(0.3 * np.log(1.6) - 0.3 * np.log(0.4), abs=2e-4)
    assert stability_index([0.5, 0.5], [5000, 5000], 10**6) == 0
    assert stability_index([1.0, 0.0], [0, 10_000], 10**6) > 5
    assert stability_index([0.5, 0.5], [], 0) == 0


@pytest.mark.parametrize("images", [MIN_IMAGES, 3000])
def test_chance_alone_is_no_drift(images: int) -> None:
    draw = np.random.default_rng(images)
    shares = np.full(10, 0.1)
    indices = [
        stability_index(
            (draw.multinomial(122, shares) / 122).tolist(),
            draw.multinomial(images, shares).tolist(),
            122,
        )
        for _ in range(400)
    ]
    assert np.quantile(indices, 0.99) < PSI_ALERT


def test_a_reference_is_read_as_it_was_written() -> None:
    made = reference(outcomes(400, 1))
    assert Reference.from_dict(made.to_dict()) == made
    assert Reference.from_dict({}) == Reference()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"images": "3"}, "images must be a count"),
        ({"images": 3}, "label is empty"),
        ({"images": 3, "label": {"A": float("nan")}}, "finite numbers"),
        ({"images": 3, "label": {"A": 1.0}, "novelty": [1]}, "novelty must hold edges and shares"),
        (
            {"images": 3, "label": {"A": 1.0}, "novelty": {"edges": [1.0], "shares": [1.0]}},
            "one share more",
        ),
    ],
)
def test_another_form_of_a_reference_is_an_error(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Reference.from_dict(values)


@pytest.mark.spark
def test_a_run_like_the_validation_split_has_no_drift_and_another_one_has(spark: Any) -> None:
    validation = reference(outcomes(400, 1))
    assert sum(validation.label.values()) == pytest.approx(1)
    assert sum(validation.numeric["confidence"].shares) == pytest.approx(1)
    same = measure_drift(scored(spark, outcomes(1000, 2)), validation)
    assert same.keys() == {"label", "confidence", "lung_area", "novelty"}
    assert max(same.values()) < 0.05
    other = measure_drift(scored(spark, outcomes(1000, 3, sure=0.7, covid=0.9)), validation)
    assert min(other["label"], other["confidence"]) > PSI_ALERT > other["lung_area"]
    rows = outcomes(1000, 3)
    rows["novelty"] += 1
    assert measure_drift(scored(spark, rows), validation)["novelty"] > PSI_ALERT
    assert measure_drift(scored(spark, outcomes(MIN_IMAGES - 1, 4)), validation) == {}
    assert measure_drift(scored(spark, rows), Reference()) == {}


@pytest.mark.spark
def test_recent_runs_are_a_reference(spark: Any) -> None:
    recent = make_reference(scored(spark, outcomes(2000, 5)), ["COVID", "Normal", "Other"])
    assert recent.images == 2000
    assert recent.label["Other"] == 0
    shares = recent.numeric["lung_area"].shares
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.15
    assert max(measure_drift(scored(spark, outcomes(1000, 6)), recent).values()) < 0.05
    other = measure_drift(scored(spark, outcomes(1000, 7, covid=0.9)), recent)
    assert other["label"] > PSI_ALERT > other["lung_area"]
    few = make_reference(scored(spark, outcomes(MIN_IMAGES - 1, 5)), CLASSES)
    none = make_reference(scored(spark, outcomes(1, 5)).limit(0), CLASSES)
    assert few == none == Reference()


@pytest.mark.spark
def test_recent_runs_are_those_that_wrote_rows_last(spark: Any) -> None:
    start = pd.Timestamp(2026, 1, 1)
    runs = [f"run-{i:02d}" for i in range(REFERENCE_RUNS + 2)]
    rows = pd.DataFrame(
        {
            "run_id": [*runs, "run-00", "this"],
            "scored_at": [
                *(start + pd.Timedelta(i, "h") for i in range(len(runs))),
                start + pd.Timedelta(500, "h"),
                start + pd.Timedelta(600, "h"),
            ],
        }
    )
    recent = select_recent_run_ids(spark.createDataFrame(rows), ["this"])
    assert recent == ["run-00", *reversed(runs[3:])]


@dataclass(frozen=True)
class Figures:
    scored: int = 0


def record(warehouse: Warehouse, number: int, model: str, distribution: str | None) -> None:
    run = Run("score", f"run-{number}", START + timedelta(hours=number), SETTINGS)
    made = run.record(Figures(), model_id=model, distribution=distribution)
    warehouse.record_run(made)


@pytest.mark.spark
@pytest.mark.slow("SQL over the rows of four runs, cold, beside their distributions")
@pytest.mark.parametrize(
    ("sure", "covid", "alerts"),
    [(4.0, 0.3, set()), (3.3, 0.35, set()), (1.5, 0.6, {"label", "confidence"})],
)
def test_the_drift_by_distributions_is_that_by_sql(
    spark: Any, tmp_path: Path, sure: float, covid: float, alerts: set[str]
) -> None:
    from pyspark.sql.functions import lit

    with open_session("test", str(tmp_path)) as session:
        warehouse, frames = Warehouse(session), []
        for number in range(3):
            rows = scored(session, outcomes(700, number))
            moment = lit(START + timedelta(hours=number))
            frames.append(rows.withColumns({"run_id": lit(f"run-{number}"), "scored_at": moment}))
            record(warehouse, number, "m", measure_distribution(rows).dumps())
            record(warehouse, number + 10, "by SQL", None)
        new = scored(session, outcomes(1500, 9, sure, covid))
        distribution = measure_distribution(new)
        frames.append(new.withColumns({"run_id": lit("new"), "scored_at": lit(START)}))
        measure = partial(measure_recent_drift, warehouse, classes=CLASSES, run_ids=["new"])
        rows = reduce(DataFrame.union, frames)
        exact = measure("by SQL", distribution=distribution, rows=rows)["recent_runs"]
        no_rows = session.range(1)
        drift = measure("m", distribution=distribution, rows=no_rows)["recent_runs"]
        assert drift.keys() == exact.keys() == {"label", "confidence", "lung_area", "novelty"}
        for name, index in exact.items():
            assert drift[name] == pytest.approx(index, abs=0.02), name
        assert {name for _, name, _ in find_alerts({"recent_runs": drift})} == alerts
        few = Distribution(MIN_IMAGES - 1)
        assert measure("m", distribution=few, rows=no_rows) == {}
        assert measure("unknown", distribution=distribution, rows=no_rows) == {}


@pytest.mark.spark
@pytest.mark.slow("22 runs are recorded, one after the other")
def test_the_newest_runs_with_images_make_the_distribution(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "REFERENCE_RUNS", 3)
    texts = [Distribution(10**number, {"A": 10**number}).dumps() for number in range(5)]
    with open_session("test", str(tmp_path)) as session:
        warehouse = Warehouse(session)
        assert read_recent_distribution(warehouse, "m") == Distribution()
        record(warehouse, 0, "m", None)
        session.sql(f"ALTER TABLE {RUNS.full_name} DROP COLUMN distribution")  # as in version 0.1
        assert read_recent_distribution(warehouse, "m") is None
        for number, text in enumerate(texts, 1):
            record(warehouse, 2 * number, "m", text)
            record(warehouse, 2 * number + 1, "m", Distribution().dumps())
            record(warehouse, 100 + number, "another", texts[0])
        made = read_recent_distribution(warehouse, "m")
        assert made == Distribution(11_100, {"A": 11_100})
        other_grid = texts[0].replace('"grid":1', '"grid":0')
        record(warehouse, 30, "m", other_grid)
        assert read_recent_distribution(warehouse, "m") is None
        record(warehouse, 31, "m", None)
        assert read_recent_distribution(warehouse, "m") is None
        for number, text in enumerate(texts[:3], 40):
            record(warehouse, number, "m", text)
        made = read_recent_distribution(warehouse, "m")
        assert made == Distribution(111, {"A": 111})


@pytest.mark.spark
def test_runs_before_there_was_novelty_are_compared_without_it(spark: Any) -> None:
    before = make_reference(scored(spark, outcomes(500, 5).assign(novelty=None)), CLASSES)
    assert "novelty" not in before.numeric
    assert "novelty" not in measure_drift(scored(spark, outcomes(500, 6)), before)


def test_a_large_index_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    quiet = {"training": {"label": PSI_ALERT}, "recent_runs": {}}
    warn_of_drift(quiet)
    assert (find_alerts(quiet), caplog.text) == ([], "")
    large = {"training": {"label": 0.1, "novelty": 3.0}}
    warn_of_drift(large)
    assert find_alerts(large) == [("training", "novelty", 3.0)]
    assert "novelty of this run's images differs from the validation split" in caplog.text


def test_attempts_are_merged() -> None:
    first = {"training": {"label": 0.3, "novelty": 0.1}}
    second = {"training": {"label": 0.2}, "recent_runs": {"label": 0.1}}
    assert merge_drift([first, second]) == {
        "training": {"label": 0.3, "novelty": 0.1},
        "recent_runs": {"label": 0.1},
    }
    assert merge_flags([{"any": 3, "mask": 1}, {"any": 2}]) == {"any": 5, "mask": 1}


@pytest.mark.spark
def test_a_column_of_one_value_is_one_bin(spark: Any) -> None:
    rows = outcomes(MIN_IMAGES, 1)
    rows["area"] = 0.25
    validation = reference(rows)
    assert validation.numeric["lung_area"].edges == [0.25]
    assert measure_drift(scored(spark, rows), validation)["lung_area"] == 0
