"""PNG's outer structure: the chunks of the pixels checked when reading, the few written.

Pillow reads past the checksums of pixel data, so one flipped bit would go on as a wrong picture. Of
text and colour profiles, which no pixel here depends on, it refuses what is damaged or large.
Source of the layout: ISO/IEC 15948.
"""

from __future__ import annotations

import zlib
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejected, Reason

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
"""64 million pixels in chunks of 8 KiB need a third of this; more is an attack."""

_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
# Orientation, and how many pictures there are: read where they are sound.
_READ = (b"eXIf", b"acTL", b"fcTL", b"fdAT")
_LENGTH_AND_TYPE = Struct(">I4s")
_CHECKSUM = Struct(">I")
_HEADER = Struct(">IIBBBBB")
_COMPRESSION = (
    6  # 224² lung masks: 540 bytes in 0.1 ms; level 9 gains 1 % and takes 8 times as long
)


def checked_png(data: bytes) -> bytes:
    """Return a PNG without the chunks and trailing bytes that its picture does not depend on.

    Raises:
        ImageRejected: TRUNCATED when the bytes end before the IEND chunk does; CORRUPT when a
            checksum of a chunk of the pixels differs or there are more than `MAX_CHUNKS`.
    """
    view = memoryview(data)
    start = len(SIGNATURE)
    parts = [view[:start]]
    for _ in range(MAX_CHUNKS):
        if start + _LENGTH_AND_TYPE.size > len(data):
            raise ImageRejected(Reason.TRUNCATED, "PNG without its end chunk")
        length, kind = _LENGTH_AND_TYPE.unpack_from(data, start)
        end = start + _LENGTH_AND_TYPE.size + length
        if end + _CHECKSUM.size > len(data):
            raise ImageRejected(Reason.TRUNCATED, f"PNG ends inside its {kind!r} chunk")
        if kind in _NEEDED or kind in _READ:
            is_sound = zlib.crc32(view[start + 4 : end]) == _CHECKSUM.unpack_from(data, end)[0]
            if is_sound:
                parts.append(view[start : end + _CHECKSUM.size])
            elif kind in _NEEDED:
                raise ImageRejected(Reason.CORRUPT, f"PNG {kind!r} chunk has a wrong checksum")
        start = end + _CHECKSUM.size
        if kind == b"IEND":
            return b"".join((*parts, chunk(b"IEND", b"")))
    raise ImageRejected(Reason.CORRUPT, f"PNG with more than {MAX_CHUNKS} chunks")


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return one PNG chunk with its length and checksum."""
    return (
        _LENGTH_AND_TYPE.pack(len(body), kind)
        + body
        + _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(kind)))
    )


def write_bits(bits: NDArray[np.bool_]) -> bytes:
    """Return a 1-bit grey PNG of `bits` (height, width), True as white.

    Written here because it is three times as fast as Pillow and the files are a quarter smaller.
    The bytes depend on `bits` and the zlib in use alone.
    """
    height, width = bits.shape
    packed = np.packbits(bits, axis=1)
    rows = np.zeros((height, 1 + packed.shape[1]), np.uint8)  # first byte: filter type 0
    rows[:, 1:] = packed
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", _HEADER.pack(width, height, 1, 0, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows.tobytes(), _COMPRESSION)),
            chunk(b"IEND", b""),
        )
    )
