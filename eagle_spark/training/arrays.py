"""Weights as bytes, and their digest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def pack_arrays(arrays: Iterable[NDArray[np.generic]]) -> bytes:
    """Return arrays as one `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{i:05d}": array for i, array in enumerate(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(data: bytes) -> list[NDArray[np.generic]]:
    """Return the arrays of `pack_arrays` in their order."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return [archive[name] for name in sorted(archive.files)]


def weights_digest(weights: Iterable[NDArray[np.generic]]) -> str:
    """Return the SHA-256 over the bytes of all weights in order, hexadecimal."""
    digest = hashlib.sha256()
    for array in weights:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
