"""Synthetic image files by name: valid ones of every format, and one for every defect.

`SAMPLE_IMAGES[name]()` returns the bytes; `EXPECTED_REASONS[name]` is the reason of rejection, None
if they are accepted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from eagle_spark.errors import Reason
from eagle_spark.imaging.png import SIGNATURE, encode_chunk

SIDE = 64
BOMB_SIDE = 30_000


def picture(side: int = SIDE, shift: float = 0.0) -> NDArray[np.uint8]:
    """Two dark lungs in a bright body, brighter downwards; no symmetry. `(side, side)` uint8."""
    down, across = np.mgrid[0:side, 0:side] / (side - 1)
    height = np.exp(-(((down - 0.5 - shift) / 0.3) ** 2))
    lungs = sum(np.exp(-(((across - x) / 0.13) ** 2)) for x in (0.3, 0.72)) * height
    body = 70 + 110 * down + 60 * np.sin(across * 2.2)
    return np.rint(body - 90 * lungs).clip(0, 255).astype(np.uint8)


def encode_image(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey() -> Image.Image:
    return Image.fromarray(picture())


def make_tinted(value: int) -> bytes:
    """Return a PNG whose bytes depend on `value`."""
    return encode_image(grey().point(lambda level: min(255, level + value)), "PNG")


def write_file(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def colour() -> Image.Image:
    return grey().convert("RGB")


def deep() -> Image.Image:
    """Return a 16-bit image with 12 used bits and an offset, as detectors export it."""
    return Image.fromarray(picture().astype(np.uint16) * 12 + 500)


def floats(bad: float = 1.5) -> Image.Image:
    values = picture().astype(np.float32) / 255
    values[SIDE // 2, SIDE // 2] = bad
    return Image.fromarray(values)


def with_alpha() -> Image.Image:
    image = colour().convert("RGBA")
    image.paste((255, 255, 255, 0), (0, 0, SIDE, 8))  # transparent, and white below
    return image


def oriented() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode_image(grey(), "JPEG", exif=exif)


def two_frames(kind: str) -> bytes:
    other = Image.fromarray(picture(shift=0.1))
    return encode_image(grey(), kind, save_all=True, append_images=[other])


def flip_bit(data: bytes, place: int) -> bytes:
    """Return `data` with one bit inverted."""
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def png(width: int, height: int, *extra: bytes) -> bytes:
    """Return a PNG with any size in its header and 100 zeros as pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = encode_chunk(b"IDAT", zlib.compress(bytes(100)))
    parts = (encode_chunk(b"IHDR", header), *extra, body, encode_chunk(b"IEND", b""))
    return SIGNATURE + b"".join(parts)


