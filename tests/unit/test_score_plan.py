"""The rate of earlier runs by which the time of a run of `score` is estimated."""

from __future__ import annotations

from typing import Any

import pytest

from eagle_spark.scoring.plan import Rate, find_rate, measure_rate


def result(scored: int = 90, seconds: float = 12.0, score: float = 9.0, **more: Any) -> Any:
    return {"scored": scored, "seconds": seconds, "stage_seconds": {"score": score}, **more}


def record(run_id: str, images: str, scored: int = 90) -> Any:
    return run_id, {"images": images}, result(scored)


def test_the_rate_is_that_of_the_stage_score() -> None:
    rate = measure_rate("b", result(finished=True, published_run_ids=["b"]))
    assert rate == Rate("b", images_per_second=10.0, other_seconds=3.0)
    assert (rate.estimate(0), rate.estimate(200)) == (3.0, 23.0)


def test_a_record_of_an_earlier_version_has_a_rate() -> None:
    assert measure_rate("b", result()) == Rate("b", 10.0, 3.0)


@pytest.mark.parametrize(
    "figures",
    [
        result(scored=0),
        result(score=0.0),
        result(finished=False),
        result(published_run_ids=["a", "b"]),  # `a` was killed, and its rows count as scored
        {**result(), "stage_seconds": {}},
    ],
)
def test_a_run_without_a_rate(figures: Any) -> None:
    assert measure_rate("b", figures) is None


def test_the_newest_run_of_the_folder_comes_first() -> None:
    records = [
        record("d", "/ward", scored=0),
        record("c", "/other"),
        record("b", "file:///ward"),
        record("a", "/ward"),
    ]
    wanted = {"/ward": "b", "/other": "c", "/new": "c"}
    rates = {images: find_rate(records, images) for images in wanted}
    assert {images: rate and rate.run_id for images, rate in rates.items()} == wanted
    assert find_rate([record("d", "/ward", scored=0)], "/ward") is None
    assert find_rate([], "/ward") is None
