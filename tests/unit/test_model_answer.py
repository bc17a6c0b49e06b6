"""What outputs of an engine mean: class, lungs, and whether a person has to look."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eagle_spark.model.answer import answers, with_image_flags
from eagle_spark.model.engines import Predictions
from eagle_spark.model.review import Flag, Limits


def answer_of(mask: float, threshold: float) -> Any:
    bundle: Any = SimpleNamespace(
        classes=("COVID", "Normal"), threshold=threshold, limits=Limits(0.6), novelty=None
    )
    masks = np.full((1, 4, 4), mask, np.float32)
    outputs = Predictions(np.array([[0.25, 0.75]]), masks, np.zeros((1, 3), np.float32))
    (found,) = answers(bundle, np.zeros((1, 4, 4), np.uint8), outputs)
    return found


@pytest.mark.parametrize(("mask", "area"), [(0.49, 0.0), (0.5, 1.0), (0.51, 1.0)])
def test_lungs_begin_at_the_threshold_of_the_model(mask: float, area: float) -> None:
    found = answer_of(mask, threshold=0.5)
    assert found.lung_area == area
    assert (found.label, found.confidence) == ("Normal", 0.75)
    assert found.probabilities == {"COVID": 0.25, "Normal": 0.75}


@pytest.mark.parametrize("intent", ["FOR PROCESSING", "for processing"])
def test_a_raw_image_is_to_be_looked_at_whatever_the_answer(intent: str) -> None:
    found = with_image_flags(answer_of(0.9, 0.5), {"intent": intent})
    assert found.reasons[-1] == Flag.FOR_PROCESSING


@pytest.mark.parametrize("dicom", [None, {}, {"intent": None}, {"intent": "FOR PRESENTATION"}])
def test_other_images_are_not(dicom: dict[str, str | None] | None) -> None:
    plain = answer_of(0.9, 0.5)
    assert with_image_flags(plain, dicom) == plain
