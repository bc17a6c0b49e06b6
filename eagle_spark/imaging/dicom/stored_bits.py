"""Which bits of a stored word are the pixel's: what the header says, held against the words.

DICOM PS3.5 8.1.1: `BitsStored` bits of each word up to `HighBit`, the rest undefined. Writers leave
the sign out of the rest, keep overlays there, put the pixel at the top, or say fewer bits than they
use. An X-ray is smooth: whether further bits are of the pixel shows in whether it is smoother with
or without them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]

_ROWS = 256  # looked at together


def normalise_words(
    words: Words, stored: int, high_bit: int, signed: bool, overlay: bool
) -> tuple[Words, int]:
    """Return the pixels, each with its own sign, and how many bits they have.

    Args:
        words: `(rows, columns)`, 8 or 16 bits, as they are in the file.
        stored: bits of a pixel, by the header.
        high_bit: number of the highest of them, from 0, by the header.
        signed: whether they are two's complement.
        overlay: whether the header tells of an overlay in other bits.

    Returns:
        The pixels in the same integer size, signed or unsigned, and the bits that they have.
    """
    size = 8 * words.itemsize
    bare = words.astype(words.dtype.newbyteorder("="), copy=False).view(f"u{words.itemsize}")
    union = int(np.bitwise_or.reduce(bare, axis=None))
    shift = high_bit + 1 - stored if stored <= high_bit < size else 0
    if shift and (overlay or not union & ((1 << shift) - 1)) and union >> stored:
        return _cut_out(bare, shift, stored, signed), stored
    if union >> stored and not overlay:
        bits = max(stored, _bits_used(bare, signed))
        if bits > stored and _roughness(bare, bits, signed) < _roughness(bare, stored, signed):
            return _cut_out(bare, 0, bits, signed), bits
    return _cut_out(bare, 0, stored, signed), stored


def _bits_used(bare: Words, signed: bool) -> int:
    """Return the bits that the largest of the words has."""
    if not signed:
        return int(bare.max()).bit_length()
    values = bare.view(f"i{bare.itemsize}")
    return max(int(values.max()), ~int(values.min())).bit_length() + 1


def _roughness(bare: Words, bits: int, signed: bool) -> int:
    """Return the sum of the steps from each pixel to the next in its row."""
    steps = 0
    for start in range(0, len(bare), _ROWS):
        pixels = _cut_out(bare[start : start + _ROWS], 0, bits, signed).astype(np.int32)
        steps += int(np.abs(np.diff(pixels, axis=1)).sum(dtype=np.int64))
    return steps


def _cut_out(bare: Words, shift: int, bits: int, signed: bool) -> Words:
    """Return the `bits` bits above the lowest `shift` ones, the highest being the sign."""
    size = 8 * bare.itemsize
    kind = f"{'i' if signed else 'u'}{bare.itemsize}"
    if bits == size:
        return bare.view(kind)
    pixels = np.empty(bare.shape, kind)
    for start in range(0, len(bare), _ROWS):
        rows = slice(start, start + _ROWS)
        pixels[rows] = (bare[rows] << (size - shift - bits)).view(kind) >> (size - bits)
    return pixels
