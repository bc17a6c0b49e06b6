from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from eagle_spark.model.review import (
    FLAG_MEANINGS,
    MASK_MEASURES,
    MODEL_FLAGS,
    Flag,
    ReviewThresholds,
    measure_mask,
)

HOME = {"area": (0.1, 0.5), "parts": (1.0, 2.0), "border": (0.0, 0.1)}
LIMITS = ReviewThresholds(
    confidence=0.8, novelty={"detail": (0.5, 0.7), "features": (0.5, 1.5)}, mask=HOME
)
SOUND = {"area": 0.3, "parts": 2.0, "border": 0.0}


def test_a_mask_is_measured_by_its_area_its_parts_and_the_border() -> None:
    lungs = np.zeros((40, 40), bool)
    lungs[8:28, 4:16] = lungs[8:28, 24:36] = True
    assert measure_mask(lungs) == {"area": 0.3, "parts": 2.0, "border": 0.0}
    lungs[36, 2] = True  # a speck
    assert measure_mask(lungs)["parts"] == 2.0
    lungs[:, 0] = True
    assert measure_mask(lungs)["border"] == 40 / 156
    assert measure_mask(np.zeros((20, 20), bool)) == {"area": 0.0, "parts": 0.0, "border": 0.0}
    assert measure_mask(np.ones((20, 20), bool)) == {"area": 1.0, "parts": 1.0, "border": 1.0}


def test_every_measure_of_a_mask_is_named() -> None:
    assert tuple(measure_mask(np.ones((20, 20), bool))) == MASK_MEASURES


def test_every_flag_has_a_meaning_and_those_of_the_model_are_first() -> None:
    assert FLAG_MEANINGS.keys() == set(Flag)
    assert tuple(Flag)[: len(MODEL_FLAGS)] == MODEL_FLAGS


def test_every_flag_has_its_threshold() -> None:
    assert LIMITS.compute_flags(0.8, 1.0, SOUND) == []
    assert LIMITS.compute_flags(0.79, 0.0, SOUND) == [Flag.CONFIDENCE]
    assert LIMITS.compute_flags(0.9, 1.01, SOUND) == [Flag.NOVELTY]
    for name, value in (("area", 0.05), ("area", 0.6), ("parts", 3.0), ("border", 0.2)):
        assert LIMITS.compute_flags(0.9, 0.0, SOUND | {name: value}) == [Flag.MASK]
    assert LIMITS.compute_flags(0.1, 9.0, SOUND | {"parts": 0.0}) == list(MODEL_FLAGS)


def test_novelty_is_the_maximum_over_the_densities() -> None:
    nll = {
        "detail": np.array([0.5, 0.6, 0.9]),
        "features": np.array([0.5, 1.5, 0.0]),
    }
    np.testing.assert_allclose(LIMITS.compute_novelty(nll), [0, 1, 2])


def test_without_thresholds_only_the_confidence_counts() -> None:
    limits = ReviewThresholds(confidence=0.8, novelty={}, mask={})
    assert limits.compute_flags(0.9, None, {}) == []
    assert limits.compute_flags(0.7, None, {}) == [Flag.CONFIDENCE]


def test_thresholds_are_read_as_written() -> None:
    written = json.loads(json.dumps(LIMITS.to_dict()))
    assert ReviewThresholds.model_validate(written) == LIMITS


@pytest.mark.parametrize("found", [{}, {"confidence": 0.8, "novelty": {"detail": 3}, "mask": {}}])
def test_invalid_thresholds_are_refused(found: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ReviewThresholds.model_validate(found)
