from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from eagle_spark.model.engines import ModelOutputs
from eagle_spark.model.occlusion import (
    AS_IS,
    MASK_MARGIN,
    Attribution,
    blank_regions,
    compute_attribution,
    dilate_mask,
    iter_patches,
    predict_occluded,
)

SIZE = 56


class LooksAt:
    """A model that is sure of class 1 as far as one region of the image has detail."""

    name = "stand-in"

    def __init__(self, region: tuple[slice, slice]) -> None:
        self.region = region

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        detail = pixels[(slice(None), *self.region)].std(axis=(1, 2)) / 128
        share = np.clip(detail, 0.01, 0.99).astype(np.float32)
        label, mask = np.stack([1 - share, share], axis=1), np.zeros((len(pixels), SIZE, SIZE))
        return ModelOutputs(label, mask.astype(np.float32), label)


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).choice([0, 255], (SIZE, SIZE)).astype(np.uint8)


@pytest.fixture
def lungs() -> NDArray[np.bool_]:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[20:44, 8:24] = mask[20:44, 32:48] = True
    return mask


def analyze(
    model: LooksAt, pixels: NDArray[np.uint8], lungs: NDArray[np.bool_]
) -> tuple[Attribution, dict[str, NDArray[np.float32]]]:
    """Return the attribution and the occluded predictions of one image, as in the report."""
    probabilities, wide = (
        model.predict(pixels[np.newaxis]).label[0],
        dilate_mask(lungs, round(MASK_MARGIN * SIZE)),
    )
    return compute_attribution(model.predict, pixels, wide, probabilities), predict_occluded(
        model.predict, pixels, wide, probabilities
    )


def test_a_model_that_uses_the_lungs_depends_on_them_alone(
    pixels: NDArray[np.uint8], lungs: NDArray[np.bool_]
) -> None:
    model = LooksAt((slice(28, 36), slice(12, 20)))
    attribution, probabilities = analyze(model, pixels, lungs)
    sure = {name: round(float(values[1]), 1) for name, values in probabilities.items()}
    assert sure == {AS_IS: 1.0, "lungs_only": 1.0, "without_lungs": 0.0, "without_lung_boxes": 0.0}
    assert attribution.inside > 0.9
    assert attribution.importance[32, 16] > 0.9 * attribution.importance.max()
    assert attribution.importance[:8].max() == 0


def test_a_model_that_uses_a_corner_is_detected(
    pixels: NDArray[np.uint8], lungs: NDArray[np.bool_]
) -> None:
    model = LooksAt((slice(0, 8), slice(0, 8)))
    attribution, probabilities = analyze(model, pixels, lungs)
    sure = {name: round(float(values[1]), 1) for name, values in probabilities.items()}
    assert sure == {AS_IS: 1.0, "lungs_only": 0.0, "without_lungs": 1.0, "without_lung_boxes": 1.0}
    assert attribution.inside < 0.1
    assert 0.2 < attribution.area < 0.4


def test_without_an_important_pixel_the_share_in_the_lungs_is_undefined(
    lungs: NDArray[np.bool_],
) -> None:
    flat = np.full((SIZE, SIZE), 100, np.uint8)
    attribution, _ = analyze(LooksAt((slice(0, 8), slice(0, 8))), flat, lungs)
    assert np.isnan(attribution.inside)


def test_occluded_pixels_have_the_mean_of_the_image(
    pixels: NDArray[np.uint8], lungs: NDArray[np.bool_]
) -> None:
    grey = round(float(pixels.mean()))
    only, without, boxes = blank_regions(pixels, lungs)
    assert np.array_equal(only[lungs], pixels[lungs])
    assert set(only[~lungs].tolist()) == {grey}
    assert np.array_equal(without[~lungs], pixels[~lungs])
    assert set(without[lungs].tolist()) == {grey}
    assert np.array_equal(boxes, without)  # these lungs are boxes
    ring = lungs.copy()
    ring[28:36, 12:20] = False
    assert np.array_equal(blank_regions(pixels, ring)[2], boxes)


def test_an_empty_mask_occludes_all_or_nothing(pixels: NDArray[np.uint8]) -> None:
    only, without, boxes = blank_regions(pixels, np.zeros((SIZE, SIZE), bool))
    assert len(set(only.ravel().tolist())) == 1
    assert np.array_equal(without, pixels)
    assert np.array_equal(boxes, pixels)


@pytest.mark.parametrize("size", [32, 56, 64, 96, 224, 229])
def test_patches_cover_every_pixel_and_stay_inside(size: int) -> None:
    covered = np.zeros((size, size), int)
    for place in iter_patches(size):
        assert covered[place].shape == (-(-size // 7),) * 2
        covered[place] += 1
    assert covered.min() >= 1
    assert len(list(iter_patches(size))) <= 15**2


def test_a_mask_is_widened_in_every_direction_but_not_around_the_edge() -> None:
    mask = np.zeros((9, 9), bool)
    mask[0, 4] = True
    wide = dilate_mask(mask, 2)
    assert wide.sum() == 9
    assert wide[0, 2:7].all()
    assert not wide[-1].any()
