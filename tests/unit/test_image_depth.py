"""Images of more than 8 bits, and images without contrast."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.deep import MAX_MARKER_AREA, compute_grey_range
from eagle_spark.imaging.png import SIGNATURE, encode_chunk
from tests.helpers.sample_images import deep, encode_image, grey, picture

SIDE = 64
WORDS = picture(SIDE).astype(np.uint16) * 12 + 500  # 12 bits in 16
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def decode_pixels(data: bytes, size: int = SIDE) -> NDArray[np.int64]:
    return decode_image(data, size).pixels.astype(np.int64)


def png16(kind: int, *layers: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG of these layers, pixel by pixel."""
    height, width = layers[0].shape
    rows = np.stack(layers, axis=2).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = (
        encode_chunk(b"IHDR", header),
        encode_chunk(b"IDAT", zlib.compress(raw)),
        encode_chunk(b"IEND", b""),
    )
    return SIGNATURE + b"".join(parts)


def tiff(
    pixels: bytes, bits: int, order: str = "<", samples: int = 1, **tags: int | Sequence[int]
) -> bytes:
    """A TIFF of one strip; further tags by number, as `t339=1`."""
    entries_by_tag: dict[int, tuple[int, list[int]]] = {
        256: (4, [SIDE]),
        257: (4, [SIDE]),
        258: (3, [bits] * samples),
        259: (3, [1]),
        262: (3, [1 if samples < 3 else 2]),
        273: (4, [0]),
        277: (3, [samples]),
        278: (4, [SIDE]),
        279: (4, [len(pixels)]),
    }
    entries_by_tag |= {
        int(tag[1:]): (3, [value] if isinstance(value, int) else list(value))
        for tag, value in tags.items()
    }
    letters = {3: "H", 4: "I"}
    behind = 8 + 2 + 12 * len(entries_by_tag) + 4
    extra = b""
    entries = b""
    longer = {tag: len(v) * struct.calcsize(letters[f]) for tag, (f, v) in entries_by_tag.items()}
    entries_by_tag[273] = (4, [behind + sum(size for size in longer.values() if size > 4)])
    for tag, (form, values) in sorted(entries_by_tag.items()):
        packed = struct.pack(f"{order}{len(values)}{letters[form]}", *values)
        entries += struct.pack(f"{order}HHI", tag, form, len(values))
        if len(packed) > 4:
            entries += struct.pack(f"{order}I", behind + len(extra))
            extra += packed
        else:
            entries += packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}IH", 8, len(entries_by_tag)
    )
    return head + entries + bytes(4) + extra + pixels


def rgb_tiff(order: str, **tags: int) -> bytes:
    layers = np.stack([WORDS] * 3, axis=2).astype(f"{order}u2")
    return tiff(layers.tobytes(), 16, order, samples=3, **tags)


