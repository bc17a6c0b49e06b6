"""Convert stored DICOM values to displayed grey: DICOM PS3.3 C.11.1, C.11.2 and C.7.6.3.1.2.

The displayed grey is a function of the stored value alone. It is computed once for each of at most
65,536 values and then looked up, which costs a large image neither time nor memory.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from pydicom import Dataset

Levels = NDArray[np.float64]
Stored = NDArray[np.integer]
Entry = TypeVar("Entry", bound=np.generic)

_BLOCK_ROWS = 256  # looked up at a time
_MAX_UINT16 = 65_535
_UINT16_COUNT = 1 << 16


def apply_voi_lut(pixels: Stored, header: Dataset, notes: list[str]) -> Image.Image:
    """Convert stored values `(rows, columns)` to displayed grey.

    Modality LUT, else rescale; then the first VOI LUT, else the first window; then MONOCHROME1 is
    inverted; padding becomes black. An incomplete or invalid LUT, rescale or window is left out,
    and the next in this order applies.

    Args:
        pixels: as from `normalise_words`.
        header: with all elements that describe the pixels.
        notes: omitted elements and inferred signs are appended.

    Returns:
        Mode `L` with a VOI LUT or window, or of 8-bit values, whose whole range is displayed. Else
        the header defines no displayed range: mode `I;16` or `F` with all values, as in a 16-bit
        PNG.
    """
    bits = int(header.BitsStored)
    low = -(1 << (bits - 1)) if header.get("PixelRepresentation") == 1 else 0
    stored = np.arange(low, low + (1 << bits), dtype=np.float64)
    levels = _apply_modality_lut(stored, header, notes)
    displayed = _apply_first_voi(levels, header, notes)
    if displayed is None:
        notes.append("no window")
    if displayed is None and bits <= 8:
        displayed = (levels - levels.min()) / (np.ptp(levels) or 1.0)
    is_inverted = header.PhotometricInterpretation == "MONOCHROME1"
    padding = _find_padding(stored, header, notes)
    if displayed is not None:
        grey = np.rint((1 - displayed if is_inverted else displayed) * 255).astype(np.uint8)
        grey[padding] = 0
        return Image.fromarray(_look_up(grey, pixels, low))
    levels = -levels if is_inverted else levels
    if padding.any() and (used := _find_used(pixels, low, len(levels)) & ~padding).any():
        levels[padding] = levels[used].min()
    return Image.fromarray(_look_up(_reduce_depth(levels), pixels, low))


def apply_window(levels: Levels, center: float, width: float, function: str) -> Levels | None:
    """Map levels through a window to 0 to 1; None where the window is invalid."""
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


def _apply_modality_lut(stored: Levels, header: Dataset, notes: list[str]) -> Levels:
    for item in header.get("ModalityLUTSequence") or ():
        if lut := _Lut.from_item(item, header, stored, notes):
            return lut.map(stored)
        notes.append("an incomplete modality LUT is left out")
    slopes = _read_numbers(header, "RescaleSlope")
    intercepts = _read_numbers(header, "RescaleIntercept")
    if slopes and intercepts and slopes[0] and intercepts[0] is not None:
        levels = stored * slopes[0] + intercepts[0]
        if np.isfinite(levels).all():
            return levels
    if slopes or intercepts:
        notes.append("an incomplete rescale, or one of slope 0, is left out")
    return stored


def _apply_first_voi(levels: Levels, header: Dataset, notes: list[str]) -> Levels | None:
    """Map levels through the first VOI LUT or window to 0 to 1; None without one."""
    for item in header.get("VOILUTSequence") or ():
        if lut := _Lut.from_item(item, header, levels, notes):
            # The brightest entry is white: the declared number of bits is often wrong.
            mapped: Levels = lut.map(levels) / lut.entries.max()
            return mapped
        notes.append("an incomplete VOI LUT is left out")
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    centers, widths = _read_numbers(header, "WindowCenter"), _read_numbers(header, "WindowWidth")
    for center, width in zip(centers, widths, strict=False):
        if center is not None and width is not None:
            displayed = apply_window(levels, center, width, function)
            if displayed is not None:
                return displayed
        notes.append("a window without a centre and a width is left out")
    return None


def _read_numbers(header: Dataset, keyword: str) -> list[float | None]:
    """Parse the numbers of an element from its text; None for each invalid one.

    pydicom raises for the whole element where one value is a word or has a decimal comma.
    """
    element = header.get_item(keyword)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if value in (None, ""):
        return []
    values = value.split("\\") if isinstance(value, str) else value
    values = values if isinstance(values, list | MutableSequence) else [values]
    return [_parse_number(value) for value in values]


def _parse_number(value: object) -> float | None:
    try:
        number = float(str(value).strip(" \0").replace(",", "."))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


class _Lut(NamedTuple):
    """A lookup table.

    Attributes:
        first: level of the first entry.
        entries: `(n,)`.
    """

    first: int
    entries: Levels

    @classmethod
    def from_item(
        cls, item: Dataset, header: Dataset, levels: Levels, notes: list[str]
    ) -> _Lut | None:
        """Read the table of an item of a LUT sequence; None where it is incomplete.

        Args:
            item: of the sequence.
            header: of the file.
            levels: input of the table. No element states the sign of the first entry's level: its
                value representation follows the stored pixels (PS3.3 C.11.2.1.1), so the reading
                whose range contains more of the levels is used.
            notes: that reading is appended where it differs from the written one.
        """
        try:
            count, first, _ = (int(number) for number in item.LUTDescriptor)
            lut_data = item.LUTData
        except (AttributeError, TypeError, ValueError):
            return None
        count = (count % _UINT16_COUNT) or _UINT16_COUNT
        if isinstance(lut_data, bytes):
            order = "<" if header.original_encoding[1] else ">"
            dtype = f"{order}u2" if len(lut_data) >= 2 * count else "u1"
            lut_data = np.frombuffer(lut_data, dtype)
        # Entries are never signed.
        entries = np.asarray(lut_data, np.float64).reshape(-1)[:count] % _UINT16_COUNT
        if len(entries) < count or np.ptp(entries) == 0:
            return None
        low, high = levels.min(), levels.max()

        def compute_overlap(start: int) -> float:
            return float(min(start + count - 1, high) - max(start, low))

        readings = (first, first - _UINT16_COUNT, first + _UINT16_COUNT)
        start = max(readings, key=compute_overlap)
        if start != first:
            notes.append(f"a LUT begins at {start}, written as {first}")
        return cls(start, entries)

    def map(self, levels: Levels) -> Levels:
        """Map levels to entries; levels outside the table map to its first or last entry."""
        indices = np.clip(np.rint(levels) - self.first, 0, len(self.entries) - 1)
        mapped: Levels = self.entries[indices.astype(np.intp)]
        return mapped


def _find_padding(stored: Levels, header: Dataset, notes: list[str]) -> NDArray[np.bool_]:
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(len(stored), np.bool_)
    limit = header.get("PixelPaddingRangeLimit")
    bounds = (value, limit if isinstance(limit, int) else value)
    # Some are written with the wrong sign: their value representation follows that of the pixels.
    low, high = sorted(_correct_sign(bound, stored) for bound in bounds)
    if (low, high) != tuple(sorted(bounds)):
        notes.append(f"the padding is {low}, written as {value}")
    return (stored >= low) & (stored <= high)


def _correct_sign(value: int, stored: Levels) -> int:
    """Return the reading of a 16-bit value, signed or unsigned, in the range of stored values."""
    readings = (value, value - _UINT16_COUNT, value + _UINT16_COUNT)
    return next((reading for reading in readings if stored[0] <= reading <= stored[-1]), value)


def _reduce_depth(levels: Levels) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Subtract the minimum and convert levels to 16-bit integers where exact, else to floats."""
    levels = levels - levels.min()
    is_exact = levels.max() <= _MAX_UINT16 and (levels == np.rint(levels)).all()
    return levels.astype(np.uint16) if is_exact else levels.astype(np.float32)


def _look_up(table: NDArray[Entry], pixels: Stored, low: int) -> NDArray[Entry]:
    """Return the entry of `table` for each stored value; its first entry is for `low`."""
    entries = np.empty(pixels.shape, table.dtype)
    for start in range(0, len(pixels), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        entries[rows] = table[_compute_indices(pixels[rows], low, len(table))]
    return entries


def _find_used(pixels: Stored, low: int, count: int) -> NDArray[np.bool_]:
    """Return which of `count` stored values from `low` on occur in `pixels`."""
    used = np.zeros(count, np.bool_)
    for start in range(0, len(pixels), _BLOCK_ROWS):
        used[_compute_indices(pixels[start : start + _BLOCK_ROWS], low, count)] = True
    return used


def _compute_indices(pixels: Stored, low: int, count: int) -> NDArray[np.int32]:
    return np.clip(pixels.astype(np.int32) - low, 0, count - 1)
