"""PNG: chunks of the pixels are checked; others cost nothing, whatever they hold."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.imaging.png import SIGNATURE, checked_png, chunk
from tests.helpers.planted import encoded, grey, picture

SIZE = 48
PLAIN = encoded(grey(), "PNG")
HEADER = len(SIGNATURE) + 25  # signature and IHDR
ORIENTATION_3 = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"


def with_chunk(part: bytes) -> bytes:
    return PLAIN[:HEADER] + part + PLAIN[HEADER:]


def unsound(part: bytes) -> bytes:
    return part[:-4] + bytes(byte ^ 0xFF for byte in part[-4:])


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    return read_radiograph(data, SIZE).pixels


def large_profile() -> bytes:
    profile = np.random.default_rng(0).integers(0, 4, 2**21, np.uint8).tobytes()
    return b"ICC\0\0" + zlib.compress(profile)


@pytest.mark.parametrize(
    "part",
    [
        unsound(chunk(b"tEXt", b"Software\0old")),
        unsound(chunk(b"pHYs", bytes(9))),
        chunk(b"iCCP", large_profile()),
        chunk(b"iCCP", b"ICC\0\x01" + zlib.compress(b"x" * 100)),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**23))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**22))),
        chunk(b"tEXt", b""),
        chunk(b"gAMA", b"\0"),
        chunk(b"pHYs", b"\0"),
        unsound(chunk(b"acTL", struct.pack(">II", 9, 0))),
        unsound(chunk(b"eXIf", ORIENTATION_3)),
        chunk(b"eXIf", b"MM\0*\0\0"),
        chunk(b"zzZz", bytes(1000)),
    ],
    ids=[
        *("text_checksum", "size_checksum", "large_profile", "profile_of_no_method", "text_bomb"),
        *("xmp_bomb", "empty_text", "short_gamma", "short_size", "frames_checksum"),
        *("orientation_checksum", "short_orientation", "unknown"),
    ],
)
def test_what_no_pixel_depends_on_costs_nothing(part: bytes) -> None:
    assert (pixels_of(with_chunk(part)) == pixels_of(PLAIN)).all()


def test_a_sound_orientation_is_kept() -> None:
    turned = pixels_of(with_chunk(chunk(b"eXIf", ORIENTATION_3)))
    assert (turned == pixels_of(PLAIN)[::-1, ::-1]).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_of_the_pixels_is_damage(kind: bytes) -> None:
    place = PLAIN.index(kind) - 4
    end = place + 12 + int.from_bytes(PLAIN[place : place + 4], "big")
    with pytest.raises(ImageRejected) as rejected:
        read_radiograph(PLAIN[:place] + unsound(PLAIN[place:end]) + PLAIN[end:], SIZE)
    assert rejected.value.reason == Reason.CORRUPT


def test_palette_and_transparency_stay() -> None:
    image = Image.fromarray(picture()).quantize(16)
    data = encoded(image, "PNG", transparency=0)
    assert {b"PLTE", b"tRNS"} <= {kind for kind in (b"PLTE", b"tRNS") if kind in checked_png(data)}
    assert pixels_of(data).min() == 0


def test_a_plain_png_is_what_it_was() -> None:
    assert checked_png(PLAIN) == PLAIN
    assert checked_png(PLAIN + b"\r\n") == PLAIN
