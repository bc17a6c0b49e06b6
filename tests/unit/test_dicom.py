"""DICOM through the one door: what is shown, what is kept, and every way to be rejected."""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging.decode import DICOM_TAGS, MAX_FILE_BYTES, read_radiograph
from eagle_spark.imaging.dicom import read as door
from eagle_spark.imaging.dicom.presentation import window
from eagle_spark.imaging.mask import read_mask
from tests.helpers.dicom_files import (
    PATIENT,
    SYNTAXES,
    chest,
    dataset,
    deflated_bomb,
    dicom,
    enclosed,
    jpeg,
    lossless_jpeg,
    lut,
    native,
    shipped,
    written,
)
from tests.helpers.planted import BOMB, cut, encoded, flipped, jpeg_of_size, picture

SIZE = 48


def pixels_of(data: bytes, size: int = SIZE) -> NDArray[np.int64]:
    return read_radiograph(data, size).pixels.astype(np.int64)


def png_of(values: NDArray[Any], size: int = SIZE) -> NDArray[np.int64]:
    return pixels_of(encoded(Image.fromarray(values), "PNG"), size)


def rejection(data: bytes) -> ImageRejected:
    with pytest.raises(ImageRejected) as rejected:
        read_radiograph(data, SIZE)
    return rejected.value


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_network_sees_what_it_would_of_the_same_pixels_as_png(bits: int) -> None:
    values = chest(300, bits)
    png = png_of(values.astype(np.uint8) if bits == 8 else values)
    assert (pixels_of(dicom(values, bits)) == png).all()


def test_monochrome1_is_inverted() -> None:
    values = chest()
    film = dicom(4095 - values, PhotometricInterpretation="MONOCHROME1")
    assert (pixels_of(film) == pixels_of(dicom(values))).all()
    windowed = {"WindowCenter": 2000, "WindowWidth": 1500}
    film = dicom(values, PhotometricInterpretation="MONOCHROME1", **windowed)
    assert np.abs(pixels_of(film) - (255 - pixels_of(dicom(values, **windowed)))).max() <= 2


def test_signed_values_look_like_unsigned_ones() -> None:
    signed = chest().astype(np.int16) - 2048
    assert (pixels_of(dicom(signed)) == pixels_of(dicom(chest()))).all()
    implicit = dataset(signed, PixelPaddingValue=-2048)
    implicit.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    assert np.abs(pixels_of(written(implicit)) - pixels_of(dicom(chest()))).max() <= 1


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [None, (2.0, -500.0), (0.5, 0.0)])
def test_a_window_after_a_rescale_shows_what_pydicom_says(
    function: str, rescale: tuple[float, float] | None
) -> None:
    told = {"WindowCenter": [1800, 2], "WindowWidth": [1200, 4], "VOILUTFunction": function}
    if rescale:
        told |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    data = dicom(**told)
    source = dcmread(BytesIO(data))
    wanted = apply_windowing(apply_modality_lut(source.pixel_array, source), source)
    slope, intercept = rescale or (1, 0)
    wanted = (wanted - intercept) / (4095 * slope) * 255
    assert np.abs(np.asarray(door.read_dicom(data, False, []).image, float) - wanted).max() <= 0.51


def test_the_input_of_a_windowed_file_is_that_of_the_windowed_png() -> None:
    values = chest(300)
    shown = window(values.astype(float), 1800, 1200, "LINEAR")
    assert shown is not None
    found = pixels_of(dicom(values, WindowCenter=1800, WindowWidth=1200))
    assert (found == png_of(np.rint(shown * 255).astype(np.uint8))).all()


def test_a_voi_lut_wins_over_a_window_and_may_have_more_entries_than_a_byte_counts() -> None:
    curve = [round((at / 4095) ** 2 * 255) for at in range(4096)]
    data = dicom(VOILUTSequence=lut(curve), WindowCenter=5, WindowWidth=5)
    assert (np.asarray(door.read_dicom(data, False, []).image) == np.array(curve)[chest()]).all()


def test_a_modality_lut_comes_before_all() -> None:
    straight = list(range(0, 2 * 4096, 2))
    data = dicom(ModalityLUTSequence=lut(straight, bits=16), WindowCenter=4000, WindowWidth=3000)
    plain = dicom(WindowCenter=2000, WindowWidth=1500)
    assert np.abs(pixels_of(data) - pixels_of(plain)).max() <= 1


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_what_no_window_can_be_is_passed_over(width: float) -> None:
    assert (pixels_of(dicom(WindowCenter=100, WindowWidth=width)) == pixels_of(dicom())).all()


