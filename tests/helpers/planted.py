"""Images made by code: good ones of every kind, and every way to be bad, each by file name.

`PLANTED[name]()` gives the bytes; `EXPECTED[name]` is the reason to reject them, None to accept.
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
from eagle_spark.imaging.png import SIGNATURE, chunk

SIDE = 64
BOMB = 30_000


def picture(side: int = SIDE, shift: float = 0.0) -> NDArray[np.uint8]:
    """Two dark lungs in a bright body, brighter downwards; no symmetry. `(side, side)` uint8."""
    down, across = np.mgrid[0:side, 0:side] / (side - 1)
    height = np.exp(-(((down - 0.5 - shift) / 0.3) ** 2))
    lungs = sum(np.exp(-(((across - x) / 0.13) ** 2)) for x in (0.3, 0.72)) * height
    body = 70 + 110 * down + 60 * np.sin(across * 2.2)
    return np.rint(body - 90 * lungs).clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey() -> Image.Image:
    return Image.fromarray(picture())


def tinted(value: int) -> bytes:
    """A picture that differs from others in its bytes."""
    return encoded(grey().point(lambda level: min(255, level + value)), "PNG")


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def colour() -> Image.Image:
    return grey().convert("RGB")


def deep() -> Image.Image:
    """16 bits of which the lower 12 are used, with an offset, as detectors export them."""
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
    return encoded(grey(), "JPEG", exif=exif)


def two_frames(kind: str) -> bytes:
    other = Image.fromarray(picture(shift=0.1))
    return encoded(grey(), kind, save_all=True, append_images=[other])


def flipped(data: bytes, place: int) -> bytes:
    """`data` with one bit turned."""
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A PNG whose header may promise anything; its pixels are 100 bytes of zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return SIGNATURE + chunk(b"IHDR", header) + b"".join(extra) + body + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    data = encoded(grey(), "JPEG")
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def bmp_of_size(width: int, height: int) -> bytes:
    data = encoded(grey(), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def tiff(*tags: tuple[int, int]) -> bytes:
    """A little-endian TIFF: these tags (as one 32-bit value each) and no pixels."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def tiff_of_size(width: int, height: int) -> bytes:
    strip = ((273, 8), (278, height), (279, width * height))
    return tiff((256, width), (257, height), (258, 8), (259, 1), (262, 1), *strip)


def tiff_of_tile(side: int) -> bytes:
    tile = ((322, side), (323, side), (324, 8), (325, 100))
    return tiff((256, SIDE), (257, SIDE), (258, 8), (259, 8), (262, 1), *tile)


def large_text() -> bytes:
    data, header = encoded(grey(), "PNG"), len(SIGNATURE) + 25
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**23)))
    return data[:header] + text + data[header:]


def crowded() -> bytes:
    return png(SIDE, SIDE, chunk(b"teSt", b"") * 100_000)


def commented() -> bytes:
    info = PngInfo()
    info.add_text("Comment", "chest, posterior-anterior", zip=True)
    return encoded(grey(), "PNG", pnginfo=info)


def cut(data: bytes, share: float = 0.6) -> bytes:
    return data[: int(len(data) * share)]


