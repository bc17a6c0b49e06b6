"""Bytes that end too early, told from bytes that are wrong, once they have failed to decode."""

from __future__ import annotations

from typing import Literal

from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

_STRIPS, _TILES = (273, 279), (324, 325)  # TIFF tags: offsets, byte counts


def is_truncated(kind: str, data: bytes, image: ImageFile | None, error: Exception) -> bool:
    """Whether a decoder failed because the end is missing.

    Args:
        kind: what `sniff` said. A PNG's end is looked for before decoding, see `png`.
        data: the whole file.
        image: the file as Pillow opened it, None when not even its header could be read.
        error: what the decoder raised.
    """
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return True
    if kind == "jpeg":
        return b"\xff\xd9" not in data
    if kind == "bmp":
        return len(data) < int.from_bytes(data[2:6], "little")
    if isinstance(image, TiffImageFile):
        try:
            return _pixels_end(image) > len(data)
        except Exception:  # tags of the wrong type: wrong, not short
            return False
    return kind == "tiff" and _directory_end(data) > len(data)


def _pixels_end(image: TiffImageFile) -> int:
    tags = image.tag_v2
    offsets, counts = (tags.get(tag, ()) for tag in (_TILES if _TILES[0] in tags else _STRIPS))
    ends = (int(offset) + int(count) for offset, count in zip(offsets, counts, strict=False))
    return max(ends, default=0)


def _directory_end(data: bytes) -> int:
    """Return where the first list of tags of a TIFF or BigTIFF ends."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    big = 43 in data[2:4]
    start = int.from_bytes(data[8:16] if big else data[4:8], order)
    if start >= len(data):
        return start + 1
    entries = start + (8 if big else 2)
    count = int.from_bytes(data[start:entries], order)
    return entries + count * (20 if big else 12) + (8 if big else 4)
