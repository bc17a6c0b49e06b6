"""Distinguish truncated from corrupt files after decoding has failed."""

from __future__ import annotations

from typing import Literal

from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

_STRIPS, _TILES = (273, 279), (324, 325)  # TIFF tags: offsets, byte counts


def is_truncated(file_format: str, data: bytes, image: ImageFile | None, error: Exception) -> bool:
    """Return whether a decoder failed because the end of the file is missing.

    Args:
        file_format: as from `sniff`. The end of a PNG is checked before decoding, see `png`.
        data: the whole file.
        image: as opened by Pillow; None where its header could not be read.
        error: exception of the decoder.
    """
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return True
    if file_format == "jpeg":
        return b"\xff\xd9" not in data
    if file_format == "bmp":
        return len(data) < int.from_bytes(data[2:6], "little")
    if isinstance(image, TiffImageFile):
        try:
            return _find_pixels_end(image) > len(data)
        except Exception:  # tags of the wrong type: corrupt
            return False
    return file_format == "tiff" and _find_directory_end(data) > len(data)


def _find_pixels_end(image: TiffImageFile) -> int:
    tags = image.tag_v2
    offsets, counts = (tags.get(tag, ()) for tag in (_TILES if _TILES[0] in tags else _STRIPS))
    ends = (int(offset) + int(count) for offset, count in zip(offsets, counts, strict=False))
    return max(ends, default=0)


def _find_directory_end(data: bytes) -> int:
    """Return the offset after the first directory of a TIFF or BigTIFF."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    is_big = 43 in data[2:4]
    start = int.from_bytes(data[8:16] if is_big else data[4:8], order)
    if start >= len(data):
        return start + 1
    entries = start + (8 if is_big else 2)
    count = int.from_bytes(data[start:entries], order)
    return entries + count * (20 if is_big else 12) + (8 if is_big else 4)