_CASES: dict[str, tuple[Callable[[], bytes], Reason | None]] = {
    "grey.png": (lambda: encoded(grey(), "PNG"), None),
    "colour.png": (lambda: encoded(colour(), "PNG"), None),
    "palette.png": (lambda: encoded(grey().quantize(64), "PNG"), None),
    "palette_transparent.png": (
        lambda: encoded(grey().quantize(64), "PNG", transparency=3),
        None,
    ),
    "rgba.png": (lambda: encoded(with_alpha(), "PNG"), None),
    "grey_alpha.png": (lambda: encoded(with_alpha().convert("LA"), "PNG"), None),
    "one_bit.png": (lambda: encoded(grey().convert("1"), "PNG"), None),
    "sixteen_bit.png": (lambda: encoded(deep(), "PNG"), None),
    "commented.png": (commented, None),
    "large_text.png": (large_text, None),  # 8 MB in 8 kB
    "tail.png": (lambda: encoded(grey(), "PNG") + b"and more", None),
    "grey.jpg": (lambda: encoded(grey(), "JPEG"), None),
    "colour.jpg": (lambda: encoded(colour(), "JPEG"), None),
    "cmyk.jpg": (lambda: encoded(colour().convert("CMYK"), "JPEG"), None),
    "progressive.jpg": (lambda: encoded(grey(), "JPEG", progressive=True), None),
    "oriented.jpg": (oriented, None),
    "broken_exif.jpg": (lambda: encoded(grey(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff"), None),
    "png_named.jpg": (lambda: encoded(grey(), "PNG"), None),
    "grey.bmp": (lambda: encoded(grey(), "BMP"), None),
    "colour.bmp": (lambda: encoded(colour(), "BMP"), None),
    "grey.tif": (lambda: encoded(grey(), "TIFF"), None),
    "lzw.tif": (lambda: encoded(grey(), "TIFF", compression="tiff_lzw"), None),
    "jpeg.tif": (lambda: encoded(colour(), "TIFF", compression="jpeg"), None),
    "big.tif": (lambda: encoded(grey(), "TIFF", big_tiff=True), None),
    "sixteen_bit.tif": (lambda: encoded(deep(), "TIFF"), None),
    "float.tif": (lambda: encoded(floats(), "TIFF"), None),
    "strip.png": (lambda: encoded(grey().resize((400, 16)), "PNG"), None),
    "empty.png": (lambda: b"", Reason.EMPTY_FILE),
    "text_named.png": (lambda: b"This is a text, not an image.\n", Reason.NOT_AN_IMAGE),
    "page_named.jpg": (lambda: b"<html><body>404</body></html>", Reason.NOT_AN_IMAGE),
    "letter_named.bmp": (lambda: b"BMW is a maker of cars, not an image", Reason.NOT_AN_IMAGE),
    "zeros.jpg": (lambda: bytes(1000), Reason.NOT_AN_IMAGE),
    "gif_named.png": (lambda: encoded(grey(), "GIF"), Reason.NOT_AN_IMAGE),
    "truncated.png": (lambda: cut(encoded(grey(), "PNG")), Reason.TRUNCATED),
    "signature_only.png": (lambda: SIGNATURE, Reason.TRUNCATED),
    "truncated.jpg": (lambda: cut(encoded(grey(), "JPEG")), Reason.TRUNCATED),
    "header_only.jpg": (lambda: encoded(grey(), "JPEG")[:30], Reason.TRUNCATED),
    "truncated.bmp": (lambda: cut(encoded(grey(), "BMP")), Reason.TRUNCATED),
    "truncated.tif": (lambda: cut(encoded(grey(), "TIFF")), Reason.TRUNCATED),
    "truncated_lzw.tif": (
        lambda: cut(encoded(grey(), "TIFF", compression="tiff_lzw")),
        Reason.TRUNCATED,
    ),
    "short_pixels.png": (lambda: png(SIDE, SIDE), Reason.TRUNCATED),
    "flipped_bit.png": (lambda: flipped(encoded(grey(), "PNG"), 300), Reason.CORRUPT),
    "no_tables.jpg": (
        lambda: encoded(grey(), "JPEG").replace(b"\xff\xdb", b"\xff\xe9"),
        Reason.CORRUPT,
    ),
    "no_tags.tif": (lambda: tiff((256, SIDE)), Reason.CORRUPT),
    "crowded.png": (crowded, Reason.CORRUPT),
    "not_a_number.tif": (lambda: encoded(floats(np.nan), "TIFF"), Reason.CORRUPT),
    "infinite.tif": (lambda: encoded(floats(np.inf), "TIFF"), Reason.CORRUPT),
    "bomb.png": (lambda: png(BOMB, BOMB), Reason.TOO_MANY_PIXELS),
    "bomb.jpg": (lambda: jpeg_of_size(BOMB, BOMB), Reason.TOO_MANY_PIXELS),
    "bomb.bmp": (lambda: bmp_of_size(BOMB, BOMB), Reason.TOO_MANY_PIXELS),
    "bomb.tif": (lambda: tiff_of_size(BOMB, BOMB), Reason.TOO_MANY_PIXELS),
    "tile_bomb.tif": (lambda: tiff_of_tile(BOMB), Reason.TOO_MANY_PIXELS),
    "black.png": (lambda: encoded(Image.new("L", (SIDE, SIDE)), "PNG"), Reason.NO_CONTRAST),
    "one_pixel.png": (lambda: encoded(grey().resize((1, 1)), "PNG"), Reason.TOO_SMALL),
    "line.png": (lambda: encoded(grey().resize((400, 15)), "PNG"), Reason.TOO_SMALL),
    "animated.png": (lambda: two_frames("PNG"), Reason.MULTIPLE_FRAMES),
    "pages.tif": (lambda: two_frames("TIFF"), Reason.MULTIPLE_FRAMES),
}

PLANTED: dict[str, Callable[[], bytes]] = {name: make for name, (make, _) in _CASES.items()}
EXPECTED: dict[str, Reason | None] = {name: reason for name, (_, reason) in _CASES.items()}
