"""Which bits of a word are the pixel's, whatever the header says."""

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
    "as told": (DEEP, (12, 11, False, False), DEEP, 12),
    "as told, signed": (SIGNED, (12, 11, True, False), SIGNED, 12),
    "all bits of the word": (DEEP << 4, (16, 15, False, False), DEEP << 4, 16),
    "big endian": (DEEP.astype(">u2"), (12, 11, False, False), DEEP, 12),
    "an overlay that is told": (DEEP | 0xF000, (12, 11, False, True), DEEP, 12),
    "an overlay that is not told": (OVERLAID, (12, 11, False, False), OVERLAID & 0xFFF, 12),
    "fewer bits told than used": (DEEP, (10, 9, False, False), DEEP, 12),
    "fewer told, signed": (SIGNED, (10, 9, True, False), SIGNED, 12),
    "at the top of the word": (DEEP << 4, (12, 15, False, False), DEEP, 12),
    "at the bottom, told at the top": (DEEP, (12, 15, False, False), DEEP, 12),
    "the sign left out of the rest": (SIGNED & 0xFFF, (12, 11, True, False), SIGNED, 12),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_pixels_are_those_that_were_meant(name: str) -> None:
    words, told, wanted, bits = WORDS[name]
    if words.dtype == np.int64:
        words = words.astype(np.int16)
    pixels, found = normalise_words(words, *told)
    assert found == bits
    assert (pixels == wanted).all()
    assert pixels.dtype.kind == ("i" if told[2] else "u")


def test_eight_bits_stay_eight() -> None:
    grey = (DEEP >> 4).astype(np.uint8)
    pixels, bits = normalise_words(grey, 8, 7, False, False)
    assert (bits, pixels.dtype) == (8, np.uint8)
    assert (pixels == grey).all()
