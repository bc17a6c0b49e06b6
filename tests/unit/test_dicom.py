"""DICOM files: pixels, tags, and every reason of rejection."""

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

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import DICOM_TAGS, MAX_FILE_BYTES, decode_image
from eagle_spark.imaging.dicom import read as door
from eagle_spark.imaging.dicom.presentation import apply_window
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
from tests.helpers.sample_images import (
    BOMB_SIDE,
    encode_image,
    flip_bit,
    jpeg_of_size,
    picture,
    truncate,
)

SIZE = 48


def decode_pixels(data: bytes, size: int = SIZE) -> NDArray[np.int64]:
    return decode_image(data, size).pixels.astype(np.int64)


def decode_png(values: NDArray[Any], size: int = SIZE) -> NDArray[np.int64]:
    return decode_pixels(encode_image(Image.fromarray(values), "PNG"), size)


def rejection(data: bytes) -> ImageRejectedError:
    with pytest.raises(ImageRejectedError) as rejected:
        decode_image(data, SIZE)
    return rejected.value


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_input_of_the_network_equals_that_of_the_same_pixels_as_png(bits: int) -> None:
    values = chest(300, bits)
    png = decode_png(values.astype(np.uint8) if bits == 8 else values)
    assert (decode_pixels(dicom(values, bits)) == png).all()


def test_monochrome1_is_inverted() -> None:
    values = chest()
    film = dicom(4095 - values, PhotometricInterpretation="MONOCHROME1")
    assert (decode_pixels(film) == decode_pixels(dicom(values))).all()
    windowed = {"WindowCenter": 2000, "WindowWidth": 1500}
    film = dicom(values, PhotometricInterpretation="MONOCHROME1", **windowed)
    assert np.abs(decode_pixels(film) - (255 - decode_pixels(dicom(values, **windowed)))).max() <= 2


def test_signed_values_are_decoded_like_unsigned_values() -> None:
    signed = chest().astype(np.int16) - 2048
    assert (decode_pixels(dicom(signed)) == decode_pixels(dicom(chest()))).all()
    implicit = dataset(signed, PixelPaddingValue=-2048)
    implicit.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    assert np.abs(decode_pixels(written(implicit)) - decode_pixels(dicom(chest()))).max() <= 1


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [None, (2.0, -500.0), (0.5, 0.0)])
def test_a_window_after_a_rescale_equals_that_of_pydicom(
    function: str, rescale: tuple[float, float] | None
) -> None:
    tags = {"WindowCenter": [1800, 2], "WindowWidth": [1200, 4], "VOILUTFunction": function}
    if rescale:
        tags |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
    data = dicom(**tags)
    source = dcmread(BytesIO(data))
    expected = apply_windowing(apply_modality_lut(source.pixel_array, source), source)
    slope, intercept = rescale or (1, 0)
    expected = (expected - intercept) / (4095 * slope) * 255
    assert (
        np.abs(np.asarray(door.read_dicom(data, False, []).image, float) - expected).max() <= 0.51
    )


def test_the_input_of_a_windowed_file_equals_that_of_the_windowed_png() -> None:
    values = chest(300)
    shown = apply_window(values.astype(float), 1800, 1200, "LINEAR")
    assert shown is not None
    pixels = decode_pixels(dicom(values, WindowCenter=1800, WindowWidth=1200))
    assert (pixels == decode_png(np.rint(shown * 255).astype(np.uint8))).all()


def test_a_voi_lut_overrides_a_window_and_may_have_more_than_256_entries() -> None:
    curve = [round((at / 4095) ** 2 * 255) for at in range(4096)]
    data = dicom(VOILUTSequence=lut(curve), WindowCenter=5, WindowWidth=5)
    assert (np.asarray(door.read_dicom(data, False, []).image) == np.array(curve)[chest()]).all()


def test_a_modality_lut_is_applied_first() -> None:
    straight = list(range(0, 2 * 4096, 2))
    data = dicom(ModalityLUTSequence=lut(straight, bits=16), WindowCenter=4000, WindowWidth=3000)
    plain = dicom(WindowCenter=2000, WindowWidth=1500)
    assert np.abs(decode_pixels(data) - decode_pixels(plain)).max() <= 1


@pytest.mark.parametrize("width", [0, -5, 0.5])
def test_impossible_windows_are_ignored(width: float) -> None:
    assert (
        decode_pixels(dicom(WindowCenter=100, WindowWidth=width)) == decode_pixels(dicom())
    ).all()


def test_padding_is_black_and_does_not_set_the_range() -> None:
    values = chest(256) // 4 + 1000
    values[:40] = 4000
    pixels = decode_pixels(dicom(values, PixelPaddingValue=4000), 256)
    inside = values[40:].astype(float)
    expected = (inside - inside.min()) / np.ptp(inside) * 255
    assert (pixels[:40] == 0).all()
    assert np.abs(pixels[40:] - expected).max() <= 1


def test_bits_above_the_stored_bits_are_ignored() -> None:
    marked = chest() | np.uint16(0x8000)
    assert (decode_pixels(dicom(marked)) == decode_pixels(dicom(chest()))).all()