def test_padding_is_black_and_does_not_set_the_range() -> None:
    values = chest(256) // 4 + 1000
    values[:40] = 4000
    found = pixels_of(dicom(values, PixelPaddingValue=4000), 256)
    inside = values[40:].astype(float)
    wanted = (inside - inside.min()) / np.ptp(inside) * 255
    assert (found[:40] == 0).all()
    assert np.abs(found[40:] - wanted).max() <= 1


def test_bits_above_those_stored_do_not_show() -> None:
    marked = chest() | np.uint16(0x8000)
    assert (pixels_of(dicom(marked)) == pixels_of(dicom(chest()))).all()


def test_tags_are_kept_and_the_patient_is_hashed_unless_asked_for() -> None:
    found = read_radiograph(dicom(IssuerOfPatientID="Clinic"), SIZE)
    assert found.dicom == {
        "patient_id": hashlib.sha256(f"Clinic\n{PATIENT}".encode()).hexdigest(),
        "view": "PA",
        "study_uid": "1.2.3",
        "sop_uid": "1.2.3.4",
        "manufacturer": "Eagle",
        "device": "E1",
        "intent": None,
    }
    assert tuple(found.dicom) == DICOM_TAGS
    assert (found.width, found.height) == (64, 64)
    kept = read_radiograph(dicom(), SIZE, keep_patient_id=True).dicom
    assert kept is not None
    assert kept["patient_id"] == PATIENT
    bare = read_radiograph(dicom(PatientID="", ViewPosition=None), SIZE).dicom
    assert bare is not None
    assert (bare["patient_id"], bare["view"]) == (None, None)
    assert read_radiograph(encoded(Image.fromarray(picture()), "PNG"), SIZE).dicom is None


def test_one_patient_of_two_issuers_is_two() -> None:
    assert door.patient_key("7", "A") != door.patient_key("7", "B") != door.patient_key("7", None)


def bits_of_32() -> bytes:
    found = dataset(chest())
    found.BitsAllocated = found.BitsStored = 32
    return written(found)


def crowded() -> bytes:
    """A private sequence of no length told, of a million empty items."""
    data = dicom()
    end = 144 + int.from_bytes(data[140:144], "little")
    head = struct.pack("<HH2sHI", 0x0007, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
    return data[:end] + head + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) + data[end:]


