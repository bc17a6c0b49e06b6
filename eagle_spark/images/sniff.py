"""What a file is, by its first bytes; a name never decides."""

from __future__ import annotations

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
_BMP_HEADERS = frozenset((12, 40, 52, 56, 64, 108, 124))


def sniff(head: bytes) -> str | None:
    """Return `dicom`, `png`, `jpeg`, `bmp` or `tiff`, or None for anything else.

    Args:
        head: the first `HEAD_BYTES` bytes of a file, or more.
    """
    # First, as what stands before is the writer's own, often the header of a TIFF.
    if head[128:132] == b"DICM":
        return "dicom"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    # "BM" also begins many a text, so the size of BMP's second header is looked at as well.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    return None
