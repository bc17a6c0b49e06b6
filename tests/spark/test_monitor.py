"""A night's images against those that the model was validated on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eagle_spark.scoring.monitor import (
    LARGE,
    LEAST_IMAGES,
    NIGHTS,
    last_nights,
    nights_reference,
    shift_of,
    stability_index,
    warn,
)
from eagle_spark.training.evaluation import reference_of

CLASSES = ("COVID", "Normal")


def outcomes(rows: int, seed: int, sure: float = 4.0, covid: float = 0.3) -> pd.DataFrame:
    """Predictions and lung areas as an evaluator gives them."""
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
    """The same as rows of `predictions`."""
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


def reference(rows: pd.DataFrame) -> dict[str, Any]:
    return reference_of(rows, CLASSES, rows["novelty"].to_numpy())


def test_the_index_is_that_of_its_formula() -> None:
    found = stability_index([0.5, 0.5], [8000, 2000], 10**9)
    assert found == pytest.approx(0.3 * np.log(1.6) - 0.3 * np.log(0.4), abs=2e-4)
    assert stability_index([0.5, 0.5], [5000, 5000], 10**6) == 0
    assert stability_index([1.0, 0.0], [0, 10_000], 10**6) > 5
    assert stability_index([0.5, 0.5], [], 0) == 0


@pytest.mark.parametrize("images", [LEAST_IMAGES, 3000])
def test_chance_alone_is_no_shift(images: int) -> None:
    draw = np.random.default_rng(images)
    shares = np.full(10, 0.1)
    found = [
        stability_index(
            (draw.multinomial(122, shares) / 122).tolist(),
            draw.multinomial(images, shares).tolist(),
            122,
        )
        for _ in range(400)
    ]
    assert np.quantile(found, 0.99) < LARGE


@pytest.mark.spark
def test_a_night_like_the_validation_split_has_no_shift_and_another_one_has(spark: Any) -> None:
    home = reference(outcomes(400, 1))
    assert sum(home["label"].values()) == pytest.approx(1)
    assert sum(home["confidence"]["shares"]) == pytest.approx(1)
    same = shift_of(scored(spark, outcomes(1000, 2)), home)
    assert same.keys() == {"label", "confidence", "lung_area", "novelty"}
    assert max(same.values()) < 0.05
    other = shift_of(scored(spark, outcomes(1000, 3, sure=0.7, covid=0.9)), home)
    assert min(other["label"], other["confidence"]) > LARGE > other["lung_area"]
    rows = outcomes(1000, 3)
    rows["novelty"] += 1
    assert shift_of(scored(spark, rows), home)["novelty"] > LARGE
    assert shift_of(scored(spark, outcomes(LEAST_IMAGES - 1, 4)), home) == {}


@pytest.mark.spark
def test_earlier_nights_are_a_reference(spark: Any) -> None:
    nights = nights_reference(scored(spark, outcomes(2000, 5)), ["COVID", "Normal", "Other"])
    assert nights["images"] == 2000
    assert nights["label"]["Other"] == 0
    assert sum(nights["lung_area"]["shares"]) == pytest.approx(1)
    assert max(nights["lung_area"]["shares"]) < 0.15
    assert max(shift_of(scored(spark, outcomes(1000, 6)), nights).values()) < 0.05
    other = shift_of(scored(spark, outcomes(1000, 7, covid=0.9)), nights)
    assert other["label"] > LARGE > other["lung_area"]
    assert nights_reference(scored(spark, outcomes(LEAST_IMAGES - 1, 5)), CLASSES) == {}
    assert nights_reference(scored(spark, outcomes(1, 5)).limit(0), CLASSES) == {}


@pytest.mark.spark
def test_last_nights_are_those_that_published_rows(spark: Any) -> None:
    """Runs with nothing new are no nights; what killed ones published is in that of who told."""
    told = [
        ("old", 0, ["old"]),
        *((f"night-{i}", 1 + i, [f"night-{i}"]) for i in range(NIGHTS - 1)),
        ("after-killed", 50, ["killed", "killed-too"]),
        *((f"rejected-{i}", 60 + i, [f"rejected-{i}"]) for i in range(NIGHTS)),
        *((f"empty-{i}", 100 + i, []) for i in range(NIGHTS + 1)),
        ("tonight", 200, ["tonight"]),
    ]
    runs = pd.DataFrame(
        {
            "run_id": [run for run, _, _ in told],
            "job": "score",
            "model_id": "m",
            "started_at": [pd.Timestamp(2026, 1, 1) + pd.Timedelta(at, "h") for _, at, _ in told],
            "result": [json.dumps({"published_runs": own}) for _, _, own in told],
        }
    )
    table = spark.createDataFrame(runs.sample(frac=1, random_state=7))
    warehouse: Any = SimpleNamespace(exists=lambda _: True, read=lambda _: table)
    wrote = ["old", "killed", "killed-too", "tonight", *(f"night-{i}" for i in range(NIGHTS - 1))]
    rows = spark.createDataFrame([(run,) for run in wrote], "run_id STRING")
    found = last_nights(warehouse, rows, "model_id = 'm'", ["tonight"])
    assert set(found) == set(wrote) - {"old", "tonight"}


@pytest.mark.spark
def test_nights_before_there_was_novelty_are_held_against_without_it(spark: Any) -> None:
    before = nights_reference(scored(spark, outcomes(500, 5).assign(novelty=None)), CLASSES)
    assert "novelty" not in before
    assert "novelty" not in shift_of(scored(spark, outcomes(500, 6)), before)


def test_what_is_large_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert not warn({"training": {"label": LARGE}, "nights": {}})
    assert capsys.readouterr().err == ""
    assert warn({"training": {"label": 0.1, "novelty": 3.0}})
    assert "warning: novelty of tonight's images is not that of training" in capsys.readouterr().err


@pytest.mark.spark
def test_all_of_one_value_is_one_bin(spark: Any) -> None:
    rows = outcomes(LEAST_IMAGES, 1)
    rows["area"] = 0.25
    home = reference(rows)
    assert home["lung_area"]["edges"] == [0.25]
    assert shift_of(scored(spark, rows), home)["lung_area"] == 0