def deeply_nested() -> bytes:
    data = dicom()
    end = 144 + int.from_bytes(data[140:144], "little")
    level = struct.pack("<HH2sHI", 0x0007, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    level += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return data[:end] + level * 20_000 + data[end:]


def long_sequence() -> bytes:
    """A VOI LUT sequence of a told length, full of empty items."""
    found = dataset(chest())
    found.add_new("VOILUTSequence", "UN", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 500_000)
    return written(found).replace(b"\x28\0\x10\x30UN", b"\x28\0\x10\x30SQ")


BAD: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "CT": (lambda: shipped("CT_small.dcm", Modality="CT"), Reason.NOT_A_CHEST_XRAY),
    "spine": (lambda: dicom(BodyPartExamined="CSPINE"), Reason.NOT_A_CHEST_XRAY),
    "RGB": (lambda: shipped("SC_rgb_rle.dcm"), Reason.COLOUR),
    "palette": (lambda: dicom(PhotometricInterpretation="PALETTE COLOR"), Reason.COLOUR),
    "two frames": (lambda: dicom(NumberOfFrames=2), Reason.MULTIPLE_FRAMES),
    "30 frames": (
        lambda: shipped(
            "examples_ybr_color.dcm", PhotometricInterpretation="MONOCHROME2", SamplesPerPixel=1
        ),
        Reason.MULTIPLE_FRAMES,
    ),
    "bomb": (lambda: dicom(Rows=BOMB, Columns=BOMB), Reason.TOO_MANY_PIXELS),
    "line": (lambda: dicom(Rows=4), Reason.TOO_SMALL),
    "32 bits": (bits_of_32, Reason.NO_DECODER),
    "MPEG": (lambda: enclosed(b"\0" * 99, uid.MPEG4HP41), Reason.NO_DECODER),
    "no pixels": (lambda: dicom()[: dicom().index(b"\xe0\x7f\x10\0")], Reason.TRUNCATED),
    "cut": (lambda: cut(dicom()), Reason.TRUNCATED),
    "cut header": (lambda: cut(dicom(), 0.03), Reason.NOT_AN_IMAGE),
    "cut RLE": (lambda: cut(SYNTAXES[uid.RLELossless][0]()), Reason.TRUNCATED),
    "JPEG bomb": (
        lambda: enclosed(jpeg_of_size(BOMB, BOMB), uid.JPEGBaseline8Bit, 8),
        Reason.CORRUPT,
    ),
    "no JPEG": (lambda: enclosed(b"nothing of the sort", uid.JPEGBaseline8Bit, 8), Reason.CORRUPT),
    "colour JPEG": (
        lambda: enclosed(
            encoded(Image.fromarray(picture()).convert("RGB"), "JPEG"), uid.JPEGBaseline8Bit, 8
        ),
        Reason.CORRUPT,
    ),
    "other size": (
        lambda: enclosed(lossless_jpeg(chest(32), 12), uid.JPEGLosslessSV1),
        Reason.CORRUPT,
    ),
    "crowded": (crowded, Reason.CORRUPT),
    "nested": (deeply_nested, Reason.CORRUPT),
    "deflated bomb": (lambda: deflated_bomb(MAX_FILE_BYTES + 2**20), Reason.FILE_TOO_LARGE),
    "report": (lambda: shipped("test-SR.dcm", Modality="SR"), Reason.NOT_A_CHEST_XRAY),
    "directory": (lambda: shipped("DICOMDIR"), Reason.NOT_AN_IMAGE),
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_file_is_rejected_for_its_own_reason_and_names_no_patient(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, reason = BAD[name]
    found = rejection(make())
    assert found.reason == reason, found
    assert found.detail
    captured = capfd.readouterr()
    for text in (str(found), captured.out, captured.err):
        assert PATIENT not in text
        assert "Nobody" not in text
    assert captured.err == captured.out == ""


def test_untold_modality_and_body_part_are_taken() -> None:
    assert (pixels_of(dicom(Modality=None, BodyPartExamined=None)) == pixels_of(dicom())).all()


def test_content_decides_whatever_stands_before() -> None:
    data = b"II*\0" + bytes(124) + dicom()[128:]
    assert (pixels_of(data) == pixels_of(dicom())).all()


def test_a_dicom_is_no_mask() -> None:
    with pytest.raises(ImageRejected, match="wanted PNG") as rejected:
        read_mask(dicom(), SIZE)
    assert rejected.value.reason == Reason.MASK_INVALID


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(SYNTAXES)))
def test_damage_never_raises_anything_else(seed: int, syntax: str) -> None:
    drawn = random.Random(seed)
    data = _SOUND[syntax]
    for _ in range(drawn.choice([1, 1, 3, 20])):
        area = len(data) if drawn.random() < 0.4 else 1200
        data = flipped(data, drawn.randrange(132, min(area, len(data))))
    if drawn.random() < 0.2:
        data = data[: drawn.randrange(132, len(data))]
    with suppress(ImageRejected):
        assert pixels_of(data).shape == (SIZE, SIZE)


_SOUND = {syntax: make() for syntax, (make, _) in SYNTAXES.items()}


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_other_files_do_not_load_pydicom() -> None:
    program = """
import sys
from io import BytesIO
from PIL import Image
from eagle_spark.imaging.decode import read_radiograph
stream = BytesIO()
Image.linear_gradient("L").save(stream, "PNG")
read_radiograph(stream.getvalue(), 32)
print("pydicom" in sys.modules)
"""
    assert python(program).strip() == "False"


def test_without_the_extra_the_reason_says_how_to_install_it() -> None:
    program = """
import sys
sys.modules["pydicom"] = None
from eagle_spark.errors import ImageRejected
from eagle_spark.imaging.decode import read_radiograph
try:
    read_radiograph(bytes(128) + b"DICM" + bytes(100), 32)
except ImageRejected as rejected:
    print(rejected)
"""
    said = python(program)
    assert said.startswith("no_decoder")
    assert "pip install 'eagle-spark[dicom]'" in said


def test_without_one_decoder_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels import get_decoder

    decoder = get_decoder(uid.JPEGBaseline8Bit)
    monkeypatch.setattr(decoder, "_available", {})
    found = rejection(jpeg())
    assert found.reason == Reason.NO_DECODER
    assert "pip install" in found.detail
    assert pixels_of(native(uid.ExplicitVRLittleEndian)()).any()
