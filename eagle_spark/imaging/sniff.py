"""Detect the format of a file by its first bytes, whatever its name."""

from __future__ import annotations

import re

HEAD_BYTES = 132
"""Length of the head that `sniff` reads."""

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # BigTIFF
    b"MM\0+": "tiff",
}
_VALUE_REPRESENTATIONS = frozenset(
    re.findall(
        b"..",
        b"AEASATCSDADSDTFLFDISLOLTOBODOFOLOVOWPNSHSLSQSSSTSVTMUCUIULUNURUSUTUV",
    )
)
_MAX_FIRST_ELEMENT = 0x18  # of group 8, the first in an image: its SOPInstanceUID
_MAX_FIRST_LENGTH = 64
_BMP_HEADERS = frozenset((12, 40, 52, 56, 64, 108, 124))


def sniff(head: bytes) -> str | None:
    """Return `dicom`, `png`, `jpeg`, `bmp` or `tiff`; None for any other format.

    Args:
        head: the first `HEAD_BYTES` bytes of a file, or more.
    """
    # DICOM first: its preamble has any content, often the header of a TIFF.
    if head[128:132] == b"DICM" or _is_bare_dataset(head):
        return "dicom"
    for magic, file_format in _MAGIC.items():
        if head.startswith(magic):
            return file_format
    # Some texts begin with "BM" too, so the size of BMP's second header must match as well.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return None


def _is_bare_dataset(head: bytes) -> bool:
    """Return whether `head` begins a DICOM file without preamble, as some archives store it.

    The first element is of the meta group (2) or, where that is missing too, of group 8. It has a
    value representation or, in group 8, a 32-bit length in its place.
    """
    if len(head) < 8:
        return False
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    if group == 2:
        return element <= 2 and head[4:6] in _VALUE_REPRESENTATIONS
    if group != 8 or element > _MAX_FIRST_ELEMENT:
        return False
    length = int.from_bytes(head[4:8], "little")
    is_implicit = length % 2 == 0 and 0 < length <= _MAX_FIRST_LENGTH
    return is_implicit or head[4:6] in _VALUE_REPRESENTATIONS
