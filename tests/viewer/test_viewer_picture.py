"""What is drawn of an image."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.viewer.picture import (
    LEVEL,
    LUNGS,
    VIEW_SIDE,
    WIDTH,
    compose,
    grey_curve,
    lungs_of,
    png_of,
    view_of,
)
from tests.helpers.planted import EXPECTED, PLANTED, encoded, grey


def test_the_widest_window_changes_nothing() -> None:
    assert np.array_equal(grey_curve(LEVEL, WIDTH), np.arange(256))


def test_a_window_spreads_its_levels_from_black_to_white() -> None:
    curve = grey_curve(100, 51)  # 74.5 to 124.5, by the formula of DICOM
    assert curve[74] == 0
    assert curve[125] == 255
    assert abs(int(curve[99]) - 127) <= 3
    assert np.all(np.diff(curve.astype(int)) >= 0)
    assert set(grey_curve(100, 0)) == {0, 255}


def test_without_lungs_the_picture_is_grey() -> None:
    view = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for lungs in (None, np.ones((16, 16), bool)):
        colours = compose(view, lungs, grey_curve(LEVEL, WIDTH), 0.0)
        assert np.array_equal(colours, np.repeat(view[..., None], 3, axis=2))


def test_lungs_are_tinted_and_nothing_else() -> None:
    view = np.full((32, 32), 200, np.uint8)
    lungs = np.zeros((32, 32), bool)
    lungs[8:24, 8:24] = True
    colours = compose(view, lungs, grey_curve(LEVEL, WIDTH), 0.5)
    assert np.all(colours[~lungs] == 200)
    assert np.allclose(colours[16, 16], (200 + np.array(LUNGS)) / 2, atol=1)
    assert np.allclose(colours[8, 16], 0.1 * 200 + 0.9 * np.array(LUNGS), atol=1)


def test_a_view_keeps_the_proportions() -> None:
    data = encoded(grey().resize((300, 100)), "PNG")
    view = view_of(data, read_radiograph(data, 64))
    assert view.shape == (round(VIEW_SIDE / 3), VIEW_SIDE)
    assert view.dtype == np.uint8


def test_a_view_is_turned_as_the_image_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(grey().resize((300, 100)), "JPEG", exif=exif)
    assert view_of(data, read_radiograph(data, 64)).shape == (VIEW_SIDE, round(VIEW_SIDE / 3))


@pytest.mark.parametrize("name", [name for name, reason in EXPECTED.items() if reason is None])
def test_whatever_can_be_read_can_be_viewed(name: str) -> None:
    data = PLANTED[name]()
    film = read_radiograph(data, 16)
    view = view_of(data, film)
    assert max(view.shape) == VIEW_SIDE
    small = np.asarray(Image.fromarray(view).resize((16, 16), Image.Resampling.BOX), float)
    assert np.abs(small - film.pixels).mean() < 12


def test_lungs_reach_the_size_of_the_view() -> None:
    lungs = np.zeros((8, 8), bool)
    lungs[:, :4] = True
    large = lungs_of(lungs, (40, 80))
    assert large.shape == (40, 80)
    assert large[:, :36].all()
    assert not large[:, 44:].any()


def test_a_saved_picture_says_what_it_is() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with Image.open(BytesIO(png_of(colours, "Solo para investigación. abc"))) as image:
        assert np.array_equal(np.asarray(image), colours)
        assert image.info["Comment"] == "Solo para investigación. abc"
