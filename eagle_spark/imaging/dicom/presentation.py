"""Stored DICOM values to the grey that a viewer shows: DICOM PS3.3 C.11.1, C.11.2 and C.7.6.3.1.2.

What is shown is a function of the stored value alone. So it is worked out once for each of at most
65,536 values and then looked up, which costs a large image neither time nor memory.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pydicom import Dataset

Levels = NDArray[np.float64]

_ROWS = 256  # looked up at a time
_DEPTH = 65_535
_WORD = 1 << 16


def show(pixels: NDArray[Any], header: Dataset, guesses: list[str]) -> Image.Image:
    """Return stored values (rows, columns) as a grey image, black as dark as it was on the film.

    Modality LUT, else rescale; then the first VOI LUT, else the first window, then MONOCHROME1
    inverted; padding becomes black. A LUT, rescale or window that is incomplete, or none, is left
    out, and the next in this order counts. Of 8-bit values without a window all are shown.
    Where deeper ones have none, the file does not say what to show: mode `I;16` or `F` with all of
    it, as in a 16-bit PNG.

    Args:
        pixels: as `normalise_words` gives them.
        header: complete in what describes the pixels.
        guesses: grows by what is left out, and by each sign that is taken from what fits.
    """
    bits = int(header.BitsStored)
    low = -(1 << (bits - 1)) if header.get("PixelRepresentation") == 1 else 0
    stored = np.arange(low, low + (1 << bits), dtype=np.float64)
    levels = _modality(stored, header, guesses)
    shown = _voi(levels, header, guesses)
    if shown is None:
        guesses.append("no window")
    if shown is None and bits <= 8:
        shown = (levels - levels.min()) / (np.ptp(levels) or 1.0)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    padding = _padding(stored, header, guesses)
    if shown is not None:
        grey = np.rint((1 - shown if inverted else shown) * 255).astype(np.uint8)
        grey[padding] = 0
        return Image.fromarray(_looked_up(grey, pixels, low))
    levels = -levels if inverted else levels
    if padding.any() and (used := _used(pixels, low, len(levels)) & ~padding).any():
        levels[padding] = levels[used].min()
    return Image.fromarray(_looked_up(_deep(levels), pixels, low))


def window(levels: Levels, center: float, width: float, function: str) -> Levels | None:
    """Return levels as a window shows them, 0 to 1; None where it is no window."""
    if not (np.isfinite([center, width]).all() and width > 0):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (levels - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((levels - center) / width + 0.5, 0, 1)
    if width < 1:
        return None
    if width == 1:
        return (levels > center - 0.5).astype(np.float64)
    return np.clip((levels - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _modality(stored: Levels, header: Dataset, guesses: list[str]) -> Levels:
    for item in header.get("ModalityLUTSequence") or ():
        if lut := _Lut.of(item, header, stored, guesses):
            return _mapped(stored, lut)
        guesses.append("an incomplete modality LUT is left out")
    slopes, intercepts = _numbers(header, "RescaleSlope"), _numbers(header, "RescaleIntercept")
    if slopes and intercepts and slopes[0] and intercepts[0] is not None:
        levels = stored * slopes[0] + intercepts[0]
        if np.isfinite(levels).all():
            return levels
    if slopes or intercepts:
        guesses.append("an incomplete rescale, or one of slope 0, is left out")
    return stored


def _voi(levels: Levels, header: Dataset, guesses: list[str]) -> Levels | None:
    """Return what the file's first VOI LUT or window shows, 0 to 1; None where there is none."""
    for item in header.get("VOILUTSequence") or ():
        if lut := _Lut.of(item, header, levels, guesses):
            # The brightest entry is white: how many bits they have is often told wrong.
            mapped: Levels = _mapped(levels, lut) / lut.entries.max()
            return mapped
        guesses.append("an incomplete VOI LUT is left out")
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    windows = zip(_numbers(header, "WindowCenter"), _numbers(header, "WindowWidth"), strict=False)
    for center, width in windows:
        if center is not None and width is not None:
            shown = window(levels, center, width, function)
            if shown is not None:
                return shown
        guesses.append("a window without a centre and a width is left out")
    return None


