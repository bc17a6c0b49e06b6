from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from eagle_spark.errors import ModelError
from eagle_spark.model.novelty import (
    COMPONENTS,
    compute_detail,
    fit_density,
    fit_novelty,
    read_novelty,
    write_novelty,
)

SIDE = 64


def images(count: int, seed: int, blur: float = 0.0) -> NDArray[np.uint8]:
    """Clouds of a grain like film; of other contrast each."""
    draw = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(60, 200, (8, 8), np.uint8)).resize((SIDE, SIDE))
        values = np.asarray(coarse) + draw.normal(0, 4, (SIDE, SIDE))
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        pictures.append(np.asarray(image.filter(ImageFilter.GaussianBlur(blur)) if blur else image))
    return np.stack(pictures)


def test_detail_is_the_energy_of_each_wave() -> None:
    across = np.arange(16) % 8
    wave = 100 + 50 * np.cos(np.pi * (across + 0.5) * 3 / 8)
    stripes = np.tile(np.rint(wave).astype(np.uint8), (16, 1))
    detail = compute_detail(np.stack([stripes, stripes.T]))
    assert detail.shape == (2, 63)
    assert detail[0].argmax() == 3 - 1  # the first, the mean, is left out
    assert detail[1].argmax() == 3 * 8 - 1
    assert detail[0].max() == pytest.approx(np.log(50**2 * 8 * 8 / 2), abs=0.1)
    assert np.isfinite(compute_detail(np.zeros((1, 16, 16), np.uint8))).all()


def test_blur_and_noise_are_novel_and_similar_images_are_not() -> None:
    density = fit_density(compute_detail(images(200, 1)), COMPONENTS["detail"])
    limit = np.quantile(density.negative_log_density(compute_detail(images(100, 2))), 0.95)
    alike = density.negative_log_density(compute_detail(images(100, 3)))
    assert np.mean(alike > limit) < 0.15
    assert np.all(density.negative_log_density(compute_detail(images(20, 4, blur=0.6))) > limit)
    noise = np.random.default_rng(5).integers(0, 256, (20, SIDE, SIDE), np.uint8)
    assert np.all(density.negative_log_density(compute_detail(noise)) > limit)


def test_a_density_fits_the_axes_and_their_scale() -> None:
    draw = np.random.default_rng(7)
    rows = draw.normal(0, 1, (4000, 2)) @ draw.normal(0, 1, (2, 12)) + draw.normal(
        3, 0.1, (4000, 12)
    )
    density = fit_density(rows, 2)
    assert density.negative_log_density(rows).mean() == pytest.approx(0.5, abs=0.01)
    aside = rows[:1] + draw.normal(0, 1, 12)
    assert (
        density.negative_log_density(aside)[0]
        > 5
        > 2
        > density.negative_log_density(rows).max() / 2
    )


@pytest.mark.parametrize("rows", [2, 7])
def test_few_and_constant_rows_give_finite_numbers(rows: int) -> None:
    values = np.zeros((rows, 30))
    values[:, :3] = np.arange(rows)[:, None]
    nll = fit_density(values, 16).negative_log_density(np.vstack([values, np.ones(30)]))
    assert np.isfinite(nll).all()
    assert nll[-1] > nll[:-1].max()
    assert np.isfinite(
        fit_density(np.ones((rows, 5)), 3).negative_log_density(np.zeros((1, 5)))
    ).all()


def test_novelty_does_not_depend_on_the_batch() -> None:
    pixels = images(130, 1)
    statistics = np.random.default_rng(2).normal(0, 1, (130, 2000)).astype(np.float32)
    novelty = fit_novelty({"detail": compute_detail(pixels[:90]), "features": statistics[:90]})
    whole = novelty.negative_log_density(pixels, statistics)
    for size in (1, 7, 64):
        for start in range(0, len(pixels), size):
            part = slice(start, start + size)
            for name, values in novelty.negative_log_density(
                pixels[part], statistics[part]
            ).items():
                np.testing.assert_array_equal(values, whole[name][part])


def test_a_written_novelty_file_is_read(tmp_path: Path) -> None:
    pixels = images(40, 1)
    statistics = np.random.default_rng(2).normal(0, 1, (40, 20)).astype(np.float32)
    novelty = fit_novelty({"detail": compute_detail(pixels), "features": statistics})
    write_novelty(novelty, tmp_path / "novelty.npz")
    read = read_novelty(tmp_path / "novelty.npz").negative_log_density(pixels, statistics)
    for name, values in novelty.negative_log_density(pixels, statistics).items():
        np.testing.assert_allclose(read[name], values, rtol=1e-3)


def test_another_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    for name in ("other.npz", "gone.npz"):
        with pytest.raises(ModelError, match=name):
            read_novelty(tmp_path / name)
