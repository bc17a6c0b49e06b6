"""Determine the pixel bits of stored words from the header and the words.

DICOM PS3.5 8.1.1: `BitsStored` bits of each word up to `HighBit`, the rest undefined. Writers do
not extend the sign to the rest, keep overlays there, put the pixel at the top, or declare fewer
bits than they use. An X-ray is smooth: further bits belong to the pixel where the image is smoother
with them than without.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.integer]

_BLOCK_ROWS = 256  # processed at a time


def normalise_words(
    words: Words, stored: int, high_bit: int, signed: bool, overlay: bool
) -> tuple[Words, int]:
    """Extract the pixels from stored words.

    Args:
        words: `(rows, columns)`, 8 or 16 bits, as in the file.
        stored: `BitsStored` of the header.
        high_bit: `HighBit` of the header, from 0.
        signed: whether pixels are two's complement.
        overlay: whether the header declares an overlay in other bits.

    Returns:
        The pixels in the same integer size, signed or unsigned, and their number of bits.
    """
    size = 8 * words.itemsize
    words = words.astype(words.dtype.newbyteorder("="), copy=False).view(f"u{words.itemsize}")
    union = int(np.bitwise_or.reduce(words, axis=None))
    shift = high_bit + 1 - stored if stored <= high_bit < size else 0
    if shift and (overlay or not union & ((1 << shift) - 1)) and union >> stored:
        return _extract_bits(words, shift, stored, signed), stored
    if union >> stored and not overlay:
        bits = max(stored, _count_used_bits(words, signed))
        if bits > stored and _sum_steps(words, bits, signed) < _sum_steps(words, stored, signed):
            return _extract_bits(words, 0, bits, signed), bits
    return _extract_bits(words, 0, stored, signed), stored


def _count_used_bits(words: Words, signed: bool) -> int:
    """Return the number of bits of the largest word."""
    if not signed:
        return int(words.max()).bit_length()
    values = words.view(f"i{words.itemsize}")
    return max(int(values.max()), ~int(values.min())).bit_length() + 1


def _sum_steps(words: Words, bits: int, signed: bool) -> int:
    """Return the sum of absolute differences between neighbours in each row."""
    steps = 0
    for start in range(0, len(words), _BLOCK_ROWS):
        block = words[start : start + _BLOCK_ROWS]
        pixels = _extract_bits(block, 0, bits, signed).astype(np.int32)
        steps += int(np.abs(np.diff(pixels, axis=1)).sum(dtype=np.int64))
    return steps


def _extract_bits(words: Words, shift: int, bits: int, signed: bool) -> Words:
    """Extract `bits` bits above the lowest `shift` bits; the highest is the sign if `signed`."""
    size = 8 * words.itemsize
    dtype = f"{'i' if signed else 'u'}{words.itemsize}"
    if bits == size:
        return words.view(dtype)
    pixels = np.empty(words.shape, dtype)
    for start in range(0, len(words), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        pixels[rows] = (words[rows] << (size - shift - bits)).view(dtype) >> (size - bits)
    return pixels
