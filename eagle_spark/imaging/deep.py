"""Images of more than 8 bits: colour to grey at full depth, and the displayed grey range."""

from __future__ import annotations

import math
import re
import sys
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from eagle_spark.errors import ImageRejectedError, Reason

MAX_MARKER_AREA = 0.0125
"""Share of the area at each end of the grey range that may be a marker instead of the patient."""
MAX_GAP = 0.012
"""Share of the range between the percentiles: 3 of 255 grey levels."""
MAX_GROWTH = 3
"""Factor over the widest step before it: values become rarer towards the ends of any range."""
MIN_DENSITY = 1e-4
"""Share of the area that must lie within `MAX_GAP`; fewer pixels form a gap."""

_MAX_SAMPLED_PIXELS = 1 << 20  # by `compute_grey_range`
_BLOCK_ROWS = 256  # converted at a time
_LUMA_WEIGHTS = np.array([299, 587, 114], np.uint32)  # thousandths, ITU-R 601
_MAX_UINT16 = 65_535
_BITS_PER_SAMPLE, _PLANAR_CONFIGURATION = 258, 284  # TIFF tags
_SEPARATE_PLANES = 2  # value of the planar configuration
_RAW_MODE_16_BIT = re.compile(r"(LA|RGB|RGBX|RGBA|RGBa);16[BLN]")
# A raw mode yields the high byte of each 16-bit sample; the swapped byte order yields the low byte.
_NATIVE_ORDER = "L" if sys.byteorder == "little" else "B"
_SWAPPED_ORDER = {"B": "L", "L": "B"}

Channels = int | slice


