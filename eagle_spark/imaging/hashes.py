"""What tells two images apart: their bytes, and how they look."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HASH_BYTES = 32

_FREQUENCIES = 16
_CELLS = 32
_ROUNDING = 1e-9  # grey levels; below it a coefficient of a constant image is float noise


def image_id(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Return `HASH_BYTES` bytes that nearly agree for copies of one picture.

    Bit (u, v) is the sign of the two-dimensional cosine coefficient of frequency u down and v
    across, both 0 to 15, of the image averaged over 32 x 32 cells: what is called pHash, without
    comparing to the median. The signs depend on neither size nor brightness nor contrast.
    All chest X-rays have the same outline; 64 bits, or bits that compare neighbouring grey values
    (dHash), cannot tell them apart, these 256 can.

    Args:
        pixels: `(size, size)` uint8, grey, as `read_radiograph` gives it.
    """
    starts, waves = _cells_and_waves(pixels.shape[0])
    # Summed into cells first: a product of 224 x 224 would wake all threads of the BLAS, which is
    # 100 times slower where every core has a worker of its own.
    columns = np.add.reduceat(pixels, starts, axis=0, dtype=np.uint32)
    cells = np.add.reduceat(columns, starts, axis=1).astype(np.float64)
    return np.packbits(waves @ cells @ waves.T > _ROUNDING).tobytes()


@lru_cache(maxsize=8)
def _cells_and_waves(size: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return where the cells begin, and the first 16 rows of the DCT-II averaged over each."""
    count = min(_CELLS, size)
    starts = np.arange(count) * size // count
    centres = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * centres) / size
    return starts, np.add.reduceat(waves, starts, axis=1) / np.diff(starts, append=size)