def jpeg_of_size(width: int, height: int) -> bytes:
    data = encode_image(grey(), "JPEG")
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def bmp_of_size(width: int, height: int) -> bytes:
    data = encode_image(grey(), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def tiff(*tags: tuple[int, int]) -> bytes:
    """Return a little-endian TIFF with these tags (one 32-bit value each) and no pixels."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def tiff_of_size(width: int, height: int) -> bytes:
    strip = ((273, 8), (278, height), (279, width * height))
    return tiff((256, width), (257, height), (258, 8), (259, 1), (262, 1), *strip)


def tiff_of_tile(side: int) -> bytes:
    tile = ((322, side), (323, side), (324, 8), (325, 100))
    return tiff((256, SIDE), (257, SIDE), (258, 8), (259, 8), (262, 1), *tile)


def large_text() -> bytes:
    data, header = encode_image(grey(), "PNG"), len(SIGNATURE) + 25
    text = encode_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**23)))
    return data[:header] + text + data[header:]


def crowded() -> bytes:
    return png(SIDE, SIDE, encode_chunk(b"teSt", b"") * 100_000)


def commented() -> bytes:
    info = PngInfo()
    info.add_text("Comment", "chest, posterior-anterior", zip=True)
    return encode_image(grey(), "PNG", pnginfo=info)


def truncate(data: bytes, share: float = 0.6) -> bytes:
    return data[: int(len(data) * share)]


_CASES: dict[str, tuple[Callable[[], bytes], Reason | None]] = {
    "grey.png": (lambda: encode_image(grey(), "PNG"), None),
    "colour.png": (lambda: encode_image(colour(), "PNG"), None),
    "palette.png": (lambda: encode_image(grey().quantize(64), "PNG"), None),
    "palette_transparent.png": (
        lambda: encode_image(grey().quantize(64), "PNG", transparency=3),
        None,
    ),
    "rgba.png": (lambda: encode_image(with_alpha(), "PNG"), None),
    "grey_alpha.png": (lambda: encode_image(with_alpha().convert("LA"), "PNG"), None),
    "one_bit.png": (lambda: encode_image(grey().convert("1"), "PNG"), None),
    "sixteen_bit.png": (lambda: encode_image(deep(), "PNG"), None),
    "commented.png": (commented, None),
    "large_text.png": (large_text, None),  # 8 MB in 8 kB
    "tail.png": (lambda: encode_image(grey(), "PNG") + b"and more", None),
    "grey.jpg": (lambda: encode_image(grey(), "JPEG"), None),
    "colour.jpg": (lambda: encode_image(colour(), "JPEG"), None),
    "cmyk.jpg": (lambda: encode_image(colour().convert("CMYK"), "JPEG"), None),
    "progressive.jpg": (lambda: encode_image(grey(), "JPEG", progressive=True), None),
    "oriented.jpg": (oriented, None),
    "broken_exif.jpg": (lambda: encode_image(grey(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff"), None),
    "png_named.jpg": (lambda: encode_image(grey(), "PNG"), None),
    "grey.bmp": (lambda: encode_image(grey(), "BMP"), None),
    "colour.bmp": (lambda: encode_image(colour(), "BMP"), None),
    "grey.tif": (lambda: encode_image(grey(), "TIFF"), None),
    "lzw.tif": (lambda: encode_image(grey(), "TIFF", compression="tiff_lzw"), None),
    "jpeg.tif": (lambda: encode_image(colour(), "TIFF", compression="jpeg"), None),
    "big.tif": (lambda: encode_image(grey(), "TIFF", big_tiff=True), None),
    "sixteen_bit.tif": (lambda: encode_image(deep(), "TIFF"), None),
    "float.tif": (lambda: encode_image(floats(), "TIFF"), None),
    "strip.png": (lambda: encode_image(grey().resize((400, 16)), "PNG"), None),
    "empty.png": (lambda: b"", Reason.EMPTY_FILE),
    "text_named.png": (lambda: b"This is a text, not an image.\n", Reason.NOT_AN_IMAGE),
    "page_named.jpg": (lambda: b"<html><body>404</body></html>", Reason.NOT_AN_IMAGE),
    "letter_named.bmp": (lambda: b"BMW is a maker of cars, not an image", Reason.NOT_AN_IMAGE),
    "zeros.jpg": (lambda: bytes(1000), Reason.NOT_AN_IMAGE),
    "gif_named.png": (lambda: encode_image(grey(), "GIF"), Reason.NOT_AN_IMAGE),
    "truncated.png": (lambda: truncate(encode_image(grey(), "PNG")), Reason.TRUNCATED),
    "signature_only.png": (lambda: SIGNATURE, Reason.TRUNCATED),
    "truncated.jpg": (lambda: truncate(encode_image(grey(), "JPEG")), Reason.TRUNCATED),
    "header_only.jpg": (lambda: encode_image(grey(), "JPEG")[:30], Reason.TRUNCATED),
    "truncated.bmp": (lambda: truncate(encode_image(grey(), "BMP")), Reason.TRUNCATED),
    "truncated.tif": (lambda: truncate(encode_image(grey(), "TIFF")), Reason.TRUNCATED),
    "truncated_lzw.tif": (
        lambda: truncate(encode_image(grey(), "TIFF", compression="tiff_lzw")),
        Reason.TRUNCATED,
    ),
    "short_pixels.png": (lambda: png(SIDE, SIDE), Reason.TRUNCATED),
    "flipped_bit.png": (lambda: flip_bit(encode_image(grey(), "PNG"), 300), Reason.CORRUPT),
    "no_tables.jpg": (
        lambda: encode_image(grey(), "JPEG").replace(b"\xff\xdb", b"\xff\xe9"),
        Reason.CORRUPT,
    ),
    "no_tags.tif": (lambda: tiff((256, SIDE)), Reason.CORRUPT),
    "crowded.png": (crowded, Reason.CORRUPT),
    "not_a_number.tif": (lambda: encode_image(floats(np.nan), "TIFF"), Reason.CORRUPT),
    "infinite.tif": (lambda: encode_image(floats(np.inf), "TIFF"), Reason.CORRUPT),
    "bomb.png": (lambda: png(BOMB_SIDE, BOMB_SIDE), Reason.TOO_MANY_PIXELS),
    "bomb.jpg": (lambda: jpeg_of_size(BOMB_SIDE, BOMB_SIDE), Reason.TOO_MANY_PIXELS),
    "bomb.bmp": (lambda: bmp_of_size(BOMB_SIDE, BOMB_SIDE), Reason.TOO_MANY_PIXELS),
    "bomb.tif": (lambda: tiff_of_size(BOMB_SIDE, BOMB_SIDE), Reason.TOO_MANY_PIXELS),
    "tile_bomb.tif": (lambda: tiff_of_tile(BOMB_SIDE), Reason.TOO_MANY_PIXELS),
    "black.png": (lambda: encode_image(Image.new("L", (SIDE, SIDE)), "PNG"), Reason.NO_CONTRAST),
    "one_pixel.png": (lambda: encode_image(grey().resize((1, 1)), "PNG"), Reason.TOO_SMALL),
    "line.png": (lambda: encode_image(grey().resize((400, 15)), "PNG"), Reason.TOO_SMALL),
    "animated.png": (lambda: two_frames("PNG"), Reason.MULTIPLE_FRAMES),
    "pages.tif": (lambda: two_frames("TIFF"), Reason.MULTIPLE_FRAMES),
}

SAMPLE_IMAGES: dict[str, Callable[[], bytes]] = {name: make for name, (make, _) in _CASES.items()}
EXPECTED_REASONS: dict[str, Reason | None] = {name: reason for name, (_, reason) in _CASES.items()}