def compute_grey_range(values: NDArray[np.generic]) -> tuple[float, float]:
    """Compute the range of grey values to display, without isolated values at its ends.

    Gaps separate a burnt-in letter, a marker or a hot pixel from the patient's grey values. From
    the percentile `MAX_MARKER_AREA` the range extends outwards until the distance to the next
    `MIN_DENSITY` of the area exceeds `MAX_GAP`, 1.5 times the median step between grey levels, and
    `MAX_GROWTH` times the widest distance before. Without such gaps it covers all values.

    Args:
        values: `(height, width)`, integers or finite floats.

    Returns:
        Lowest and highest displayed value; equal where all values between the percentiles are.
    """
    step = max(1, math.isqrt(values.size // _MAX_SAMPLED_PIXELS))
    ordered = np.sort(values[::step, ::step], axis=None).astype(np.float64)
    outer = math.ceil(len(ordered) * MAX_MARKER_AREA)
    low, high = ordered[outer], ordered[-1 - outer]
    steps = np.diff(ordered[outer:-outer])
    steps = steps[steps > 0]
    gap = max(MAX_GAP * (high - low), 1.5 * float(np.median(steps)) if len(steps) else 0.0)
    lowest = -_extend_to_gap(-ordered[outer::-1], gap, len(ordered))
    highest = _extend_to_gap(ordered[-1 - outer :], gap, len(ordered))
    # A range that covers the whole sample covers the values outside of it too.
    return (
        float(values.min()) if lowest == ordered[0] else lowest,
        float(values.max()) if highest == ordered[-1] else highest,
    )


def _extend_to_gap(tail: NDArray[np.float64], gap: float, count: int) -> float:
    """Return the last of the ascending values of `tail` before the first gap."""
    distance = max(1, round(count * MIN_DENSITY))
    steps = tail[distance:] - tail[:-distance]
    widest = np.concatenate([[0.0], np.maximum.accumulate(steps)[:-1]])
    gaps = np.flatnonzero(steps > np.maximum(gap, MAX_GROWTH * widest))
    return float(tail[gaps[0]] if len(gaps) else tail[-1])


def load_16_bit_colour(image: ImageFile, notes: list[str]) -> Image.Image | None:
    """Decode 16-bit colour, or 16-bit grey with alpha, to 16-bit grey.

    Pillow has no such modes and keeps the high bytes. The file is therefore decoded twice: to the
    high bytes and, with swapped byte order, to the low bytes.

    Args:
        image: opened, not yet loaded.
        notes: decisions of the decoder are appended.

    Returns:
        Mode `I;16`; None for any other image.

    Raises:
        ImageRejectedError: NO_DECODER for TIFFs with separate colour planes.
    """
    if (
        isinstance(image, TiffImageFile)
        and image.tag_v2.get(_PLANAR_CONFIGURATION) == _SEPARATE_PLANES
    ):
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, ())
        if len(bits) > 1 and max(bits) > 8:
            raise ImageRejectedError(Reason.NO_DECODER, "tiff: 16 bits in separate colour planes")
    raw_mode = _get_raw_mode(image)
    if image.mode not in ("RGB", "RGBA") or not _RAW_MODE_16_BIT.fullmatch(raw_mode):
        return None
    if raw_mode.startswith("LA"):  # high and low byte of grey, then of alpha
        _set_raw_mode(image, "RGBA")
        image.load()
        return _combine_bytes(image, image, (0, 1), (2, 3), notes)
    low_bytes = type(image)(BytesIO(_get_stream(image).getvalue()))
    # Colours with premultiplied alpha stay as they are.
    is_premultiplied = raw_mode.startswith("RGBa")
    order = _NATIVE_ORDER if raw_mode[-1] == "N" else raw_mode[-1]
    for half, half_order in ((image, order), (low_bytes, _SWAPPED_ORDER[order])):
        _set_raw_mode(half, f"{raw_mode[:-1]}{half_order}".replace("RGBa", "RGBA"))
        half.load()
    alpha = (3, 3) if image.mode == "RGBA" and not is_premultiplied else None
    return _combine_bytes(image, low_bytes, (slice(3), slice(3)), alpha, notes)


def _combine_bytes(
    high: Image.Image,
    low: Image.Image,
    colours: tuple[Channels, Channels],
    alpha: tuple[Channels, Channels] | None,
    notes: list[str],
) -> Image.Image:
    """Combine high and low bytes to 16-bit grey, transparent pixels black.

    Args:
        high: high bytes.
        low: low bytes.
        colours: channels of grey or red, green and blue, in `high` and in `low`.
        alpha: channels of alpha, in `high` and in `low`; None without alpha.
        notes: decisions of the decoder are appended.
    """
    width, height = high.size
    transparent_colour = high.info.get("transparency")
    grey = np.empty((height, width), np.uint16)
    opacity = np.empty((height, width), np.uint16) if alpha else None
    for top in range(0, height, _BLOCK_ROWS):
        box = (0, top, width, min(top + _BLOCK_ROWS, height))
        high_block, low_block = np.asarray(high.crop(box)), np.asarray(low.crop(box))
        words = _join_words(high_block, low_block, colours)
        rows = slice(top, box[3])
        grey[rows] = words if words.ndim == 2 else (words @ _LUMA_WEIGHTS + 500) // 1000
        if isinstance(transparent_colour, tuple):
            grey[rows][(words == transparent_colour).all(axis=2)] = 0
        if opacity is not None and alpha:
            opacity[rows] = _join_words(high_block, low_block, alpha)
    if opacity is None:
        return Image.fromarray(grey)
    if not opacity.any():
        notes.append("an alpha of 0 everywhere is ignored")
    elif opacity.min() < _MAX_UINT16:
        for top in range(0, height, _BLOCK_ROWS):
            rows = slice(top, top + _BLOCK_ROWS)
            grey[rows] = grey[rows].astype(np.uint32) * opacity[rows] // _MAX_UINT16
    return Image.fromarray(grey)


def _join_words(
    high: NDArray[np.uint8], low: NDArray[np.uint8], channels: tuple[Channels, Channels]
) -> NDArray[np.uint32]:
    words = high[..., channels[0]].astype(np.uint32)
    words <<= 8
    words |= low[..., channels[1]]
    return words


def _get_raw_mode(image: ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _set_raw_mode(image: ImageFile, raw_mode: str) -> None:
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]


def _get_stream(image: ImageFile) -> BytesIO:
    assert isinstance(image.fp, BytesIO)  # `open_frame` opens it from one
    return image.fp
