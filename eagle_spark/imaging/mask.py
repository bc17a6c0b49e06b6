"""Lung masks: True inside the lungs; resized by nearest neighbour only."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import apply_exif_orientation, load_grey, open_frame
from eagle_spark.imaging.png import encode_1_bit_png

MIN_LABEL_GAP = 0.125
"""Share of the grey range; a gap this wide separates two labels."""
MAX_BACKGROUND_NOISE = 0.04
"""Share of the grey range that JPEG and networks leave in the background."""
MAX_LABELS = 16
"""Grey values of a mask without noise."""
AREA_DIVISOR = 8
"""Divisor of the shorter side; smooth edges and JPEG noise fill no square of this side."""
_BLOCK_ROWS = 256  # processed at a time


def read_mask(data: bytes, size: int) -> NDArray[np.bool_]:
    """Decode a mask of any size to `(size, size)` by nearest neighbour.

    Orientation and grey conversion are those of images. Where gaps separate the grey values into
    groups, the lowest group is the background and all others are lung: 0/255, 0/1, 1 bit, palettes
    and one label per lung are equivalent. Where smooth edges or JPEG fill the gaps, the threshold
    is the middle between the smallest and the largest value.

    Args:
        data: the whole file.
        size: pixels per side.

    Raises:
        ImageRejectedError: MASK_INVALID when the file cannot be decoded, or an area is neither
            background nor lung; MASK_EMPTY when no pixel is set.
    """
    try:
        with open_frame(data) as image:
            values = np.asarray(load_grey(image, []))
            if values.dtype.kind == "f":
                values = _to_integers(values)
            # As uint8: Pillow's mode 1 yields booleans stored as 255, which numpy computes with.
            lungs = Image.fromarray(_select_lungs(values).view(np.uint8))
            resized = lungs.resize((size, size), Image.Resampling.NEAREST)
            oriented = apply_exif_orientation(resized, image)
    except ImageRejectedError as inner:
        raise ImageRejectedError(Reason.MASK_INVALID, str(inner)) from inner
    mask: NDArray[np.bool_] = np.asarray(oriented) != 0
    if not mask.any():
        raise ImageRejectedError(Reason.MASK_EMPTY, f"no pixel set at {size}x{size}")
    return mask


def _select_lungs(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the lung pixels of integer grey values `(height, width)`."""
    levels = _find_levels(values)
    lowest, highest = levels[0], levels[-1]
    if lowest == highest:
        return np.full(values.shape, lowest > 0)
    gaps = np.flatnonzero(np.diff(levels) >= MIN_LABEL_GAP * (highest - lowest))
    threshold = levels[gaps[0] + 1] if len(gaps) else (lowest + highest + 1) // 2
    lungs: NDArray[np.bool_] = values >= threshold
    background = lowest + MAX_BACKGROUND_NOISE * (highest - lowest)
    if len(levels) <= MAX_LABELS:  # neither noise nor smooth edges
        background = max(levels[levels <= background], key=lambda level: np.sum(values == level))
    if _has_area(~lungs & (values > background)):
        raise ImageRejectedError(
            Reason.CORRUPT,
            f"an area is neither background (up to {background:.0f}) nor lung (from {threshold} on)"
            "; wanted one grey value for each",
        )
    return lungs


def _to_integers(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Scale the range of floats to 16-bit integers."""
    if not np.isfinite(values).all():
        raise ImageRejectedError(Reason.CORRUPT, "pixels are not finite numbers")
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest:
        return np.full(values.shape, lowest > 0, np.uint16)
    scaled = values.astype(np.float32)
    scaled -= np.float32(lowest)
    scaled *= np.float32(65_535 / (highest - lowest))
    return np.rint(scaled, out=scaled).clip(0, 65_535, out=scaled).astype(np.uint16)


def _find_levels(values: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the distinct values, ascending."""
    used = np.zeros(int(values.max()) + 1, np.bool_)
    for top in range(0, len(values), _BLOCK_ROWS):
        used[values[top : top + _BLOCK_ROWS]] = True
    return np.flatnonzero(used)


def _has_area(pixels: NDArray[np.bool_]) -> bool:
    """Return whether a square with 1 / `AREA_DIVISOR` of the shorter side is set throughout.

    Squares are tested in steps of half their side.
    """
    side = max(3, min(pixels.shape) // AREA_DIVISOR)
    for down in (0, side // 2):
        for across in (0, side // 2):
            part = pixels[down:, across:]
            rows, columns = part.shape[0] // side, part.shape[1] // side
            squares = part[: rows * side, : columns * side].reshape(rows, side, columns, side)
            if squares.all(axis=(1, 3)).any():
                return True
    return False


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Encode `mask` `(height, width)` as a 1-bit PNG; equal masks yield equal bytes."""
    return encode_1_bit_png(mask)


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Decode a mask of `encode_mask` at its original size.

    Raises:
        ValueError: when `data` is a PNG of another mode.
    """
    with PngImageFile(BytesIO(data)) as image:
        if image.mode != "1":
            raise ValueError(f"mask: wanted a 1-bit PNG; got mode {image.mode}")
        return np.asarray(image)
