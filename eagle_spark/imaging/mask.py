"""Masks: True inside the lungs. Never interpolated, never grey."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging.decode import load_grey, open_frame, upright
from eagle_spark.imaging.png import write_bits

GAP = 0.125
"""Share of the range of grey values: groups that are further apart are different labels."""
NOISE = 0.04
"""Share of the range of grey values that JPEG and networks leave in the background."""
MAX_LABELS = 16
"""Grey values of a mask that has no noise."""
AREA = 8
"""Part of the shorter side: an area as large is no smooth edge, and no noise of JPEG."""
_ROWS = 256  # looked at together


def read_mask(data: bytes, size: int) -> NDArray[np.bool_]:
    """Decode a mask of any size to `(size, size)` by nearest neighbour.

    It is turned, and made grey, as an image of the same bytes is. Where gaps separate the grey
    values into groups, the lowest is the background and all others are lung: 0/255, 0/1, 1 bit,
    palettes and a label for each lung mean the same. Where smooth edges or JPEG fill the gaps, a
    pixel is set from the middle between the smallest and the largest value on.

    Raises:
        ImageRejected: MASK_INVALID when it cannot be read, or an area of neither black nor white
            is not set by this rule; the detail names why. MASK_EMPTY when no pixel is set.
    """
    try:
        with open_frame(data) as image:
            values = np.asarray(load_grey(image, []))
            if values.dtype.kind == "f":
                values = _as_integers(values)
            # As bytes: the truth values that Pillow gives are of 255, with which numpy reckons.
            lungs = Image.fromarray(_lungs(values).view(np.uint8))
            small = upright(lungs.resize((size, size), Image.Resampling.NEAREST), image)
    except ImageRejected as inner:
        raise ImageRejected(Reason.MASK_INVALID, str(inner)) from inner
    mask: NDArray[np.bool_] = np.asarray(small) != 0
    if not mask.any():
        raise ImageRejected(Reason.MASK_EMPTY, f"no pixel set at {size}x{size}")
    return mask


def _lungs(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of the grey values `(height, width)`, integers, are lung."""
    levels = _levels(values)
    least, most = levels[0], levels[-1]
    if least == most:
        return np.full(values.shape, least > 0)
    gaps = np.flatnonzero(np.diff(levels) >= GAP * (most - least))
    threshold = levels[gaps[0] + 1] if len(gaps) else (least + most + 1) // 2
    lungs: NDArray[np.bool_] = values >= threshold
    background = least + NOISE * (most - least)
    if len(levels) <= MAX_LABELS:  # neither noise nor smooth edges
        background = max(levels[levels <= background], key=lambda level: np.sum(values == level))
    if _has_area(~lungs & (values > background)):
        raise ImageRejected(
            Reason.CORRUPT,
            f"an area is neither background (up to {background:.0f}) nor lung (from {threshold} on)"
            "; wanted one grey value for each",
        )
    return lungs


def _as_integers(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return floats as integers, their range spread over 16 bits."""
    if not np.isfinite(values).all():
        raise ImageRejected(Reason.CORRUPT, "pixels that are not finite numbers")
    least, most = float(values.min()), float(values.max())
    if least == most:
        return np.full(values.shape, least > 0, np.uint16)
    spread = values.astype(np.float32)
    spread -= np.float32(least)
    spread *= np.float32(65_535 / (most - least))
    return np.rint(spread, out=spread).clip(0, 65_535, out=spread).astype(np.uint16)


def _levels(values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the values that there are, ascending."""
    used = np.zeros(int(values.max()) + 1, np.bool_)
    for top in range(0, len(values), _ROWS):
        used[values[top : top + _ROWS]] = True
    return np.flatnonzero(used)


def _has_area(pixels: NDArray[np.bool_]) -> bool:
    """Whether a square of `AREA` of the shorter side is set throughout.

    Looked for in steps of half of it.
    """
    side = max(3, min(pixels.shape) // AREA)
    for down in (0, side // 2):
        for across in (0, side // 2):
            part = pixels[down:, across:]
            rows, columns = part.shape[0] // side, part.shape[1] // side
            squares = part[: rows * side, : columns * side].reshape(rows, side, columns, side)
            if squares.all(axis=(1, 3)).any():
                return True
    return False


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
