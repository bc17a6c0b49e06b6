"""Compressed frames: how large a decoder will make them, read without decoding."""

from __future__ import annotations

from struct import error as too_short
from struct import unpack_from

Shape = tuple[int, int, int]

_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
# All that begin a frame (JPEG, lossless JPEG, JPEG-LS) but tables, which share their range.
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA


def frame_shape(frame: bytes) -> Shape | None:
    """Return (rows, columns, components) of a JPEG, JPEG-LS or JPEG 2000 codestream.

    None for anything else, also for JPEG 2000 in a JP2 file, which DICOM does not allow.
    ISO 10918-1 B.2.2, 14495-1 C.2.2, 15444-1 A.5.1.
    """
    try:
        if frame.startswith(_JPEG_2000):
            right, bottom, left, top = unpack_from(">4I", frame, 8)
            (components,) = unpack_from(">H", frame, 40)
            return bottom - top, right - left, components
        return _jpeg_shape(frame) if frame.startswith(_JPEG) else None
    except (IndexError, too_short):
        return None


def _jpeg_shape(frame: bytes) -> Shape | None:
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _FRAMES:
            rows, columns, components = unpack_from(">HHB", frame, at + 5)
            return rows, columns, components
        if marker == _SCAN:
            return None
        (length,) = unpack_from(">H", frame, at + 2)
        at += 2 + max(length, 2)
    return None
