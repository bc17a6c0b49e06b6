"""DICOM files with something wrong in them, whose image is good: what is wrong is left out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets
from pydicom.filebase import DicomBytesIO
from pydicom.sequence import Sequence as Items

from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.imaging.dicom.codestream import find_codestream
from tests.helpers.dicom_files import (
    chest,
    compressed,
    dataset,
    dicom,
    enclosed,
    jpeg,
    lossless_jpeg,
    lut,
    native,
    written,
)

SIZE = 64
WINDOW = {"WindowCenter": "2048", "WindowWidth": "3000"}


def pixels_of(data: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    return read_radiograph(data, SIZE).pixels.astype(np.int16)


WINDOWED, SPREAD = pixels_of(dicom(**WINDOW)), pixels_of(dicom())


def incomplete(**tags: Any) -> Items:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return Items([item])


def short_lut() -> Items:
    found = lut(list(range(4096)), bits=12)
    found[0].LUTData = [1, 2, 3]
    return found


def long_sequence() -> bytes:
    """A VOI LUT sequence of a told length, full of empty items, beside a window."""
    found = dataset(chest(), **WINDOW)
    found.add_new("VOILUTSequence", "UN", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 500_000)
    return written(found).replace(b"\x28\0\x10\x30UN", b"\x28\0\x10\x30SQ")


@pytest.mark.parametrize(
    "tags",
    [
        {"VOILUTSequence": incomplete()},
        {"VOILUTSequence": incomplete(LUTExplanation="NORMAL")},
        {"VOILUTSequence": short_lut()},
        {"VOILUTSequence": lut([7] * 4096)},  # all of one grey
        {"ModalityLUTSequence": incomplete()},
        {"RescaleSlope": "0", "RescaleIntercept": "0"},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"SamplesPerPixel": None},
        {"PhotometricInterpretation": None},
        {"HighBit": None},
    ],
    ids=str,
)
def test_a_bad_or_missing_tag_costs_nothing_beside_a_window(tags: dict[str, Any]) -> None:
    assert (pixels_of(dicom(**WINDOW | tags)) == WINDOWED).all()


def test_pixels_of_no_told_sign_are_unsigned() -> None:
    found = dataset(chest(), **WINDOW)
    del found.PixelRepresentation
    assert (pixels_of(written(found)) == WINDOWED).all()


def test_the_photometric_interpretation_may_be_in_lower_case() -> None:
    data = dicom(**WINDOW)
    assert (pixels_of(data.replace(b"MONOCHROME2", b"monochrome2")) == WINDOWED).all()


def test_a_sequence_without_an_end_is_not_read() -> None:
    assert (pixels_of(long_sequence()) == WINDOWED).all()


@pytest.mark.parametrize(
    ("told", "instead", "wanted"),
    [
        ("2048", "AUTO", SPREAD),
        ("2048", "2048,0", WINDOWED),
        ("2048", "\\2048", WINDOWED),  # the first one is empty, and so is the first width
    ],
)
def test_window_texts_are_read_as_people_write_them(
    told: str, instead: str, wanted: np.ndarray[Any, Any]
) -> None:
    found = dataset(chest(), WindowWidth="\\3000" if instead.startswith("\\") else "3000")
    found.add_new("WindowCenter", "LO", instead)  # of a kind that may hold any text
    data = written(found).replace(b"\x28\0\x50\x10LO", b"\x28\0\x50\x10DS")
    assert told in instead or instead == "AUTO"
    assert (pixels_of(data) == wanted).all()


def test_without_a_window_bits_that_are_missing_are_all() -> None:
    assert (pixels_of(dicom(BitsStored=None, HighBit=None)) == SPREAD).all()


def bare_meta() -> bytes:
    return dicom(**WINDOW)[132:]


def bare_dataset() -> bytes:
    data = native(uid.ImplicitVRLittleEndian)()
    return data[data.index(b"\x08\0\x16\0") :]


def without_syntax() -> bytes:
    data = native(uid.ImplicitVRLittleEndian)()
    name = uid.ImplicitVRLittleEndian.encode()
    at = data.index(b"\x02\0\x10\0UI")
    length = 8 + len(name) + len(name) % 2
    group = int.from_bytes(data[140:144], "little") - length
    return data[:140] + struct.pack("<I", group) + data[144:at] + data[at + length :]


def deflated_of_wrong_length() -> bytes:
    data = native(uid.DeflatedExplicitVRLittleEndian)()
    return data[:140] + struct.pack("<I", 8) + data[144:]


def renamed(data: bytes, syntax: uid.UID) -> Callable[[], bytes]:
    """Bytes as pixels in no item, under another name."""

    def make() -> bytes:
        found = dataset(chest())
        found.PixelData = data + bytes(len(data) % 2)
        found["PixelData"].VR = "OB"
        return called(written(found), syntax)

    return make


def called(data: bytes, syntax: uid.UID) -> bytes:
    """A file of native pixels under the name of another syntax."""
    name, other = uid.ExplicitVRLittleEndian.encode() + b"\0", syntax.encode()
    other += bytes(len(other) % 2)
    at = data.index(name) - 2
    group = int.from_bytes(data[140:144], "little") + len(other) - len(name)
    head = data[:140] + struct.pack("<I", group) + data[144:at]
    return head + struct.pack("<H", len(other)) + other + data[at + 2 + len(name) :]


def frame_of(data: bytes) -> bytes:
    from io import BytesIO

    from pydicom import dcmread

    stream = DicomBytesIO(dcmread(BytesIO(data)).PixelData)
    stream.is_little_endian = True
    parse_basic_offsets(stream)
    return b"".join(generate_fragments(stream))


def j2k() -> bytes:
    return frame_of(compressed(uid.JPEG2000Lossless)())


def boxed() -> bytes:
    """The codestream in a JP2 file, as far as a reader of its boxes cares."""
    signature = struct.pack(">I4s4s", 12, b"jP  ", b"\r\n\x87\n")
    kind = struct.pack(">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ")
    stream = j2k()
    return signature + kind + struct.pack(">I4s", 8 + len(stream), b"jp2c") + stream


def wrong_offsets() -> bytes:
    found = dataset(chest())
    found.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    parts = bytearray(encapsulate([j2k()]))
    parts[8:12] = struct.pack("<I", 4)  # of the one frame, which is at 0
    found.PixelData = bytes(parts)
    found["PixelData"].VR = "OB"
    found["PixelData"].is_undefined_length = True
    return written(found)


FILES: dict[str, Callable[[], bytes]] = {
    "a meta group without its preamble": bare_meta,
    "a dataset alone": bare_dataset,
    "no transfer syntax": without_syntax,
    "deflated, the length of the meta group wrong": deflated_of_wrong_length,
    "called native, JPEG 2000": renamed(j2k(), uid.ExplicitVRLittleEndian),
    "called lossless JPEG, in no item": renamed(lossless_jpeg(chest(), 12), uid.JPEGLosslessSV1),
    "a JP2 file as the frame": lambda: enclosed(boxed(), uid.JPEG2000Lossless),
    "offsets that lead elsewhere": wrong_offsets,
    "called lossless JPEG, JPEG 2000": lambda: enclosed(j2k(), uid.JPEGLossless),
}


@pytest.mark.parametrize("name", FILES)
def test_the_bytes_tell_what_they_are(name: str) -> None:
    found = pixels_of(FILES[name]())
    assert (found == (WINDOWED if "meta group without" in name else SPREAD)).all()


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000, uid.JPEGBaseline8Bit])
def test_native_pixels_that_are_called_compressed_are_native(syntax: uid.UID) -> None:
    assert (pixels_of(called(dicom(), syntax)) == SPREAD).all()


@pytest.mark.parametrize("bits", [10, 16])
def test_a_codestream_says_how_many_bits_it_has(bits: int) -> None:
    data = enclosed(j2k(), uid.JPEG2000Lossless, BitsStored=bits, HighBit=bits - 1)
    assert (pixels_of(data) == SPREAD).all()


def test_eight_bits_in_words_of_sixteen_are_read() -> None:
    narrow = frame_of(jpeg())
    found = enclosed(narrow, uid.JPEGBaseline8Bit, 8, BitsAllocated=16)
    assert (pixels_of(found) == pixels_of(jpeg())).all()


def test_boxes_that_lead_nowhere_hold_no_codestream() -> None:
    assert find_codestream(boxed()) == j2k()
    assert find_codestream(boxed()[:32]) is None
    assert find_codestream(boxed()[:12] + bytes(8)) is None
    assert find_codestream(b"") is None
