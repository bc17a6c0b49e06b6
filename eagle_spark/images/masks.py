"""Masks: True inside the lungs. Never interpolated, never grey."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.images.decode import is_deep, open_frame, to_grey
from eagle_spark.images.png import write_bits


def read_mask(data: bytes, size: int) -> NDArray[np.bool_]:
    """Decode a mask of any size to `(size, size)` by nearest neighbour.

    A pixel is set when it has at least half of the largest value found, so that masks of 0/255,
    0/1, 1 bit, palette or 16 bits mean the same.

    Raises:
        ImageRejected: MASK_INVALID when it cannot be read, the detail names why;
            MASK_EMPTY when no pixel is set.
    """
    try:
        with open_frame(data) as image:
            image.load()
            small = image.resize((size, size), Image.Resampling.NEAREST)
            values = np.asarray(small if is_deep(small) else to_grey(small), np.float64)
            if not np.isfinite(values).all():
                raise ImageRejected(Reason.CORRUPT, "pixels that are not finite numbers")
    except ImageRejected as inner:
        raise ImageRejected(Reason.MASK_INVALID, str(inner)) from inner
    mask: NDArray[np.bool_] = (values > 0) & (2 * values >= values.max())
    if not mask.any():
        raise ImageRejected(Reason.MASK_EMPTY, f"no pixel set at {size}x{size}")
    return mask


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return `mask` (height, width) as a 1-bit PNG; equal masks give equal bytes."""
    return write_bits(mask)


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Return the mask that `encode_mask` wrote, at its own size.

    Raises:
        ValueError: when `data` is a PNG of another kind.
    """
    with PngImageFile(BytesIO(data)) as image:
        if image.mode != "1":
            raise ValueError(f"a mask is a 1-bit PNG; got mode {image.mode}")
        return np.asarray(image)
