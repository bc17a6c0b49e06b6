"""Hostile DICOM files: name -> factory, outcome of the decoder."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pydicom import uid

from eagle_spark.imaging.decode import MAX_FILE_BYTES
from tests.helpers.dicom_files import DX, chest, dataset, deflated_bomb, dicom, enclosed, written
from tests.helpers.sample_images import BOMB_SIDE, jpeg_of_size, truncate


def in_front(element: bytes, data: bytes) -> bytes:
    """A file whose first element behind the file's own is this one."""
    end = 144 + int.from_bytes(data[140:144], "little")
    return data[:end] + element + data[end:]


def element(length: int, kind: bytes = b"OB") -> bytes:
    """Return the header of a private element that declares a number of bytes."""
    return struct.pack("<HH2sHI", 0x0007, 0x1001, kind, 0, length)


def nested(depth: int) -> bytes:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return in_front((element(0xFFFFFFFF, b"SQ") + item) * depth, dicom())


def long_window(length: int) -> bytes:
    """Return a file with a window whose element declares 2 GB."""
    item = dataset(chest())
    item.add_new("WindowCenter", "OB", b"12")
    data, head = written(item), b"\x28\0\x50\x10OB\0\0"
    at = data.index(head) + len(head)
    return data[:at] + struct.pack("<I", length) + data[at + 4 :]


def of_syntax(name: str) -> bytes:
    item = dataset(chest())
    data = written(item)
    old = str(item.file_meta.TransferSyntaxUID).encode().ljust(20, b"\0")
    return data.replace(old, name.encode().ljust(20, b"\0"), 1)


DICOMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "DICOM cut in its pixels": (lambda: truncate(dicom()), "truncated: dicom: "),
    "DICOM of 65,535 x 65,535 pixels": (
        lambda: dicom(Rows=65_535, Columns=65_535),
        "too_many_pixels: 4294836225 pixels",
    ),
    "DICOM of no rows": (lambda: dicom(Rows=0), "too_small: 64x0"),
    "DICOM of 2 billion frames": (
        lambda: dicom(NumberOfFrames=2_000_000_000),
        "multiple_frames: dicom: wanted one frame; got 2000000000",
    ),
    "DICOM with an element of 4 GB": (
        lambda: in_front(element(2**32 - 2), dicom()),
        "truncated: dicom: ",
    ),
    "DICOM with a window of 2 GB": (lambda: long_window(2**31), "truncated: dicom: "),
    "DICOM in sequences 20,000 deep": (lambda: nested(20_000), "corrupt: dicom: "),
    "DICOM that inflates to 257 MB": (
        lambda: deflated_bomb(MAX_FILE_BYTES + 2**20),
        "file_too_large: dicom: inflates to more",
    ),
    "DICOM of a private transfer syntax": (
        lambda: of_syntax("1.3.6.1.4.1.99999.1"),
        "no_decoder: dicom: no decoder for",
    ),
    "DICOM that is a film": (
        lambda: enclosed(bytes(99), uid.MPEG4HP41),
        "no_decoder: dicom: no decoder for MPEG-4",
    ),
    "DICOM around a JPEG of 30,000 x 30,000": (
        lambda: enclosed(jpeg_of_size(BOMB_SIDE, BOMB_SIDE), uid.JPEGBaseline8Bit, 8),
        "corrupt: dicom: wanted a compressed frame of",
    ),
    "DICOM that is a program too": (lambda: b"\x7fELF" + bytes(124) + dicom()[128:], "accepted"),
    "DICOM of a patient with signs of HTML": (
        lambda: dicom(PatientID="<script>alert(1)</script>", Manufacturer="'; DROP TABLE images;"),
        "accepted",
    ),
    "DICOM without its own class": (
        lambda: dicom(SOPClassUID=None).replace(DX.encode(), b"9" * len(DX)),
        "accepted",
    ),
}
