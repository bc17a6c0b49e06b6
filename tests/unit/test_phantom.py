from __future__ import annotations

import numpy as np
import pytest

from eagle_spark.datasets.synthetic.anatomy import RANGES, SIDES, Anatomy
from eagle_spark.datasets.synthetic.opacity import render_opacity
from eagle_spark.datasets.synthetic.phantom import render_radiograph
from eagle_spark.datasets.synthetic.projection import View

STRAIGHT = View(angle=0.0, scale=1.0, shift=(0.0, 0.0))


def patient(number: int) -> Anatomy:
    return Anatomy.draw(np.random.default_rng(number))


def taken(anatomy: Anatomy, disease: str) -> np.ndarray:
    return render_opacity(anatomy, STRAIGHT, disease, 1.0, np.random.default_rng(anatomy.texture))


def test_an_image_is_8_bit_299_and_its_mask_256() -> None:
    film = render_radiograph(patient(1), None, np.random.default_rng(1))
    assert (film.pixels.dtype, film.pixels.shape) == (np.uint8, (299, 299))
    assert (film.mask.dtype, film.mask.shape) == (np.bool_, (256, 256))


def test_opacities_hide_lung_in_the_image_but_not_in_the_mask() -> None:
    clear = render_radiograph(patient(2), None, np.random.default_rng(5))
    for disease in ("ground glass", "interstitial"):
        ill = render_radiograph(patient(2), disease, np.random.default_rng(5))
        assert np.array_equal(ill.mask, clear.mask)
        assert not np.array_equal(ill.pixels, clear.pixels)


def test_two_images_of_a_patient_differ_by_pose_but_show_the_same_lungs() -> None:
    first, second = (
        render_radiograph(patient(3), None, np.random.default_rng(seed)) for seed in (1, 2)
    )
    other = render_radiograph(patient(8), None, np.random.default_rng(1))
    assert not np.array_equal(first.pixels, second.pixels)
    assert _dice(first.mask, second.mask) > _dice(first.mask, other.mask)
    assert _dice(first.mask, second.mask) > 0.85


def test_ground_glass_lies_low_and_at_the_rim_and_interstitial_round_the_hila() -> None:
    rim, centre = [], []
    for number in range(6):
        anatomy = patient(number)
        glass, streaks = taken(anatomy, "ground glass"), taken(anatomy, "interstitial")
        rim.append(_mass_distance(glass))
        centre.append(_mass_distance(streaks))
    assert np.mean(rim) > np.mean(centre) + 0.04


def test_both_diseases_are_bilateral_and_leave_some_air() -> None:
    for number in range(6):
        for disease in ("ground glass", "interstitial"):
            layer = taken(patient(number), disease)
            assert layer.min() >= 0.0
            assert layer.max() < 1.0
            assert min(layer[:, :130].max(), layer[:, 169:].max()) > 0.25


@pytest.mark.parametrize("number", range(20))
def test_anatomy_stays_plausible(number: int) -> None:
    anatomy = patient(number)
    for name, (minimum, maximum) in RANGES.items():
        assert minimum <= getattr(anatomy, name) <= maximum
    right, left = (anatomy.lung(side) for side in SIDES)
    assert right[:, 0].max() < 0.0 < left[:, 0].min()
    middle = np.array([0.6 * anatomy.half_width])
    assert anatomy.diaphragm(-1, middle) < anatomy.diaphragm(1, middle)  # higher on the right
    assert anatomy.heart_outline()[:, 0].max() > -anatomy.heart_outline()[:, 0].min()
    heart = np.ptp(anatomy.heart_outline()[:, 0])
    assert 0.33 < heart / (2.0 * anatomy.half_width) < 0.62


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2.0 * float((first & second).sum()) / float(first.sum() + second.sum())


def _mass_distance(layer: np.ndarray) -> float:
    """Return the mean distance of opacity from the midline, in units of the image's side."""
    across = np.abs((np.arange(layer.shape[1]) + 0.5) / layer.shape[1] - 0.5)
    return float((layer.sum(axis=0) * across).sum() / layer.sum())
