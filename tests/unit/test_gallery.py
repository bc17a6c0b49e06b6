"""Pictures of predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from eagle_spark.imaging.mask import encode_mask
from eagle_spark.report.gallery import LUNG_COLOUR, GalleryEntry, draw_gallery, overlay_mask

SIZE = 32


def lungs() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[8:24, 4:12] = mask[8:24, 20:28] = True
    return mask


def test_the_overlay_tints_the_mask_alone() -> None:
    pixels = np.random.default_rng(1).integers(0, 200, (SIZE, SIZE), np.uint8)
    before, mask = pixels.copy(), lungs()
    drawn = overlay_mask(pixels, mask)
    grey = np.repeat(pixels[..., None] / 255.0, 3, axis=2)
    assert np.array_equal(drawn[~mask], grey[~mask])
    assert (drawn[mask][:, 2] > grey[mask][:, 2]).all()
    assert np.allclose(drawn[8, 4:12], LUNG_COLOUR)  # the outline
    assert not np.allclose(drawn[16, 8], LUNG_COLOUR)
    assert np.array_equal(pixels, before)


def test_the_gallery_is_a_png(tmp_path: Path) -> None:
    rows = []
    for number in range(7):  # one more than fit into a line
        path = tmp_path / f"{number}.png"
        Image.linear_gradient("L").resize((64, 48)).point(lambda grey: grey // 2).save(path)
        rows.append(
            GalleryEntry(f"file://{path}", "COVID", 0.5, number % 2 == 0, encode_mask(lungs()))
        )
    sizes = []
    for count in (6, 7):
        draw_gallery(rows[:count], "Seven films", tmp_path / "gallery.png")
        with Image.open(tmp_path / "gallery.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            sizes.append(picture.size)
    assert sizes[0][0] == sizes[1][0]
    assert sizes[0][1] < sizes[1][1]


def test_an_empty_gallery_is_a_png(tmp_path: Path) -> None:
    draw_gallery([], "Nothing scored", tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as picture:
        assert picture.format == "PNG"
