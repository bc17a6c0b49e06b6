"""Hostile images: name -> factory, outcome of the decoder."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from eagle_spark.imaging.png import encode_chunk
from tests.helpers.sample_images import SIDE, encode_image, grey, picture, png


def scans(side: int, count: int) -> bytes:
    """Return a progressive JPEG with `count` empty scans, 24 bytes each, all read."""
    plain = encode_image(grey(), "JPEG", progressive=True)
    frame = plain.index(b"\xff\xc2") + 5
    head = plain[:frame] + struct.pack(">HH", side, side) + plain[frame + 4 :]
    head = head[: head.index(b"\xff\xda")]
    blocks, one_code = (side // 8) ** 2, bytes([1] + [0] * 15)
    tables = b"".join(
        b"\xff\xc4" + struct.pack(">H", 20) + bytes([kind]) + one_code + bytes([symbol])
        for kind, symbol in ((0x00, 0x00), (0x10, 0xE0))
    )
    first = b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(blocks // 8 + 1)
    runs = bytes(15 * (blocks // 16384 + 1) // 8 + 1)  # each ends 16,384 blocks
    return head + tables + first + (b"\xff\xda\0\x08\1\1\0\1\x3f\0" + runs) * count + b"\xff\xd9"


def directories(count: int, last: int = 0) -> bytes:
    """A TIFF of so many directories, of which the last one points at the byte `last`."""
    tags = ((256, SIDE), (257, SIDE), (258, 8), (259, 1), (262, 1), (273, 8), (278, SIDE))
    tags = (*tags, (279, SIDE * SIDE))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    size = 2 + len(entries) + 4
    parts = [b"II*\0" + struct.pack("<I", 8)]
    for number in range(1, count + 1):
        following = 8 + number * size if number < count else last
        parts.append(struct.pack("<H", len(tags)) + entries + struct.pack("<I", following))
    return b"".join(parts) + bytes(SIDE * SIDE)


def tiff_tag(tag: int, kind: int, count: int, value: int) -> bytes:
    """A TIFF one of whose tags promises something."""
    plain = {256: (4, 1, SIDE), 257: (4, 1, SIDE), 258: (4, 1, 8), 259: (4, 1, 1), 262: (4, 1, 1)}
    plain |= {273: (4, 1, 8), 278: (4, 1, SIDE), 279: (4, 1, SIDE * SIDE)}
    entries = [
        struct.pack("<HHII", at, *of)
        for at, of in sorted((plain | {tag: (kind, count, value)}).items())
    ]
    return (
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4 + SIDE * SIDE)
    )


def exif(size: int) -> bytes:
    return encode_image(grey(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + bytes(size))


def exif_loop() -> bytes:
    """EXIF whose directory of the camera points at itself."""
    entry = struct.pack(">HHII", 0x8769, 4, 1, 8)
    body = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 8)
    return encode_image(grey(), "JPEG", exif=b"Exif\0\0" + body)


def segments(mark: bytes, head: bytes, count: int) -> bytes:
    """A JPEG of so many segments of 64 kB before its own."""
    data = encode_image(grey(), "JPEG")
    segment = b"\xff" + mark + b"\xff\xff" + head + bytes(65_533 - len(head))
    return data[:2] + segment * count + data[2:]


def icc_segments(count: int) -> bytes:
    return segments(b"\xe2", b"ICC_PROFILE\0" + bytes([1, 255]), count)


def exif_segments(count: int) -> bytes:
    """EXIF beyond the 64 kB of a segment: readers put all of them together."""
    return segments(b"\xe1", b"Exif\0\0", count)


def icc_bomb() -> bytes:
    packed = b"profile\0\0" + zlib.compress(bytes(2**26), 9)
    return (
        encode_image(grey(), "PNG")[:33]
        + encode_chunk(b"iCCP", packed)
        + encode_image(grey(), "PNG")[33:]
    )


def crumbs() -> bytes:
    """A PNG whose pixels come in chunks of one byte."""
    plain = encode_image(grey(), "PNG")
    at = plain.index(b"IDAT")
    (size,) = struct.unpack(">I", plain[at - 4 : at])
    pixels = plain[at + 4 : at + 4 + size]
    parts = b"".join(encode_chunk(b"IDAT", pixels[n : n + 1]) for n in range(len(pixels)))
    return plain[: at - 4] + parts + plain[at + 8 + size :]


def png_header(**changed: int) -> bytes:
    values = {
        "width": SIDE,
        "height": SIDE,
        "depth": 8,
        "kind": 0,
        "way": 0,
        "filter": 0,
        "lace": 0,
    }
    header = struct.pack(">IIBBBBB", *(values | changed).values())
    plain = encode_image(grey(), "PNG")
    return plain[:8] + encode_chunk(b"IHDR", header) + plain[33:]


def long_chunk() -> bytes:
    plain = encode_image(grey(), "PNG")
    return plain[:33] + struct.pack(">I", 2**31 - 1) + b"teXt" + plain[33:]


def deflate_bomb() -> bytes:
    """Return a PNG of 64 x 64 pixels that inflates to 256 MiB."""
    body = encode_chunk(b"IDAT", zlib.compress(bytes(2**28), 9))
    return png(SIDE, SIDE)[:33] + body + encode_chunk(b"IEND", b"")


def many_frames() -> bytes:
    control = struct.pack(">II", 100_000, 0)
    plain = encode_image(grey(), "PNG")
    return plain[:33] + encode_chunk(b"acTL", control) + plain[33:]


def bmp(at: int, form: str, value: int) -> bytes:
    data = bytearray(encode_image(grey(), "BMP"))
    struct.pack_into(form, data, at, value)
    return bytes(data)


def with_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("run.py", "raise SystemExit")
    return encode_image(grey(), "PNG") + stream.getvalue()


def dots(value: float) -> bytes:
    values = picture().astype(np.float32)
    values[0, 0] = value
    return encode_image(Image.fromarray(values), "TIFF")


IMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG of 1,000 scans": (lambda: scans(8000, 1000), "corrupt: jpeg: 1001 scans"),
    "JPEG of 100 scans, 64 million pixels": (lambda: scans(8000, 99), "no_contrast"),
    "JPEG with EXIF of 64 kB of zeros": (lambda: exif(65_000), "accepted"),
    "JPEG with EXIF that points at itself": (exif_loop, "accepted"),
    "JPEG with EXIF in 100 segments, 7 MB": (lambda: exif_segments(100), "accepted"),
    "JPEG with EXIF in 101 segments": (
        lambda: exif_segments(101),
        "corrupt: jpeg: 101 EXIF segments",
    ),
    "JPEG with 500 ICC segments, 33 MB": (lambda: icc_segments(500), "accepted"),
    "JPEG that is HTML too": (
        lambda: encode_image(grey(), "JPEG", comment=b"<script>alert(1)</script>"),
        "accepted",
    ),
    "JPEG with a second image behind it": (lambda: 2 * encode_image(grey(), "JPEG"), "accepted"),
    "PNG with an ICC profile of 64 MB": (icc_bomb, "accepted"),
    "PNG in chunks of one byte": (crumbs, "accepted"),
    "PNG that inflates to 256 MB": (deflate_bomb, "no_contrast"),
    "PNG of 0 pixels": (lambda: png_header(width=0), "corrupt"),
    "PNG of 2**31 columns": (lambda: png_header(width=2**31 - 1), "too_many_pixels"),
    "PNG of 3 bits": (lambda: png_header(depth=3), "corrupt"),
    "PNG of an unknown filter": (lambda: png_header(filter=9), "corrupt"),
    "PNG with a chunk of 2 GB": (long_chunk, "truncated"),
    "PNG of 100,000 frames that are not there": (many_frames, "multiple_frames"),
    "PNG that is a zip too": (with_zip, "accepted"),
    "TIFF of 100,000 directories": (lambda: directories(100_000), "multiple_frames"),
    "TIFF whose directory follows itself": (lambda: directories(1, last=8), "accepted"),
    "TIFF with a tag of 2**31 values": (lambda: tiff_tag(305, 1, 2**31, 8), "accepted"),
    "TIFF of 65,535 samples a pixel": (lambda: tiff_tag(277, 3, 1, 65_535), "corrupt"),
    "TIFF of 64 bits a sample": (lambda: tiff_tag(258, 3, 1, 64), "no_decoder"),
    "TIFF whose strip lies behind the end": (lambda: tiff_tag(273, 4, 1, 2**31), "truncated"),
    "TIFF of compression 59999": (lambda: tiff_tag(259, 3, 1, 59_999), "corrupt"),
    "TIFF of numbers beyond float": (lambda: dots(3.4e38), "accepted"),
    "BMP of negative height": (lambda: bmp(22, "<i", -SIDE), "accepted"),
    "BMP whose pixels lie at 2**32": (lambda: bmp(10, "<I", 2**32 - 1), "truncated"),
    "BMP of 7 bits": (lambda: bmp(28, "<H", 7), "corrupt"),
    "BMP of 2**31 colours": (lambda: bmp(46, "<I", 2**31), "corrupt"),
    "PDF": (lambda: b"%PDF-1.7\n" + bytes(100), "not_an_image"),
    "ELF program": (lambda: b"\x7fELF" + bytes(100), "not_an_image"),
    "WebP": (lambda: encode_image(grey(), "WEBP"), "not_an_image"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0\n" + bytes(100), "not_an_image"),
}
