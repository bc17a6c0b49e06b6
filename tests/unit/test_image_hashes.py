from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.datasets.near_duplicates import MAX_DISTANCE
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.hashes import HASH_BYTES, compute_image_id, compute_perceptual_hash
from tests.helpers.sample_images import encode_image, picture

SIZE = 224


def noisy(seed: int, side: int = 300) -> Image.Image:
    """The common outline, and smooth structure that is this patient's own."""
    noise = np.random.default_rng(seed).normal(size=(12, 12)).astype(np.float32) * 25
    detail = np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray((picture(side) + detail).clip(0, 255).astype(np.uint8))


def compute_hash(data: bytes, size: int = SIZE) -> bytes:
    return compute_perceptual_hash(decode_image(data, size).pixels)


def distance(left: bytes, right: bytes) -> int:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).bit_count()


ORIGINAL = noisy(1)
HASH = compute_hash(encode_image(ORIGINAL, "PNG"))


def brighter(image: Image.Image) -> Image.Image:
    values: NDArray[np.float64] = np.asarray(image) * 0.9 + 12
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize(
    "copy",
    [
        encode_image(ORIGINAL, "JPEG", quality=50),
        encode_image(ORIGINAL.resize((150, 150), Image.Resampling.LANCZOS), "PNG"),
        encode_image(ORIGINAL.resize((1024, 1024), Image.Resampling.BICUBIC), "JPEG", quality=80),
        encode_image(brighter(ORIGINAL), "PNG"),
        encode_image(Image.fromarray(np.asarray(ORIGINAL).astype(np.uint16) * 16), "PNG"),
    ],
    ids=["quality_50", "150_pixels", "1024_pixels", "brighter", "16_bit"],
)
def test_copies_are_near(copy: bytes) -> None:
    assert distance(HASH, compute_hash(copy)) <= MAX_DISTANCE


def test_other_patients_with_the_same_outline_are_far() -> None:
    others = [compute_hash(encode_image(noisy(seed), "PNG")) for seed in range(2, 12)]
    assert min(distance(HASH, other) for other in others) > MAX_DISTANCE


@pytest.mark.parametrize("size", [96, 192, 299])
def test_hash_hardly_depends_on_the_size(size: int) -> None:
    assert distance(HASH, compute_hash(encode_image(ORIGINAL, "PNG"), size)) <= 6


def test_constant_images_agree_and_hold_no_noise() -> None:
    black = compute_perceptual_hash(np.zeros((SIZE, SIZE), np.uint8))
    assert black == bytes(HASH_BYTES)
    greys = {
        compute_perceptual_hash(np.full((SIZE, SIZE), level, np.uint8)) for level in (1, 77, 255)
    }
    assert greys == {b"\x80" + bytes(HASH_BYTES - 1)}


def test_image_id_is_sha256_of_the_bytes() -> None:
    assert compute_image_id(b"abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert len(compute_image_id(b"")) == 64
