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


def show(pixels: NDArray[Any], header: Dataset) -> Image.Image:
    """Return stored values (rows, columns) as a grey image, black as dark as it was on the film.

    Rescale or modality LUT, then VOI LUT, else the first window, then MONOCHROME1 inverted; padding
    becomes black. Of 8-bit values without a window the whole range is shown. Where deeper ones have
    none (or one that no window can be), the file does not say what to show: mode `I;16` or `F` with
    all of it, as in a 16-bit PNG.

    Raises:
        ValueError: for a LUT that is none.
    """
    bits = int(header.BitsStored)
    low = -(1 << (bits - 1)) if header.get("PixelRepresentation") == 1 else 0
    stored = np.arange(low, low + (1 << bits), dtype=np.float64)
    levels = _modality(stored, header)
    shown = _voi(levels, header)
    if shown is None and bits <= 8:
        shown = (levels - levels.min()) / (np.ptp(levels) or 1.0)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    padding = _padding(stored, header)
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


def _modality(stored: Levels, header: Dataset) -> Levels:
    if sequence := header.get("ModalityLUTSequence"):
        return _mapped(stored, _Lut.of(sequence[0], header))
    slope, intercept = _first(header.get("RescaleSlope")), _first(header.get("RescaleIntercept"))
    if slope is None or intercept is None:
        return stored
    levels = stored * slope + intercept
    if not np.isfinite(levels).all():
        raise ValueError("a rescale that is no number")
    return levels


def _voi(levels: Levels, header: Dataset) -> Levels | None:
    """Return what the file's VOI LUT or first window shows, 0 to 1; None where there is none."""
    if sequence := header.get("VOILUTSequence"):
        # The brightest entry is white: how many bits they have is often told wrong.
        lut = _Lut.of(sequence[0], header)
        return _mapped(levels, lut) / (lut.entries.max() or 1.0)
    center, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if center is None or width is None:
        return None
    return window(levels, center, width, str(header.get("VOILUTFunction") or "LINEAR").upper())


def _first(value: Any) -> float | None:
    """Return the first of one or several numbers; None where there is none."""
    if isinstance(value, MutableSequence):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)


class _Lut(NamedTuple):
    """A lookup table: the level that the first entry is for, and the entries."""

    first: int
    entries: Levels

    @classmethod
    def of(cls, item: Dataset, header: Dataset) -> _Lut:
        count, first, _ = (int(number) for number in item.LUTDescriptor)
        count = count or 1 << 16
        found = item.LUTData
        if isinstance(found, bytes):
            order = "<" if header.original_encoding[1] else ">"
            found = np.frombuffer(found, f"{order}u2" if len(found) >= 2 * count else "u1")
        entries = np.asarray(found, np.float64).reshape(-1)[:count]
        if len(entries) < count:
            raise ValueError(f"a LUT of {count} entries that has {len(entries)}")
        return cls(first, entries)


def _mapped(levels: Levels, lut: _Lut) -> Levels:
    places = np.clip(np.rint(levels) - lut.first, 0, len(lut.entries) - 1)
    mapped: Levels = lut.entries[places.astype(np.intp)]
    return mapped


def _padding(stored: Levels, header: Dataset) -> NDArray[np.bool_]:
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(len(stored), np.bool_)
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    return (stored >= low) & (stored <= high)


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
