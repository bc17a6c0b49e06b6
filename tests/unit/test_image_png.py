"""PNG: chunks of the pixels are checked, others are ignored."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.png import SIGNATURE, encode_chunk, sanitise_png
from tests.helpers.sample_images import encode_image, grey, picture

SIZE = 48
PLAIN = encode_image(grey(), "PNG")
HEADER = len(SIGNATURE) + 25  # signature and IHDR
ORIENTATION_3 = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"


def with_chunk(part: bytes) -> bytes:
    return PLAIN[:HEADER] + part + PLAIN[HEADER:]


def unsound(part: bytes) -> bytes:
    return part[:-4] + bytes(byte ^ 0xFF for byte in part[-4:])


def decode_pixels(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, SIZE).pixels


def large_profile() -> bytes:
    profile = np.random.default_rng(0).integers(0, 4, 2**21, np.uint8).tobytes()
    return b"ICC\0\0" + zlib.compress(profile)


@pytest.mark.parametrize(
    "part",
    [
        unsound(encode_chunk(b"tEXt", b"Software\0old")),
        unsound(encode_chunk(b"pHYs", bytes(9))),
        encode_chunk(b"iCCP", large_profile()),
        encode_chunk(b"iCCP", b"ICC\0\x01" + zlib.compress(b"x" * 100)),
        encode_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**23))),
        encode_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**22))),
        encode_chunk(b"tEXt", b""),
        encode_chunk(b"gAMA", b"\0"),
        encode_chunk(b"pHYs", b"\0"),
        unsound(encode_chunk(b"acTL", struct.pack(">II", 9, 0))),
        unsound(encode_chunk(b"eXIf", ORIENTATION_3)),
        encode_chunk(b"eXIf", b"MM\0*\0\0"),
        encode_chunk(b"zzZz", bytes(1000)),
    ],
    ids=[
        *("text_checksum", "size_checksum", "large_profile", "profile_of_no_method", "text_bomb"),
        *("xmp_bomb", "empty_text", "short_gamma", "short_size", "frames_checksum"),
        *("orientation_checksum", "short_orientation", "unknown"),
    ],
)
def test_damage_outside_the_pixels_is_ignored(part: bytes) -> None:
    assert (decode_pixels(with_chunk(part)) == decode_pixels(PLAIN)).all()


def test_a_valid_orientation_is_kept() -> None:
    turned = decode_pixels(with_chunk(encode_chunk(b"eXIf", ORIENTATION_3)))
    assert (turned == decode_pixels(PLAIN)[::-1, ::-1]).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_of_the_pixels_is_damage(kind: bytes) -> None:
    place = PLAIN.index(kind) - 4
    end = place + 12 + int.from_bytes(PLAIN[place : place + 4], "big")
    with pytest.raises(ImageRejectedError) as rejected:
        decode_image(PLAIN[:place] + unsound(PLAIN[place:end]) + PLAIN[end:], SIZE)
    assert rejected.value.reason == Reason.CORRUPT


def test_palette_and_transparency_are_kept() -> None:
    image = Image.fromarray(picture()).quantize(16)
    data = encode_image(image, "PNG", transparency=0)
    assert {b"PLTE", b"tRNS"} <= {kind for kind in (b"PLTE", b"tRNS") if kind in sanitise_png(data)}
    assert decode_pixels(data).min() == 0


def test_a_plain_png_is_unchanged() -> None:
    assert sanitise_png(PLAIN) == PLAIN
    assert sanitise_png(PLAIN + b"\r\n") == PLAIN
