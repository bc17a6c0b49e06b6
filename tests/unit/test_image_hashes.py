from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.datasets.near_duplicates import MAX_DISTANCE
from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.imaging.hashes import HASH_BYTES, image_id, perceptual_hash
from tests.helpers.planted import encoded, picture

SIZE = 224


def noisy(seed: int, side: int = 300) -> Image.Image:
    """The common outline, and smooth structure that is this patient's own."""
    own = np.random.default_rng(seed).normal(size=(12, 12)).astype(np.float32) * 25
    detail = np.asarray(Image.fromarray(own).resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray((picture(side) + detail).clip(0, 255).astype(np.uint8))


def hash_of(data: bytes, size: int = SIZE) -> bytes:
    return perceptual_hash(read_radiograph(data, size).pixels)


def distance(left: bytes, right: bytes) -> int:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).bit_count()


ORIGINAL = noisy(1)
HASH = hash_of(encoded(ORIGINAL, "PNG"))


def brighter(image: Image.Image) -> Image.Image:
    values: NDArray[np.float64] = np.asarray(image) * 0.9 + 12
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize(
    "copy",
    [
        encoded(ORIGINAL, "JPEG", quality=50),
        encoded(ORIGINAL.resize((150, 150), Image.Resampling.LANCZOS), "PNG"),
        encoded(ORIGINAL.resize((1024, 1024), Image.Resampling.BICUBIC), "JPEG", quality=80),
        encoded(brighter(ORIGINAL), "PNG"),
        encoded(Image.fromarray(np.asarray(ORIGINAL).astype(np.uint16) * 16), "PNG"),
    ],
    ids=["quality_50", "150_pixels", "1024_pixels", "brighter", "16_bit"],
)
def test_copies_are_near(copy: bytes) -> None:
    assert distance(HASH, hash_of(copy)) <= MAX_DISTANCE


def test_other_patients_with_the_same_outline_are_far() -> None:
    others = [hash_of(encoded(noisy(seed), "PNG")) for seed in range(2, 12)]
    assert min(distance(HASH, other) for other in others) > MAX_DISTANCE


@pytest.mark.parametrize("size", [96, 192, 299])
def test_hash_hardly_depends_on_the_size(size: int) -> None:
    assert distance(HASH, hash_of(encoded(ORIGINAL, "PNG"), size)) <= 6


def test_constant_images_agree_and_hold_no_noise() -> None:
    black = perceptual_hash(np.zeros((SIZE, SIZE), np.uint8))
    assert black == bytes(HASH_BYTES)
    greys = {perceptual_hash(np.full((SIZE, SIZE), level, np.uint8)) for level in (1, 77, 255)}
    assert greys == {b"\x80" + bytes(HASH_BYTES - 1)}


def test_image_id_is_sha256_of_the_bytes() -> None:
    assert image_id(b"abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert len(image_id(b"")) == 64
