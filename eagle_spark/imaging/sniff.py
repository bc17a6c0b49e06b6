"""What a file is, by its first bytes; a name never decides."""

from __future__ import annotations

import re

HEAD_BYTES = 132
"""How much of a file `sniff` looks at."""

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
_MAX_FIRST_ELEMENT = 0x18  # of the group that comes first in an image: its own UID
_MAX_FIRST_LENGTH = 64
_BMP_HEADERS = frozenset((12, 40, 52, 56, 64, 108, 124))


def sniff(head: bytes) -> str | None:
    """Return `dicom`, `png`, `jpeg`, `bmp` or `tiff`, or None for anything else.

    Args:
        head: the first `HEAD_BYTES` bytes of a file, or more.
    """
    # First, as what stands before is the writer's own, often the header of a TIFF.
    if head[128:132] == b"DICM" or _is_bare_dataset(head):
        return "dicom"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    # "BM" also begins many a text, so the size of BMP's second header is looked at as well.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return None


def _is_bare_dataset(head: bytes) -> bool:
    """Whether DICOM begins here without its preamble, as some archives store it.

    The first element is of the meta group (2) or, where that is missing too, of group 8. It has a
    value representation or, in group 8, a length of 32 bits in its place.
    """
    if len(head) < 8:
        return False
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    if group == 2:
        return element <= 2 and head[4:6] in _VALUE_REPRESENTATIONS
    if group != 8 or element > _MAX_FIRST_ELEMENT:
        return False
    length = int.from_bytes(head[4:8], "little")
    plain = length % 2 == 0 and 0 < length <= _MAX_FIRST_LENGTH
    return plain or head[4:6] in _VALUE_REPRESENTATIONS