def _numbers(header: Dataset, keyword: str) -> list[float | None]:
    """Return the numbers of an element, read from its text; None for each that is none.

    pydicom raises for all of them where one is a word, or has a decimal comma.
    """
    item = header.get_item(keyword)
    value = None if item is None else item.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if value in (None, ""):
        return []
    texts = value.split("\\") if isinstance(value, str) else value
    several = texts if isinstance(texts, list | MutableSequence) else [texts]
    return [_number(one) for one in several]


def _number(value: Any) -> float | None:
    try:
        found = float(str(value).strip(" \0").replace(",", "."))
    except ValueError:
        return None
    return found if np.isfinite(found) else None


class _Lut(NamedTuple):
    """A lookup table: the level that the first entry is for, and the entries."""

    first: int
    entries: Levels

    @classmethod
    def of(cls, item: Dataset, header: Dataset, levels: Levels, guesses: list[str]) -> _Lut | None:
        """Return the table of an item of a LUT sequence; None where it is incomplete.

        Args:
            levels: what is looked up. The sign of the first entry's level stands in no element: its
                value representation follows the stored pixels (PS3.3 C.11.2.1.1), so the reading
                whose range holds more of the levels is taken.
            guesses: grows by that reading where it is not the usual one.
        """
        try:
            count, first, _ = (int(number) for number in item.LUTDescriptor)
            found = item.LUTData
        except (AttributeError, TypeError, ValueError):
            return None
        count = (count % _WORD) or _WORD
        if isinstance(found, bytes):
            order = "<" if header.original_encoding[1] else ">"
            found = np.frombuffer(found, f"{order}u2" if len(found) >= 2 * count else "u1")
        entries = np.asarray(found, np.float64).reshape(-1)[:count] % _WORD  # never signed
        if len(entries) < count or np.ptp(entries) == 0:
            return None
        low, high = levels.min(), levels.max()

        def overlap(start: int) -> float:
            return float(min(start + count - 1, high) - max(start, low))

        start = max((first, first - _WORD, first + _WORD), key=overlap)
        if start != first:
            guesses.append(f"a LUT begins at {start}, written as {first}")
        return cls(start, entries)


def _mapped(levels: Levels, lut: _Lut) -> Levels:
    places = np.clip(np.rint(levels) - lut.first, 0, len(lut.entries) - 1)
    mapped: Levels = lut.entries[places.astype(np.intp)]
    return mapped


def _padding(stored: Levels, header: Dataset, guesses: list[str]) -> NDArray[np.bool_]:
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(len(stored), np.bool_)
    limit = header.get("PixelPaddingRangeLimit")
    ends = (value, limit if isinstance(limit, int) else value)
    # Written with the other sign, as their value representation follows that of the pixels.
    low, high = sorted(_of_sign(end, stored) for end in ends)
    if (low, high) != tuple(sorted(ends)):
        guesses.append(f"the padding is {low}, written as {value}")
    return (stored >= low) & (stored <= high)


def _of_sign(value: int, stored: Levels) -> int:
    """Return the 16-bit value, signed or unsigned, whichever the stored ones can be."""
    readings = (value, value - _WORD, value + _WORD)
    return next((one for one in readings if stored[0] <= one <= stored[-1]), value)


def _deep(levels: Levels) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Return levels as 16-bit numbers where they are whole, the offset left out; else as floats."""
    levels = levels - levels.min()
    whole = levels.max() <= _DEPTH and (levels == np.rint(levels)).all()
    return levels.astype(np.uint16) if whole else levels.astype(np.float32)


def _looked_up(table: NDArray[Any], pixels: NDArray[Any], low: int) -> NDArray[Any]:
    out = np.empty(pixels.shape, table.dtype)
    for start in range(0, len(pixels), _ROWS):
        rows = slice(start, start + _ROWS)
        out[rows] = table[_places(pixels[rows], low, len(table))]
    return out


def _used(pixels: NDArray[Any], low: int, count: int) -> NDArray[np.bool_]:
    used = np.zeros(count, np.bool_)
    for start in range(0, len(pixels), _ROWS):
        used[_places(pixels[start : start + _ROWS], low, count)] = True
    return used


def _places(pixels: NDArray[Any], low: int, count: int) -> NDArray[np.int32]:
    return np.clip(pixels.astype(np.int32) - low, 0, count - 1)