def compressed_rgb_tiff() -> bytes:
    """The same by LibTIFF: LZW with its differences between pixels."""
    stream = BytesIO()
    Image.fromarray(WORDS).save(stream, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    return stream.getvalue()


OPAQUE = np.full_like(WORDS, 65535)


@pytest.mark.parametrize(
    "data",
    [
        png16(GREY, WORDS),
        png16(RGB, WORDS, WORDS, WORDS),
        png16(RGBA, WORDS, WORDS, WORDS, OPAQUE),
        png16(RGBA, WORDS, WORDS, WORDS, np.zeros_like(WORDS)),
        png16(GREY_ALPHA, WORDS, OPAQUE),
        png16(RGB, WORDS + 40_000, WORDS + 40_000, WORDS + 40_000),
        rgb_tiff("<"),
        rgb_tiff(">"),
        compressed_rgb_tiff(),
        tiff((WORDS.astype("<u4") + 3_000_000_000).tobytes(), 32),
        tiff(WORDS.astype("<u4").tobytes(), 32, t339=1),
        tiff((WORDS.astype("<i4") - 2000).tobytes(), 32, t339=2),
    ],
    ids=[
        *("grey", "rgb", "rgba", "alpha_0", "grey_alpha", "rgb_with_offset"),
        *("tiff_rgb", "tiff_rgb_big_endian", "tiff_lzw"),
        *("tiff_32_beyond_signed", "tiff_32_unsigned", "tiff_32_signed"),
    ],
)
def test_every_encoding_of_many_bits_gives_the_same_image(data: bytes) -> None:
    expected = decode_pixels(encode_image(deep(), "PNG"))
    assert np.ptp(expected) == 255
    assert np.abs(decode_pixels(data) - expected).max() <= 1


def test_16_bit_colours_are_weighted_as_8_bit_colours() -> None:
    red, green, blue = WORDS, WORDS[::-1], WORDS[:, ::-1]
    luma = (299 * red.astype(int) + 587 * green.astype(int) + 114 * blue.astype(int)) // 1000
    expected = decode_pixels(png16(GREY, luma.astype(np.uint16)))
    assert np.abs(decode_pixels(png16(RGB, red, green, blue)) - expected).max() <= 1


def test_transparent_pixels_of_16_bits_are_black() -> None:
    alpha = OPAQUE.copy()
    alpha[:8] = 0
    for data in (png16(RGBA, WORDS, WORDS, WORDS, alpha), png16(GREY_ALPHA, WORDS, alpha)):
        pixels = decode_pixels(data)
        assert (pixels[:7] == 0).all()
        assert pixels[9:].min() > 0


@pytest.mark.parametrize("mode", ["RGB;16", "RGBX;16", "RGBa;16"])
def test_extra_samples_of_a_tiff_are_supported(mode: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "RGB;16": {"samples": 3},
        "RGBX;16": {"samples": 4, "t338": 0},
        "RGBa;16": {"samples": 4, "t338": 1},
    }
    layers = [WORDS] * 3 + [OPAQUE] * (kinds[mode]["samples"] - 3)
    data = tiff(np.stack(layers, axis=2).astype("<u2").tobytes(), 16, t262=2, **kinds[mode])
    assert np.abs(decode_pixels(data) - decode_pixels(png16(GREY, WORDS))).max() <= 1


def test_planar_16_bit_colours_are_not_misread() -> None:
    planes = np.stack([WORDS] * 3).astype("<u2").tobytes()
    with pytest.raises(ImageRejectedError) as rejected:
        decode_image(tiff(planes, 16, samples=3, t284=2), SIDE)
    assert rejected.value.reason == Reason.NO_DECODER


@pytest.mark.parametrize("side", [SIDE, 512])
@pytest.mark.parametrize("area", [1, 0.0005, 0.0095])
@pytest.mark.parametrize("value", [0, 65535])
def test_a_marker_leaves_the_other_grey_values_as_they_are(
    side: int, area: float, value: int
) -> None:
    words = picture(side).astype(np.uint16) * 12 + 20_000
    marked = words.copy()
    edge = 1 if area == 1 else max(1, int(side * area**0.5))
    marked[4 : 4 + edge, 4 : 4 + edge] = value
    expected, pixels = (
        decode_pixels(png16(GREY, words), side),
        decode_pixels(png16(GREY, marked), side),
    )
    outside = np.ones((side, side), bool)
    outside[2 : 6 + edge, 2 : 6 + edge] = False
    assert np.abs(pixels - expected)[outside].max() <= 3


def test_values_outside_the_sample_of_a_large_image_are_kept() -> None:
    values = np.tile(np.arange(2100, dtype=np.uint16), (2100, 1))
    values[1, 1], values[3, 3] = 2110, 2105
    values[-1, -1] = 2120
    assert compute_grey_range(values) == (0, 2120)


def test_clipped_values_are_in_the_detail() -> None:
    marked = WORDS.copy()
    marked[2:6, 2:6] = 65535
    detail = decode_image(png16(GREY, marked), SIDE).detail
    assert detail is not None
    assert f"{WORDS.max()} are shown" in detail
    assert "65535" in detail
    assert decode_image(png16(GREY, WORDS), SIDE).detail is None


def test_a_burnt_in_letter_with_soft_edges_is_a_marker() -> None:
    side = 256
    words = picture(side).astype(np.float64) * 12 + 500
    letter = np.zeros((side, side))
    letter[20:40, 20:24] = letter[20:24, 20:32] = 1
    soft = (letter + np.roll(letter, 1, 0) + np.roll(letter, 1, 1)) / 3
    marked = words * (1 - soft) + 65535 * soft
    low, high = compute_grey_range(marked.astype(np.uint16))
    assert low <= words.min() + 1
    assert high <= words.max() * 1.02


def test_a_range_without_extremes_is_kept() -> None:
    values = np.linspace(100, 5000, SIDE * SIDE).reshape(SIDE, SIDE)
    assert compute_grey_range(values) == (100, 5000)
    two = np.repeat([[3.0], [90.0]], 40, axis=1)
    assert compute_grey_range(two) == (3, 90)


def test_many_extreme_pixels_belong_to_the_image() -> None:
    values = np.full((100, 100), 1000, np.uint16)
    values[:50] += np.arange(50, dtype=np.uint16)[:, None]
    values[-3:] = 60_000  # 3 % of the area
    assert 2 * MAX_MARKER_AREA < 0.03
    assert compute_grey_range(values)[1] == 60_000


@pytest.mark.parametrize(
    "data",
    [
        encode_image(Image.new("L", (SIDE, SIDE)), "PNG"),
        encode_image(Image.new("L", (SIDE, SIDE), 255), "BMP"),
        encode_image(Image.fromarray((100 + (np.eye(SIDE) * 2)).astype(np.uint8)), "PNG"),
        encode_image(Image.fromarray(np.full((SIDE, SIDE), 700, np.uint16)), "PNG"),
        encode_image(Image.new("RGBA", (SIDE, SIDE), (9, 9, 9, 255)), "PNG"),
        encode_image(Image.new("F", (SIDE, SIDE), 0.5), "TIFF"),
    ],
    ids=["black", "white", "two_levels", "16_bit", "rgba", "float"],
)
def test_an_image_without_contrast_is_rejected(data: bytes) -> None:
    with pytest.raises(ImageRejectedError) as rejected:
        decode_image(data, SIDE)
    assert rejected.value.reason == Reason.NO_CONTRAST


def test_low_contrast_is_accepted() -> None:
    faint = Image.fromarray((100 + np.tri(SIDE) * 3).astype(np.uint8))
    assert np.ptp(decode_pixels(encode_image(faint, "PNG"))) == 3


def twelve_bit_jpeg() -> bytes:
    data = encode_image(grey(), "JPEG")
    precision = data.index(b"\xff\xc0") + 4
    return data[:precision] + b"\x0c" + data[precision + 1 :]


@pytest.mark.parametrize(
    "data",
    [
        twelve_bit_jpeg(),
        tiff(WORDS.astype("<f8").tobytes(), 64, t339=3),
        tiff(WORDS.astype(">u2").tobytes(), 16, ">", t262=0),
        tiff(np.stack([WORDS, OPAQUE], axis=2).astype("<u2").tobytes(), 16, samples=2, t338=2),
    ],
    ids=["jpeg_12", "tiff_float64", "tiff_white_is_zero_big_endian", "tiff_grey_alpha_16"],
)
def test_unsupported_files_are_not_reported_as_damaged(data: bytes) -> None:
    with pytest.raises(ImageRejectedError) as rejected:
        decode_image(data, SIDE)
    assert rejected.value.reason == Reason.NO_DECODER
