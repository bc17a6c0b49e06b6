"""From a network's outputs to a prediction: class, lungs, review."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import DecodedImage
from eagle_spark.model.bundle import Bundle
from eagle_spark.model.engines import ModelOutputs
from eagle_spark.model.metadata import InputContract, ModelMetadata
from eagle_spark.model.predictor import Prediction, add_image, decode_outputs, reject
from eagle_spark.model.review import Flag, ReviewThresholds

CLASSES = ("COVID", "Normal")
STATISTICS = np.zeros((1, 3), np.float32)


def make_bundle(review: ReviewThresholds, threshold: float = 0.5, novelty: Any = None) -> Bundle:
    metadata = ModelMetadata(
        classes=CLASSES,
        input=InputContract(size=4),
        mask_threshold=threshold,
        review=review,
        engines={},
    )
    return Bundle(Path("model"), metadata, novelty)


CONFIDENCE_ALONE = ReviewThresholds(confidence=0.6, novelty={}, mask={})


def predict(mask: float, threshold: float) -> Prediction:
    """Return the prediction for outputs 0.25 and 0.75 and a mask of one value."""
    bundle = make_bundle(CONFIDENCE_ALONE, threshold)
    masks = np.full((1, 4, 4), mask, np.float32)
    outputs = ModelOutputs(np.array([[0.25, 0.75]]), masks, STATISTICS)
    (prediction,) = decode_outputs(bundle, np.zeros((1, 4, 4), np.uint8), outputs)
    return prediction


def image(dicom: dict[str, str | None] | None, *notes: str) -> DecodedImage:
    return DecodedImage(np.zeros((4, 4), np.uint8), 4, 4, dicom, notes)


@pytest.mark.parametrize(("mask", "area"), [(0.49, 0.0), (0.5, 1.0), (0.51, 1.0)])
def test_lungs_begin_at_the_threshold_of_the_model(mask: float, area: float) -> None:
    prediction = predict(mask, threshold=0.5)
    assert prediction.lung_area == area
    assert prediction.mask is not None
    assert (prediction.mask.dtype, prediction.mask.all()) == (np.bool_, area == 1.0)
    assert (prediction.status, prediction.label, prediction.confidence) == (
        "scored",
        "Normal",
        0.75,
    )
    assert prediction.probabilities == {"COVID": 0.25, "Normal": 0.75}


def test_predictions_are_in_the_order_of_the_images() -> None:
    bundle = make_bundle(CONFIDENCE_ALONE)
    labels = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    outputs = ModelOutputs(labels, np.zeros((3, 4, 4)), np.zeros((3, 3)))
    predictions = list(decode_outputs(bundle, np.zeros((3, 4, 4), np.uint8), outputs))
    assert [prediction.label for prediction in predictions] == ["COVID", "Normal", "COVID"]
    assert [prediction.confidence for prediction in predictions] == [0.9, 0.8, 0.7]


def test_a_prediction_below_a_threshold_needs_review_and_gives_the_reasons() -> None:
    def predict_within(confidence: float, novelty: float, area: tuple[float, float]) -> Prediction:
        density = SimpleNamespace(
            negative_log_density=lambda _pixels, _statistics: {"detail": np.array([novelty])}
        )
        limits = ReviewThresholds(
            confidence=confidence, novelty={"detail": (0.0, 1.0)}, mask={"area": area}
        )
        bundle = make_bundle(limits, novelty=density)
        outputs = ModelOutputs(np.array([[0.25, 0.75]]), np.ones((1, 4, 4)), STATISTICS)
        (prediction,) = decode_outputs(bundle, np.zeros((1, 4, 4), np.uint8), outputs)
        return prediction

    sure = predict_within(0.7, 0.5, (0.5, 1.0))
    assert (sure.needs_review, sure.review_reasons, sure.novelty) == (False, (), 0.5)
    doubtful = predict_within(0.8, 1.5, (0.0, 0.9))
    assert (doubtful.needs_review, doubtful.novelty) == (True, 1.5)
    assert doubtful.review_reasons == ("confidence", "novelty", "mask")


@pytest.mark.parametrize("intent", ["FOR PROCESSING", "for processing"])
def test_a_raw_image_needs_review_whatever_the_prediction(intent: str) -> None:
    prediction = add_image(predict(0.9, 0.5), "id", image({"intent": intent}))
    assert prediction.review_reasons[-1] == str(Flag.FOR_PROCESSING)
    assert prediction.needs_review


@pytest.mark.parametrize("dicom", [None, {}, {"intent": None}, {"intent": "FOR PRESENTATION"}])
def test_other_images_have_no_further_flags(dicom: dict[str, str | None] | None) -> None:
    plain = predict(0.9, 0.5)
    prediction = add_image(plain, "id", image(dicom, "no window"))
    assert (prediction.review_reasons, prediction.needs_review) == (
        plain.review_reasons,
        plain.needs_review,
    )
    assert (prediction.image_id, prediction.detail, prediction.dicom) == ("id", "no window", dicom)
    assert prediction.mask is plain.mask


def test_a_rejected_image_has_a_reason_and_no_label() -> None:
    error = ImageRejectedError(Reason.TRUNCATED, "12 bytes are missing")
    assert reject(error, "id") == Prediction(
        "rejected", "id", reason="truncated", detail="12 bytes are missing"
    )
