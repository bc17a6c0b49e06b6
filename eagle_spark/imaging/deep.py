"""Images of more than 8 bits: colours that keep their depth, and the range that is shown."""

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

from eagle_spark.errors import ImageRejected, Reason

MAX_MARKED = 0.0125
"""Share of the area, at either end of the range, that may be a marker instead of the patient."""
MAX_GAP = 0.012
"""Share of the range without its ends: 3 of 255 grey levels."""
MAX_GROWTH = 3
"""Times the widest step before it: values become rarer towards the ends of any range."""
MIN_DENSITY = 1e-4
"""Share of the area that has to lie within `MAX_GAP`, or it is a gap."""

_SAMPLE = 1 << 20  # pixels that the range is taken from
_ROWS = 256  # turned grey at a time
_LUMA = np.array([299, 587, 114], np.uint32)  # thousandths, ITU-R 601
_FULL = 65_535
_BITS, _PLANAR = 258, 284  # TIFF tags; planar 2: each colour by itself
_SIXTEEN = re.compile(r"(LA|RGB|RGBX|RGBA|RGBa);16[BLN]")
# A raw mode gives the high byte of each 16-bit sample; that of the other byte order the low one.
_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"B": "L", "L": "B"}

Channels = int | slice


def grey_range(values: NDArray[np.generic]) -> tuple[float, float]:
    """Return the range of grey values to show, without a few isolated ones at its ends.

    A burnt-in letter, a marker or a hot pixel stands apart from the patient's grey values. From the
    percentile `MAX_MARKED` on the range grows outwards until the next `MIN_DENSITY` of the area is
    further away than `MAX_GAP`, than the grey levels of the image usually are, and than
    `MAX_GROWTH` times what it was before. An image without such extremes keeps all of its values.

    Args:
        values: `(height, width)`, integers or finite floats.

    Returns:
        Lowest and highest value shown; equal where the values between the percentiles are.
    """
    step = max(1, math.isqrt(values.size // _SAMPLE))
    ordered = np.sort(values[::step, ::step], axis=None).astype(np.float64)
    outer = math.ceil(len(ordered) * MAX_MARKED)
    low, high = ordered[outer], ordered[-1 - outer]
    steps = np.diff(ordered[outer:-outer])
    steps = steps[steps > 0]
    gap = max(MAX_GAP * (high - low), 1.5 * float(np.median(steps)) if len(steps) else 0.0)
    lowest = -_grown(-ordered[outer::-1], gap, len(ordered))
    highest = _grown(ordered[-1 - outer :], gap, len(ordered))
    # What is beyond the sample is beyond no gap either.
    return (
        float(values.min()) if lowest == ordered[0] else lowest,
        float(values.max()) if highest == ordered[-1] else highest,
    )


def _grown(tail: NDArray[np.float64], gap: float, count: int) -> float:
    """Return how far the ascending values of `tail` go without a gap."""
    near = max(1, round(count * MIN_DENSITY))
    steps = tail[near:] - tail[:-near]
    before = np.concatenate([[0.0], np.maximum.accumulate(steps)[:-1]])
    gaps = np.flatnonzero(steps > np.maximum(gap, MAX_GROWTH * before))
    return float(tail[gaps[0]] if len(gaps) else tail[-1])


def deep_colour_as_grey(image: ImageFile, guesses: list[str]) -> Image.Image | None:
    """Decode colours of 16 bits, or grey and alpha, to grey of 16 bits; None for any other image.

    Pillow has no such modes and keeps the high bytes. So the file is decoded twice, to the high
    bytes and, in the other byte order, to the low ones.

    Args:
        image: opened, not yet loaded.
        guesses: grows by what is decided here.

    Raises:
        ImageRejected: NO_DECODER for TIFFs that hold each colour by itself.
    """
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PLANAR) == 2:
        bits = image.tag_v2.get(_BITS, ())
        if len(bits) > 1 and max(bits) > 8:
            raise ImageRejected(Reason.NO_DECODER, "tiff: 16 bits, each colour by itself")
    raw = _raw_mode(image)
    if image.mode not in ("RGB", "RGBA") or not _SIXTEEN.fullmatch(raw):
        return None
    if raw.startswith("LA"):  # high and low byte of grey, then of alpha
        _set_raw_mode(image, "RGBA")
        image.load()
        return _grey_of(image, image, (0, 1), (2, 3), guesses)
    second = type(image)(BytesIO(_file(image).getvalue()))
    # Colours that were multiplied by their alpha are right as they are.
    is_multiplied = raw.startswith("RGBa")
    order = _NATIVE if raw[-1] == "N" else raw[-1]
    for one, its_order in ((image, order), (second, _OTHER_ORDER[order])):
        _set_raw_mode(one, f"{raw[:-1]}{its_order}".replace("RGBa", "RGBA"))
        one.load()
    alpha = (3, 3) if image.mode == "RGBA" and not is_multiplied else None
    return _grey_of(image, second, (slice(3), slice(3)), alpha, guesses)


def _grey_of(
    high: Image.Image,
    low: Image.Image,
    colours: tuple[Channels, Channels],
    alpha: tuple[Channels, Channels] | None,
    guesses: list[str],
) -> Image.Image:
    """Return grey of 16 bits, black where it is transparent.

    Args:
        high: image that holds the high bytes.
        low: image that holds the low bytes.
        colours: channels of grey or red, green and blue, in `high` and in `low`.
        alpha: likewise; None where there is none.
        guesses: grows by what is decided here.
    """
    width, height = high.size
    key = high.info.get("transparency")  # a colour that stands for transparent
    grey = np.empty((height, width), np.uint16)
    hidden = np.empty((height, width), np.uint16) if alpha else None
    for top in range(0, height, _ROWS):
        box = (0, top, width, min(top + _ROWS, height))
        first, other = np.asarray(high.crop(box)), np.asarray(low.crop(box))
        words = _words(first, other, colours)
        rows = slice(top, box[3])
        grey[rows] = words if words.ndim == 2 else (words @ _LUMA + 500) // 1000
        if isinstance(key, tuple):
            grey[rows][(words == key).all(axis=2)] = 0
        if hidden is not None and alpha:
            hidden[rows] = _words(first, other, alpha)
    if hidden is None:
        return Image.fromarray(grey)
    if not hidden.any():
        guesses.append("an alpha of 0 everywhere is ignored")
    elif hidden.min() < _FULL:
        for top in range(0, height, _ROWS):
            rows = slice(top, top + _ROWS)
            grey[rows] = grey[rows].astype(np.uint32) * hidden[rows] // _FULL
    return Image.fromarray(grey)


def _words(
    high: NDArray[np.uint8], low: NDArray[np.uint8], channels: tuple[Channels, Channels]
) -> NDArray[np.uint32]:
    words = high[..., channels[0]].astype(np.uint32)
    words <<= 8
    words |= low[..., channels[1]]
    return words


def _raw_mode(image: ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _set_raw_mode(image: ImageFile, raw: str) -> None:
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile
    ]


def _file(image: ImageFile) -> BytesIO:
    assert isinstance(image.fp, BytesIO)  # as `open_frame` opens it
    return image.fp
