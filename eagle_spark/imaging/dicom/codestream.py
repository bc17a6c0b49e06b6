"""Read kind and size of compressed frames from their headers, without decoding."""

from __future__ import annotations

from struct import error as struct_error
from struct import unpack_from
from typing import NamedTuple

_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
JPEG_LS = 0xF7  # frame marker
# Markers that begin a frame (JPEG, lossless JPEG, JPEG-LS), without tables in the same range.
_FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), JPEG_LS)) - {0xC4, 0xC8, 0xCC}
_SCAN_MARKER = 0xDA


class FrameHeader(NamedTuple):
    """Header of a codestream.

    Attributes:
        marker: frame marker of JPEG (0xC0, 0xC1, 0xC3, ...) or JPEG-LS; None for JPEG 2000.
        bits: per sample.
    """

    marker: int | None
    rows: int
    columns: int
    components: int
    bits: int


def find_codestream(data: bytes) -> bytes | None:
    """Return the JPEG, JPEG-LS or JPEG 2000 codestream at the start of `data`; None without one.

    DICOM requires a bare JPEG 2000 codestream; some writers store a JP2 file, whose `jp2c` box
    contains it (ISO 15444-1 I.4).
    """
    if data.startswith((_JPEG, _JPEG_2000)):
        return data
    if not data.startswith(_JP2):
        return None
    offset = 0
    while offset + 8 <= len(data):
        length, box_type = unpack_from(">I4s", data, offset)
        header_length = 8
        if length == 1 and offset + 16 <= len(data):
            (length,), header_length = unpack_from(">Q", data, offset + 8), 16
        end = offset + length if length else len(data)
        if box_type == b"jp2c":
            return data[offset + header_length : end]
        if end <= offset:
            return None
        offset = end
    return None


def read_frame_header(codestream: bytes) -> FrameHeader | None:
    """Read the header of a codestream; None where it is invalid.

    ISO 10918-1 B.2.2, 14495-1 C.2.2, 15444-1 A.5.1.
    """
    try:
        if codestream.startswith(_JPEG_2000):
            right, bottom, left, top = unpack_from(">4I", codestream, 8)
            components, depth = unpack_from(">HB", codestream, 40)
            return FrameHeader(None, bottom - top, right - left, components, (depth & 0x7F) + 1)
        return _read_jpeg_header(codestream) if codestream.startswith(_JPEG) else None
    except (IndexError, struct_error):
        return None


def _read_jpeg_header(frame: bytes) -> FrameHeader | None:
    offset = 2
    while frame[offset] == 0xFF:
        marker = frame[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker in _FRAME_MARKERS:
            bits, rows, columns, components = unpack_from(">BHHB", frame, offset + 4)
            return FrameHeader(marker, rows, columns, components, bits)
        if marker == _SCAN_MARKER:
            return None
        (length,) = unpack_from(">H", frame, offset + 2)
        offset += 2 + max(length, 2)
    return None
