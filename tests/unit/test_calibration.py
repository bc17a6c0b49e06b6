from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from eagle_spark.metrics.calibration import (
    LEAST_SURE,
    NEVER_SURE,
    calibration,
    enough_confidence,
    flagged_shares,
    risk_coverage,
    softened,
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
    assert enough_confidence(outcomes(rows), CLASSES) == 0.8  # 49 of 50
    assert enough_confidence(outcomes(rows), CLASSES, wanted=0.99) == 0.9


@pytest.mark.parametrize("turn", [1, -1])
def test_equally_sure_images_pass_or_fail_together(turn: int) -> None:
    sure, tied = [(0.95, True)] * 20, ([(0.9, True)] * 20 + [(0.9, False)] * 20)[::turn]
    assert enough_confidence(outcomes(sure + tied), CLASSES) == 0.95
    assert enough_confidence(outcomes(tied), CLASSES) == NEVER_SURE


def test_a_few_images_prove_nothing() -> None:
    few = [(0.99, True)] * (LEAST_SURE - 1)
    assert enough_confidence(outcomes(few), CLASSES) == NEVER_SURE
    assert enough_confidence(outcomes([*few, (0.6, False)]), CLASSES) == NEVER_SURE
    assert enough_confidence(outcomes([*few, (0.6, True)]), CLASSES) == 0.6
    assert enough_confidence(outcomes([]), CLASSES) == NEVER_SURE


def test_a_wrong_most_sure_image_does_not_spoil_the_rest() -> None:
    rows = [(0.99, False)] + [(0.9, True)] * 99
    assert enough_confidence(outcomes(rows), CLASSES) == 0.9


def test_softening_undoes_a_temperature() -> None:
    logits = np.random.default_rng(3).normal(0, 4, (50, 3))

    def shares(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    np.testing.assert_allclose(softened(shares(logits / 2.5), 2.5), shares(logits), atol=1e-9)
    assert np.isfinite(softened(np.array([[1.0, 0.0]]), 3.0)).all()


def test_a_temperature_that_mends_overconfidence_is_told_in_both_errors() -> None:
    draw = np.random.default_rng(5)
    cool = draw.uniform(0.5, 1, 4000)
    rows = list(zip(cool.tolist(), (draw.random(4000) < cool).tolist(), strict=True))
    found = calibration(outcomes(rows), CLASSES, 0.5)
    assert found["ece"] < 0.03 < found["ece_before"]
    assert found["ece"] == expected_calibration_error(
        np.array([0 if right else 1 for _, right in rows]), np.array([[c, 1 - c] for c in cool])
    )
    for name in ("reliability", "reliability_before"):
        assert sum(found[name]["images"]) == 4000
    sure = np.array(found["reliability"]["confidence"])
    assert np.abs(sure - found["reliability"]["accuracy"]).max() < 0.08


def test_coverage_and_threshold_say_the_same() -> None:
    rows = [(0.99, True)] * 20 + [(0.9, True)] * 29 + [(0.8, False)] + [(0.7, False)] * 10
    found = calibration(outcomes(rows), CLASSES, 1.0)
    assert found["coverage_98"] == 50 / 60
    assert found["risk_coverage"] == {
        "coverage": [20 / 60, 49 / 60, 50 / 60, 1.0],
        "risk": [0.0, 0.0, 1 / 50, 11 / 60],
    }
    assert calibration(outcomes([]), CLASSES, 1.0) == {}


def test_a_curve_of_many_images_stays_short_and_ends_with_all() -> None:
    confidence = np.random.default_rng(1).random(5000)
    curve = risk_coverage(confidence, confidence > 0.2)
    assert len(curve["risk"]) <= 100
    assert curve["coverage"][-1] == 1.0
    assert curve["risk"][-1] == pytest.approx(np.mean(confidence <= 0.2))


def test_shares_of_flags() -> None:
    flags = {"confidence": np.array([True, False, False, True]), "mask": np.zeros(4, bool)}
    assert flagged_shares(flags) == {"any": 0.5, "confidence": 0.5, "mask": 0.0}
    assert flagged_shares({"mask": np.zeros(0, bool)}) == {}
