"""Every transfer syntax, counted; with `pytest -s` the table is printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file

from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.dicom.read import read_dicom
from eagle_spark.imaging.quiet import suppress_warnings
from tests.helpers.dicom_files import SYNTAXES, chest, shipped

# Files of pydicom that hold one grey frame, by their transfer syntax.
SHIPPED = {
    "CT_small.dcm": uid.ExplicitVRLittleEndian,
    "MR_small.dcm": uid.ExplicitVRLittleEndian,
    "MR_small_padded.dcm": uid.ExplicitVRLittleEndian,
    "examples_overlay.dcm": uid.ExplicitVRLittleEndian,
    "MR_small_implicit.dcm": uid.ImplicitVRLittleEndian,
    "MR_small_bigendian.dcm": uid.ExplicitVRBigEndian,
    "MR_small_expb.dcm": uid.ExplicitVRBigEndian,
    "image_dfl.dcm": uid.DeflatedExplicitVRLittleEndian,
    "MR_small_RLE.dcm": uid.RLELossless,
    "JPGExtended.dcm": uid.JPEGExtended12Bit,
    "MR_small_jpeg_ls_lossless.dcm": uid.JPEGLSLossless,
    "MR_small_jp2klossless.dcm": uid.JPEG2000Lossless,
    "J2K_pixelrep_mismatch.dcm": uid.JPEG2000Lossless,
    "693_J2KI.dcm": uid.JPEG2000,
    "JPEG2000.dcm": uid.JPEG2000,
}
TIMED = 20  # readings
_rows: list[tuple[str, str, int, str, float]] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print(
        "\n| transfer syntax | file | largest difference | ms |\n|---|---|---|---|", file=sys.stderr
    )
    for name, file, difference, levels, spent in _rows:
        print(f"| {name} | {file} | {difference} of {levels} | {spent:.1f} |", file=sys.stderr)


def milliseconds(data: bytes) -> float:
    started = time.perf_counter()
    for _ in range(TIMED):
        decode_image(data, 224)
    return (time.perf_counter() - started) / TIMED * 1000


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_every_transfer_syntax_gives_the_encoded_pixels(syntax: uid.UID) -> None:
    make, allowed = SYNTAXES[syntax]
    data = make()
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    pixels = np.asarray(read_dicom(data, False, []).image, np.int64)
    difference = int(np.abs(pixels - chest(bits=bits)).max())
    _rows.append((syntax.name, "made", difference, f"{1 << bits:,}", milliseconds(data)))
    assert difference <= allowed


@pytest.mark.parametrize("name", SHIPPED)
def test_files_of_pydicom_decode_as_with_pydicom(name: str) -> None:
    source = dcmread(str(get_testdata_file(name)))
    assert source.file_meta.TransferSyntaxUID == SHIPPED[name]
    data = shipped(name)
    shown = np.asarray(read_dicom(data, False, []).image, np.float64)
    with suppress_warnings():
        stored = source.pixel_array.astype(np.float64)
    assert shown.shape == stored.shape
    # Whatever rescale and window make of it: never darker where the stored value is higher.
    order = np.argsort(stored, axis=None, kind="stable")
    assert (np.diff(shown.ravel()[order]) >= 0).all()
    assert np.ptp(shown) > 0
    levels = f"{1 << source.BitsStored:,}"
    _rows.append((SHIPPED[name].name, f"`{name}`", 0, levels, milliseconds(data)))