def test_tags_are_stored_and_the_patient_id_is_hashed_by_default() -> None:
    decoded = decode_image(dicom(IssuerOfPatientID="Clinic"), SIZE)
    assert decoded.dicom == {
        "patient_id": hashlib.sha256(f"Clinic\n{PATIENT}".encode()).hexdigest(),
        "view": "PA",
        "study_uid": "1.2.3",
        "sop_uid": "1.2.3.4",
        "manufacturer": "Eagle",
        "device": "E1",
        "intent": None,
    }
    assert tuple(decoded.dicom) == DICOM_TAGS
    assert (decoded.width, decoded.height) == (64, 64)
    tags = decode_image(dicom(), SIZE, keep_patient_id=True).dicom
    assert tags is not None
    assert tags["patient_id"] == PATIENT
    bare = decode_image(dicom(PatientID="", ViewPosition=None), SIZE).dicom
    assert bare is not None
    assert (bare["patient_id"], bare["view"]) == (None, None)
    assert decode_image(encode_image(Image.fromarray(picture()), "PNG"), SIZE).dicom is None


def test_equal_ids_of_two_issuers_are_two_patients() -> None:
    assert (
        door.hash_patient_id("7", "A")
        != door.hash_patient_id("7", "B")
        != door.hash_patient_id("7", None)
    )


def with_32_bits() -> bytes:
    item = dataset(chest())
    item.BitsAllocated = item.BitsStored = 32
    return written(item)


def crowded() -> bytes:
    """Return a private sequence of undefined length with a million empty items."""
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
    """Return a VOI LUT sequence of a declared length, full of empty items."""
    item = dataset(chest())
    item.add_new("VOILUTSequence", "UN", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 500_000)
    return written(item).replace(b"\x28\0\x10\x30UN", b"\x28\0\x10\x30SQ")


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
    "bomb": (lambda: dicom(Rows=BOMB_SIDE, Columns=BOMB_SIDE), Reason.TOO_MANY_PIXELS),
    "line": (lambda: dicom(Rows=4), Reason.TOO_SMALL),
    "32 bits": (with_32_bits, Reason.NO_DECODER),
    "MPEG": (lambda: enclosed(b"\0" * 99, uid.MPEG4HP41), Reason.NO_DECODER),
    "no pixels": (lambda: dicom()[: dicom().index(b"\xe0\x7f\x10\0")], Reason.TRUNCATED),
    "cut": (lambda: truncate(dicom()), Reason.TRUNCATED),
    "cut header": (lambda: truncate(dicom(), 0.03), Reason.NOT_AN_IMAGE),
    "cut RLE": (lambda: truncate(SYNTAXES[uid.RLELossless][0]()), Reason.TRUNCATED),
    "JPEG bomb": (
        lambda: enclosed(jpeg_of_size(BOMB_SIDE, BOMB_SIDE), uid.JPEGBaseline8Bit, 8),
        Reason.CORRUPT,
    ),
    "no JPEG": (lambda: enclosed(b"nothing of the sort", uid.JPEGBaseline8Bit, 8), Reason.CORRUPT),
    "colour JPEG": (
        lambda: enclosed(
            encode_image(Image.fromarray(picture()).convert("RGB"), "JPEG"), uid.JPEGBaseline8Bit, 8
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
    rejected = rejection(make())
    assert rejected.reason == reason, rejected
    assert rejected.detail
    captured = capfd.readouterr()
    for text in (str(rejected), captured.out, captured.err):
        assert PATIENT not in text
        assert "Nobody" not in text
    assert captured.err == captured.out == ""


def test_missing_modality_and_body_part_are_accepted() -> None:
    assert (
        decode_pixels(dicom(Modality=None, BodyPartExamined=None)) == decode_pixels(dicom())
    ).all()


def test_content_decides_whatever_the_preamble() -> None:
    data = b"II*\0" + bytes(124) + dicom()[128:]
    assert (decode_pixels(data) == decode_pixels(dicom())).all()


def test_a_dicom_file_is_not_a_mask() -> None:
    with pytest.raises(ImageRejectedError, match="wanted PNG") as rejected:
        read_mask(dicom(), SIZE)
    assert rejected.value.reason == Reason.MASK_INVALID


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(SYNTAXES)))
def test_damage_never_raises_anything_else(seed: int, syntax: str) -> None:
    drawn = random.Random(seed)
    data = _SOUND[syntax]
    for _ in range(drawn.choice([1, 1, 3, 20])):
        area = len(data) if drawn.random() < 0.4 else 1200
        data = flip_bit(data, drawn.randrange(132, min(area, len(data))))
    if drawn.random() < 0.2:
        data = data[: drawn.randrange(132, len(data))]
    with suppress(ImageRejectedError):
        assert decode_pixels(data).shape == (SIZE, SIZE)


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
from eagle_spark.imaging.decode import decode_image
stream = BytesIO()
Image.linear_gradient("L").save(stream, "PNG")
decode_image(stream.getvalue(), 32)
print("pydicom" in sys.modules)
"""
    assert python(program).strip() == "False"


def test_without_the_extra_the_reason_names_it() -> None:
    program = """
import sys
sys.modules["pydicom"] = None
from eagle_spark.errors import ImageRejectedError
from eagle_spark.imaging.decode import decode_image
try:
    decode_image(bytes(128) + b"DICM" + bytes(100), 32)
except ImageRejectedError as rejected:
    print(rejected)
"""
    output = python(program)
    assert output.startswith("no_decoder")
    assert "pip install 'eagle-spark[dicom]'" in output


def test_without_one_decoder_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels import get_decoder

    decoder = get_decoder(uid.JPEGBaseline8Bit)
    monkeypatch.setattr(decoder, "_available", {})
    rejected = rejection(jpeg())
    assert rejected.reason == Reason.NO_DECODER
    assert "pip install" in rejected.detail
    assert decode_pixels(native(uid.ExplicitVRLittleEndian)()).any()
