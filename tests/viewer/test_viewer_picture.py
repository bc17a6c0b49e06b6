"""Rendering of an image and its overlay."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from eagle_spark.imaging.decode import decode_image
from eagle_spark.viewer.picture import (
    DEFAULT_LEVEL,
    DEFAULT_WIDTH,
    LUNG_COLOUR,
    VIEW_SIDE,
    compute_window_lut,
    encode_png,
    render_overlay,
    render_view,
    resize_lung_mask,
)
from tests.helpers.sample_images import EXPECTED_REASONS, SAMPLE_IMAGES, encode_image, grey


def test_the_default_window_is_the_identity() -> None:
    assert np.array_equal(compute_window_lut(DEFAULT_LEVEL, DEFAULT_WIDTH), np.arange(256))


def test_a_window_maps_its_levels_from_black_to_white() -> None:
    lut = compute_window_lut(100, 51)  # 74.5 to 124.5, by the formula of DICOM
    assert lut[74] == 0
    assert lut[125] == 255
    assert abs(int(lut[99]) - 127) <= 3
    assert np.all(np.diff(lut.astype(int)) >= 0)
    assert set(compute_window_lut(100, 0)) == {0, 255}


def test_without_lungs_the_image_is_grey() -> None:
    view = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for lungs in (None, np.ones((16, 16), bool)):
        rgb = render_overlay(view, lungs, compute_window_lut(DEFAULT_LEVEL, DEFAULT_WIDTH), 0.0)
        assert np.array_equal(rgb, np.repeat(view[..., None], 3, axis=2))


def test_only_lungs_are_tinted() -> None:
    view = np.full((32, 32), 200, np.uint8)
    lungs = np.zeros((32, 32), bool)
    lungs[8:24, 8:24] = True
    rgb = render_overlay(view, lungs, compute_window_lut(DEFAULT_LEVEL, DEFAULT_WIDTH), 0.5)
    assert np.all(rgb[~lungs] == 200)
    assert np.allclose(rgb[16, 16], (200 + np.array(LUNG_COLOUR)) / 2, atol=1)
    assert np.allclose(rgb[8, 16], 0.1 * 200 + 0.9 * np.array(LUNG_COLOUR), atol=1)


def test_a_view_keeps_the_aspect_ratio() -> None:
    data = encode_image(grey().resize((300, 100)), "PNG")
    view = render_view(data, decode_image(data, 64))
    assert view.shape == (round(VIEW_SIDE / 3), VIEW_SIDE)
    assert view.dtype == np.uint8


def test_a_view_has_the_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode_image(grey().resize((300, 100)), "JPEG", exif=exif)
    assert render_view(data, decode_image(data, 64)).shape == (VIEW_SIDE, round(VIEW_SIDE / 3))


@pytest.mark.parametrize(
    "name", [name for name, reason in EXPECTED_REASONS.items() if reason is None]
)
def test_every_readable_image_has_a_view(name: str) -> None:
    data = SAMPLE_IMAGES[name]()
    radiograph = decode_image(data, 16)
    view = render_view(data, radiograph)
    assert max(view.shape) == VIEW_SIDE
    small = np.asarray(Image.fromarray(view).resize((16, 16), Image.Resampling.BOX), float)
    assert np.abs(small - radiograph.pixels).mean() < 12


def test_a_lung_mask_is_resized_to_the_view() -> None:
    lungs = np.zeros((8, 8), bool)
    lungs[:, :4] = True
    resized = resize_lung_mask(lungs, (40, 80))
    assert resized.shape == (40, 80)
    assert resized[:, :36].all()
    assert not resized[:, 44:].any()


def test_a_saved_image_has_a_comment() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with Image.open(BytesIO(encode_png(rgb, "Solo para investigación. abc"))) as image:
        assert np.array_equal(np.asarray(image), rgb)
        assert image.info["Comment"] == "Solo para investigación. abc"
