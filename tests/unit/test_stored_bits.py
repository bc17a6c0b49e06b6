"""Detection of the bits of a word that hold the pixel, with a correct or wrong header."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eagle_spark.imaging.dicom.stored_bits import normalise_words
from tests.helpers.dicom_files import chest

DEEP = chest()  # 12 bits
SIGNED = DEEP.astype(np.int16) - 2048
OVERLAID = DEEP.copy()
OVERLAID[10:20, 10:30] |= 0x1000
OVERLAID[40] |= 0x8000
WORDS: dict[str, tuple[Any, tuple[int, int, bool, bool], Any, int]] = {
    "correct header": (DEEP, (12, 11, False, False), DEEP, 12),
    "correct header, signed": (SIGNED, (12, 11, True, False), SIGNED, 12),
    "all bits of the word": (DEEP << 4, (16, 15, False, False), DEEP << 4, 16),
    "big endian": (DEEP.astype(">u2"), (12, 11, False, False), DEEP, 12),
    "an overlay in the header": (DEEP | 0xF000, (12, 11, False, True), DEEP, 12),
    "an overlay missing in the header": (OVERLAID, (12, 11, False, False), OVERLAID & 0xFFF, 12),
    "fewer bits in the header than used": (DEEP, (10, 9, False, False), DEEP, 12),
    "fewer bits in the header, signed": (SIGNED, (10, 9, True, False), SIGNED, 12),
    "at the top of the word": (DEEP << 4, (12, 15, False, False), DEEP, 12),
    "at the bottom, at the top in the header": (DEEP, (12, 15, False, False), DEEP, 12),
    "the sign left out of the rest": (SIGNED & 0xFFF, (12, 11, True, False), SIGNED, 12),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_are_normalised_to_the_encoded_pixels(name: str) -> None:
    words, header, expected, bits = WORDS[name]
    if words.dtype == np.int64:
        words = words.astype(np.int16)
    pixels, stored_bits = normalise_words(words, *header)
    assert stored_bits == bits
    assert (pixels == expected).all()
    assert pixels.dtype.kind == ("i" if header[2] else "u")


def test_eight_bits_are_unchanged() -> None:
    grey = (DEEP >> 4).astype(np.uint8)
    pixels, bits = normalise_words(grey, 8, 7, False, False)
    assert (bits, pixels.dtype) == (8, np.uint8)
    assert (pixels == grey).all()
