from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from eagle_spark.metrics.calibration import (
    MIN_CONFIDENT_IMAGES,
    UNREACHABLE_CONFIDENCE,
    RiskCoverage,
    compute_calibration,
    compute_flagged_shares,
    compute_risk_coverage,
    confidence_threshold,
    undo_temperature,
)
from eagle_spark.metrics.scores import expected_calibration_error

CLASSES = ("a", "b")


def outcomes(rows: Sequence[tuple[float, bool]]) -> pd.DataFrame:
    """One outcome for each (confidence, is it right); all are predicted to be `a`."""
    return pd.DataFrame(
        {
            "label": ["a" if right else "b" for _, right in rows],
            "probabilities": [[sure, 1 - sure] for sure, _ in rows],
        }
    )


def test_the_threshold_is_the_lowest_confidence_that_keeps_the_share() -> None:
    rows = [(0.99, True)] * 20 + [(0.9, True)] * 29 + [(0.8, False)] + [(0.7, False)] * 9
    assert confidence_threshold(outcomes(rows), CLASSES) == 0.8  # 49 of 50
    assert confidence_threshold(outcomes(rows), CLASSES, target_accuracy=0.99) == 0.9


@pytest.mark.parametrize("turn", [1, -1])
def test_equally_confident_images_pass_or_fail_together(turn: int) -> None:
    sure, tied = [(0.95, True)] * 20, ([(0.9, True)] * 20 + [(0.9, False)] * 20)[::turn]
    assert confidence_threshold(outcomes(sure + tied), CLASSES) == 0.95
    assert confidence_threshold(outcomes(tied), CLASSES) == UNREACHABLE_CONFIDENCE


def test_a_few_images_give_no_threshold() -> None:
    few = [(0.99, True)] * (MIN_CONFIDENT_IMAGES - 1)
    assert confidence_threshold(outcomes(few), CLASSES) == UNREACHABLE_CONFIDENCE
    assert confidence_threshold(outcomes([*few, (0.6, False)]), CLASSES) == UNREACHABLE_CONFIDENCE
    assert confidence_threshold(outcomes([*few, (0.6, True)]), CLASSES) == 0.6
    assert confidence_threshold(outcomes([]), CLASSES) == UNREACHABLE_CONFIDENCE


def test_a_wrong_most_confident_image_is_tolerated() -> None:
    rows = [(0.99, False)] + [(0.9, True)] * 99
    assert confidence_threshold(outcomes(rows), CLASSES) == 0.9


def test_undo_temperature() -> None:
    logits = np.random.default_rng(3).normal(0, 4, (50, 3))

    def shares(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    np.testing.assert_allclose(
        undo_temperature(shares(logits / 2.5), 2.5), shares(logits), atol=1e-9
    )
    assert np.isfinite(undo_temperature(np.array([[1.0, 0.0]]), 3.0)).all()


def test_a_temperature_against_overconfidence_lowers_the_error() -> None:
    draw = np.random.default_rng(5)
    cool = draw.uniform(0.5, 1, 4000)
    rows = list(zip(cool.tolist(), (draw.random(4000) < cool).tolist(), strict=True))
    found = compute_calibration(outcomes(rows), CLASSES, 0.5)
    assert found.ece < 0.03 < found.ece_before
    assert found.ece == expected_calibration_error(
        np.array([0 if right else 1 for _, right in rows]), np.array([[c, 1 - c] for c in cool])
    )
    for curve in (found.reliability, found.reliability_before):
        assert sum(curve.images) == 4000
    sure = np.array(found.reliability.confidence)
    assert np.abs(sure - found.reliability.accuracy).max() < 0.08


def test_coverage_and_threshold_agree() -> None:
    rows = [(0.99, True)] * 20 + [(0.9, True)] * 29 + [(0.8, False)] + [(0.7, False)] * 10
    found = compute_calibration(outcomes(rows), CLASSES, 1.0)
    assert found.coverage_98 == 50 / 60
    assert found.risk_coverage == RiskCoverage(
        coverage=[20 / 60, 49 / 60, 50 / 60, 1.0], risk=[0.0, 0.0, 1 / 50, 11 / 60]
    )
    assert compute_calibration(outcomes([]), CLASSES, 1.0) is None


def test_a_curve_of_many_images_is_short_and_ends_with_all() -> None:
    confidence = np.random.default_rng(1).random(5000)
    curve = compute_risk_coverage(confidence, confidence > 0.2)
    assert len(curve.risk) <= 100
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == pytest.approx(np.mean(confidence <= 0.2))


def test_shares_of_flags() -> None:
    flags = {"confidence": np.array([True, False, False, True]), "mask": np.zeros(4, bool)}
    assert compute_flagged_shares(flags) == {"any": 0.5, "confidence": 0.5, "mask": 0.0}
    assert compute_flagged_shares({"mask": np.zeros(0, bool)}) == {}
