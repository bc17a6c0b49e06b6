"""DICOM files with a defect and a good image: the defect is ignored."""

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

from eagle_spark.errors import ImageRejectedError
from eagle_spark.imaging.decode import decode_image
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


def decode_pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    return decode_image(data, SIZE).pixels.astype(np.int16)


WINDOWED, SPREAD = decode_pixels(dicom(**WINDOW)), decode_pixels(dicom())


def incomplete(**tags: Any) -> Items:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return Items([item])


def short_lut() -> Items:
    table = lut(list(range(4096)), bits=12)
    table[0].LUTData = [1, 2, 3]
    return table


def long_sequence() -> bytes:
    """Return a VOI LUT sequence of a declared length, full of empty items, beside a window."""
    item = dataset(chest(), **WINDOW)
    item.add_new("VOILUTSequence", "UN", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 500_000)
    return written(item).replace(b"\x28\0\x10\x30UN", b"\x28\0\x10\x30SQ")


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
def test_a_bad_or_missing_tag_is_ignored_with_a_window(tags: dict[str, Any]) -> None:
    assert (decode_pixels(dicom(**WINDOW | tags)) == WINDOWED).all()


def test_pixels_without_a_representation_are_unsigned() -> None:
    item = dataset(chest(), **WINDOW)
    del item.PixelRepresentation
    assert (decode_pixels(written(item)) == WINDOWED).all()


def test_the_photometric_interpretation_may_be_in_lower_case() -> None:
    data = dicom(**WINDOW)
    assert (decode_pixels(data.replace(b"MONOCHROME2", b"monochrome2")) == WINDOWED).all()


def test_a_sequence_without_an_end_is_not_read() -> None:
    assert (decode_pixels(long_sequence()) == WINDOWED).all()


@pytest.mark.parametrize(
    ("text", "instead", "expected"),
    [
        ("2048", "AUTO", SPREAD),
        ("2048", "2048,0", WINDOWED),
        ("2048", "\\2048", WINDOWED),  # the first one is empty, and so is the first width
    ],
)
def test_window_texts_are_read_as_people_write_them(
    text: str, instead: str, expected: np.ndarray[Any, Any]
) -> None:
    item = dataset(chest(), WindowWidth="\\3000" if instead.startswith("\\") else "3000")
    item.add_new("WindowCenter", "LO", instead)  # of a kind that may hold any text
    data = written(item).replace(b"\x28\0\x50\x10LO", b"\x28\0\x50\x10DS")
    assert text in instead or instead == "AUTO"
    assert (decode_pixels(data) == expected).all()


def test_without_a_window_missing_stored_bits_are_all_bits() -> None:
    assert (decode_pixels(dicom(BitsStored=None, HighBit=None)) == SPREAD).all()


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
        item = dataset(chest())
        item.PixelData = data + bytes(len(data) % 2)
        item["PixelData"].VR = "OB"
        return called(written(item), syntax)

    return make


def called(data: bytes, syntax: uid.UID) -> bytes:
    """A file of native pixels under the name of another syntax."""
    name, other = uid.ExplicitVRLittleEndian.encode() + b"\0", syntax.encode()
    other += bytes(len(other) % 2)
    at = data.index(name) - 2
    group = int.from_bytes(data[140:144], "little") + len(other) - len(name)
    head = data[:140] + struct.pack("<I", group) + data[144:at]
    return head + struct.pack("<H", len(other)) + other + data[at + 2 + len(name) :]


def extract_frame(data: bytes) -> bytes:
    from io import BytesIO

    from pydicom import dcmread

    stream = DicomBytesIO(dcmread(BytesIO(data)).PixelData)
    stream.is_little_endian = True
    parse_basic_offsets(stream)
    return b"".join(generate_fragments(stream))


def j2k() -> bytes:
    return extract_frame(compressed(uid.JPEG2000Lossless)())


def boxed() -> bytes:
    """The codestream in a JP2 file, as far as a reader of its boxes cares."""
    signature = struct.pack(">I4s4s", 12, b"jP  ", b"\r\n\x87\n")
    kind = struct.pack(">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ")
    stream = j2k()
    return signature + kind + struct.pack(">I4s", 8 + len(stream), b"jp2c") + stream


def wrong_offsets() -> bytes:
    item = dataset(chest())
    item.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    parts = bytearray(encapsulate([j2k()]))
    parts[8:12] = struct.pack("<I", 4)  # of the one frame, which is at 0
    item.PixelData = bytes(parts)
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = True
    return written(item)


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
def test_the_format_is_detected_from_the_bytes(name: str) -> None:
    pixels = decode_pixels(FILES[name]())
    assert (pixels == (WINDOWED if "meta group without" in name else SPREAD)).all()


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000, uid.JPEGBaseline8Bit])
def test_native_pixels_with_a_compressed_syntax_are_read(syntax: uid.UID) -> None:
    assert (decode_pixels(called(dicom(), syntax)) == SPREAD).all()


@pytest.mark.parametrize("bits", [10, 16])
def test_the_bits_are_read_from_the_codestream(bits: int) -> None:
    data = enclosed(j2k(), uid.JPEG2000Lossless, BitsStored=bits, HighBit=bits - 1)
    assert (decode_pixels(data) == SPREAD).all()


def test_eight_bits_in_words_of_sixteen_are_read() -> None:
    narrow = extract_frame(jpeg())
    file = enclosed(narrow, uid.JPEGBaseline8Bit, 8, BitsAllocated=16)
    assert (decode_pixels(file) == decode_pixels(jpeg())).all()


def test_broken_boxes_hold_no_codestream() -> None:
    assert find_codestream(boxed()) == j2k()
    assert find_codestream(boxed()[:32]) is None
    assert find_codestream(boxed()[:12] + bytes(8)) is None
    assert find_codestream(b"") is None


def test_an_error_does_not_contain_the_name_of_the_patient() -> None:
    near = dict.fromkeys(("Manufacturer", "ManufacturerModelName"))
    whole = dicom(chest(), Modality="XX", PatientName="Nobody^At^All", **near)
    start = whole.index(b"\x08\x00\x60\x00CS")
    end = whole.index(b"Nobody^At^All") + len(b"Nobody^At^All")
    length = struct.pack("<H", end - start - 8)
    damaged = whole[: start + 6] + length + whole[start + 8 :]
    with pytest.raises(ImageRejectedError) as rejected:
        decode_image(damaged, SIZE)
    assert "XX" in rejected.value.detail
    assert "nobody" not in rejected.value.detail.lower()
