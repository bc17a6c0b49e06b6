"""What tells two images apart: their bytes, and how they look."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HASH_BYTES = 32

_FREQUENCIES = 16
_ROUNDING = 1e-9  # grey levels; below it a coefficient of a constant image is float noise


def image_id(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Return `HASH_BYTES` bytes that nearly agree for copies of one picture.

    Bit (u, v) is the sign of the two-dimensional cosine coefficient of frequency u down and v
    across, both 0 to 15: what is called pHash, without its first resize to 32 x 32 and without
    comparing to the median. The signs do not depend on the image's size, brightness or contrast.
    All chest X-rays have the same outline; 64 bits, or bits that compare neighbouring grey values
    (dHash), cannot tell them apart, these 256 can.

    Args:
        pixels: `(size, size)` uint8, grey, as `read_radiograph` gives it.
    """
    waves = _cosines(pixels.shape[0])
    coefficients = waves @ pixels.astype(np.float64) @ waves.T
    return np.packbits(coefficients > _ROUNDING).tobytes()


@lru_cache(maxsize=8)
def _cosines(size: int) -> NDArray[np.float64]:
    """Return the first rows of the DCT-II, `(16, size)`, scaled so that sizes agree."""
    centres = (np.arange(size) + 0.5) / size
    return np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * centres) / size
