"""Hashes of an image: of its file's bytes, and of its content."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HASH_BYTES = 32

_FREQUENCIES = 16
_CELLS = 32
_MIN_COEFFICIENT = 1e-9  # grey levels; below it a coefficient of a constant image is float noise


def compute_image_id(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def compute_perceptual_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Return a perceptual hash (pHash) that differs in few bits between copies of one image.

    Bit (u, v) is the sign of the coefficient of frequency u down and v across, both 0 to 15, of the
    two-dimensional cosine transform (DCT-II) of the image averaged over 32 x 32 cells. Unlike the
    usual pHash it compares to 0 instead of the median. The signs are independent of size,
    brightness and contrast. All chest X-rays have the same outline: these 256 bits distinguish
    them; 64 bits, or bits that compare neighbouring grey values (dHash), do not.

    Args:
        pixels: `(size, size)` uint8, grey, as `decode_image` returns them.

    Returns:
        `HASH_BYTES` bytes.
    """
    starts, waves = _cells_and_waves(pixels.shape[0])
    # Summed into cells first: a product of 224 x 224 would start all threads of the BLAS, which is
    # 100 times slower where every core runs a worker.
    columns = np.add.reduceat(pixels, starts, axis=0, dtype=np.uint32)
    cells = np.add.reduceat(columns, starts, axis=1).astype(np.float64)
    return np.packbits(waves @ cells @ waves.T > _MIN_COEFFICIENT).tobytes()


@lru_cache(maxsize=8)
def _cells_and_waves(size: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the first index of each cell, and 16 rows of the DCT-II averaged over the cells."""
    count = min(_CELLS, size)
    starts = np.arange(count) * size // count
    centres = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * centres) / size
    return starts, np.add.reduceat(waves, starts, axis=1) / np.diff(starts, append=size)
