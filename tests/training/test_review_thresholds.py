"""Review thresholds from outcomes of the validation split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from eagle_spark.metrics.calibration import UNREACHABLE_CONFIDENCE
from eagle_spark.model.review import RANGED_MASK_MEASURES, ReviewThresholds
from eagle_spark.training.review_thresholds import (
    NOVELTY_TAIL,
    fit_thresholds,
    flag_outcomes,
    novelty_of_outcomes,
)

CLASSES = ("a", "b")


def outcomes(count: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    sure = draw.uniform(0.5, 1, count)
    return pd.DataFrame(
        {
            "label": np.where(draw.random(count) < sure, "a", "b"),
            "probabilities": [[probability, 1 - probability] for probability in sure],
            "detail": draw.gamma(8, 0.1, count),
            "features": draw.gamma(20, 0.05, count),
            "area": draw.normal(0.3, 0.03, count),
            "parts": draw.choice([1.0, 2.0], count),
            "border": draw.choice([0.0, 0.05], count, p=[0.98, 0.02]),
        }
    )


def masks(count: int) -> dict[str, np.ndarray]:
    return {name: outcomes(count, 9)[name].to_numpy() for name in RANGED_MASK_MEASURES}


def test_thresholds_flag_few_validation_images_per_reason() -> None:
    limits = fit_thresholds(outcomes(4000, 1), CLASSES, masks(4000))
    flags = flag_outcomes(outcomes(4000, 2), limits)
    assert np.mean(flags["novelty"]) == pytest.approx(1 - (1 - NOVELTY_TAIL) ** 2, abs=0.012)
    assert np.mean(flags["mask"]) == pytest.approx(0.01, abs=0.008)
    sure = np.array([max(probabilities) for probabilities in outcomes(4000, 2)["probabilities"]])
    assert np.array_equal(flags["confidence"], sure < limits.confidence)


def test_an_outlier_is_flagged_with_its_reason() -> None:
    limits = fit_thresholds(outcomes(500, 1), CLASSES, masks(500))
    usual = outcomes(500, 1).median(numeric_only=True).to_dict()
    usual |= {"label": "a", "probabilities": [1.0, 0.0], "parts": 2.0, "border": 0.0}
    strange = [{"detail": 9.0}, {"features": 9.0}, {"parts": 5.0}, {"area": 0.0}, {"border": 0.4}]
    rows = pd.DataFrame([usual, *(usual | changes for changes in strange)])
    flags = flag_outcomes(rows, limits)
    assert flags["novelty"].tolist() == [False, True, True, False, False, False]
    assert flags["mask"].tolist() == [False, False, False, True, True, True]
    assert not flags["confidence"].any()
    assert novelty_of_outcomes(rows, limits)[0] == pytest.approx(0, abs=0.05)


def test_without_a_validation_split_every_image_is_flagged() -> None:
    limits = fit_thresholds(outcomes(0, 1), CLASSES, masks(9))
    assert limits == ReviewThresholds(confidence=UNREACHABLE_CONFIDENCE, novelty={}, mask={})
    flags = flag_outcomes(outcomes(5, 1), limits)
    assert flags["confidence"].all()
    assert not flags["novelty"].any() | flags["mask"].any()
    assert np.isnan(novelty_of_outcomes(outcomes(5, 1), limits)).all()
