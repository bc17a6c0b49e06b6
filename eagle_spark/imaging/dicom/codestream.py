"""Compressed frames: what they are and how large a decoder will make them, without decoding."""

from __future__ import annotations

from struct import error as too_short
from struct import unpack_from
from typing import NamedTuple

_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
JPEG_LS = 0xF7  # marker of its frame
# All that begin a frame (JPEG, lossless JPEG, JPEG-LS) but tables, which share their range.
_FRAMES = frozenset((*range(0xC0, 0xD0), JPEG_LS)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA


class Frame(NamedTuple):
    """What the header of a codestream says.

    Attributes:
        kind: marker of the frame of JPEG (0xC0, 0xC1, 0xC3, ...) or JPEG-LS; None of JPEG 2000.
        bits: of a sample.
    """

    kind: int | None
    rows: int
    columns: int
    components: int
    bits: int


def find_codestream(data: bytes) -> bytes | None:
    """Return the JPEG, JPEG-LS or JPEG 2000 codestream that `data` begins with; None where none is.

    DICOM wants JPEG 2000 bare; of a JP2 file, which some writers take, it is one of the boxes
    (ISO 15444-1 I.4).
    """
    if data.startswith((_JPEG, _JPEG_2000)):
        return data
    if not data.startswith(_JP2):
        return None
    at = 0
    while at + 8 <= len(data):
        length, kind = unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            (length,), head = unpack_from(">Q", data, at + 8), 16
        end = at + length if length else len(data)
        if kind == b"jp2c":
            return data[at + head : end]
        if end <= at:
            return None
        at = end
    return None


def read_frame(codestream: bytes) -> Frame | None:
    """Return what the header of a codestream says; None where it is none.

    ISO 10918-1 B.2.2, 14495-1 C.2.2, 15444-1 A.5.1.
    """
    try:
        if codestream.startswith(_JPEG_2000):
            right, bottom, left, top = unpack_from(">4I", codestream, 8)
            components, depth = unpack_from(">HB", codestream, 40)
            return Frame(None, bottom - top, right - left, components, (depth & 0x7F) + 1)
        return _jpeg_frame(codestream) if codestream.startswith(_JPEG) else None
    except (IndexError, too_short):
        return None


def _jpeg_frame(frame: bytes) -> Frame | None:
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _FRAMES:
            bits, rows, columns, components = unpack_from(">BHHB", frame, at + 4)
            return Frame(marker, rows, columns, components, bits)
        if marker == _SCAN:
            return None
        (length,) = unpack_from(">H", frame, at + 2)
        at += 2 + max(length, 2)
    return None
