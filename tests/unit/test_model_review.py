from __future__ import annotations

import numpy as np
import pytest

from eagle_spark.errors import BundleError
from eagle_spark.model.review import MODEL_FLAGS, Flag, Limits, mask_measures

HOME = {"area": (0.1, 0.5), "parts": (1.0, 2.0), "border": (0.0, 0.1)}
LIMITS = Limits(0.8, {"detail": (0.5, 0.7), "features": (0.5, 1.5)}, HOME)
SOUND = {"area": 0.3, "parts": 2.0, "border": 0.0}


def test_a_mask_is_measured_by_its_area_its_parts_and_the_border() -> None:
    lungs = np.zeros((40, 40), bool)
    lungs[8:28, 4:16] = lungs[8:28, 24:36] = True
    assert mask_measures(lungs) == {"area": 0.3, "parts": 2.0, "border": 0.0}
    lungs[36, 2] = True  # a speck
    assert mask_measures(lungs)["parts"] == 2.0
    lungs[:, 0] = True
    assert mask_measures(lungs)["border"] == 40 / 156
    assert mask_measures(np.zeros((20, 20), bool)) == {"area": 0.0, "parts": 0.0, "border": 0.0}
    assert mask_measures(np.ones((20, 20), bool)) == {"area": 1.0, "parts": 1.0, "border": 1.0}


def test_every_reason_is_named() -> None:
    assert LIMITS.flags(0.8, 1.0, SOUND) == []
    assert LIMITS.flags(0.79, 0.0, SOUND) == [Flag.CONFIDENCE]
    assert LIMITS.flags(0.9, 1.01, SOUND) == [Flag.NOVELTY]
    for name, value in (("area", 0.05), ("area", 0.6), ("parts", 3.0), ("border", 0.2)):
        assert LIMITS.flags(0.9, 0.0, SOUND | {name: value}) == [Flag.MASK]
    assert LIMITS.flags(0.1, 9.0, SOUND | {"parts": 0.0}) == list(MODEL_FLAGS)


def test_novelty_is_that_of_the_most_surprised_density() -> None:
    surprise = {"detail": np.array([0.5, 0.6, 0.9]), "features": np.array([0.5, 1.5, 0.0])}
    np.testing.assert_allclose(LIMITS.novelty_of(surprise), [0, 1, 2])


def test_without_limits_the_confidence_alone_speaks() -> None:
    assert Limits(0.8).flags(0.9, None, {}) == []
    assert Limits(0.8).flags(0.7, None, {}) == [Flag.CONFIDENCE]


def test_limits_are_read_as_written() -> None:
    assert Limits.read(LIMITS.written(), "m") == LIMITS


@pytest.mark.parametrize("found", [{}, {"confidence": 0.8, "novelty": {"detail": 3}, "mask": {}}])
def test_other_limits_are_refused(found: dict[str, object]) -> None:
    with pytest.raises(BundleError, match=r"m/metadata.json: review is not"):
        Limits.read(found, "m/metadata.json")
