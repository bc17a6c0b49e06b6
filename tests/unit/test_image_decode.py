from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging import decode
from eagle_spark.imaging.decode import Radiograph, read_radiograph
from eagle_spark.imaging.png import chunk
from tests.helpers.planted import (
    EXPECTED,
    PLANTED,
    colour,
    deep,
    encoded,
    grey,
    picture,
    png,
    with_alpha,
)

SIZE = 48
GOOD = [name for name, reason in EXPECTED.items() if reason is None]
BAD = [name for name, reason in EXPECTED.items() if reason is not None]
ALTERED = {"one_bit.png", "rgba.png", "grey_alpha.png", "palette_transparent.png", "oriented.jpg"}


def pixels_of(data: bytes, size: int = SIZE) -> NDArray[np.int64]:
    return read_radiograph(data, size).pixels.astype(np.int64)


def reason_of(data: bytes) -> Reason | None:
    try:
        found = read_radiograph(data, SIZE)
    except ImageRejected as rejected:
        return rejected.reason
    assert found.pixels.shape == (SIZE, SIZE)
    assert found.pixels.dtype == np.uint8
    return None


def tagged(values: NDArray[np.uint16], **tags: int) -> bytes:
    """A 16-bit TIFF; `tags` by number, as `t262=0`."""
    stream = BytesIO()
    Image.fromarray(values).save(
        stream, "TIFF", tiffinfo={int(tag[1:]): value for tag, value in tags.items()}
    )
    return stream.getvalue()


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_file_is_accepted_or_rejected_for_its_own_reason(name: str) -> None:
    assert reason_of(PLANTED[name]()) == EXPECTED[name]


@pytest.mark.parametrize("name", BAD)
def test_a_rejection_says_more_than_its_reason(name: str) -> None:
    with pytest.raises(ImageRejected) as rejected:
        read_radiograph(PLANTED[name](), SIZE)
    assert rejected.value.detail


@pytest.mark.parametrize("name", [name for name in GOOD if name not in ALTERED])
def test_every_format_and_depth_shows_the_same_picture(name: str) -> None:
    expected = pixels_of(encoded(grey(), "PNG"))
    found = pixels_of(PLANTED[name]())
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99


def test_size_as_found_is_that_of_the_file_though_jpegs_are_read_smaller() -> None:
    image = Image.fromarray(picture(600)).resize((600, 500))
    found = read_radiograph(encoded(image, "JPEG", quality=95), SIZE)
    assert (found.width, found.height) == (600, 500)
    assert np.abs(found.pixels - pixels_of(encoded(image, "PNG"))).max() <= 3


def test_pixels_cannot_be_written_to() -> None:
    found: Radiograph = read_radiograph(encoded(grey(), "PNG"), SIZE)
    with pytest.raises(ValueError, match="read-only"):
        found.pixels[0, 0] = 1


def test_shrinking_averages_fine_detail() -> None:
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    board[:, 400:] = 0
    found = pixels_of(encoded(Image.fromarray(board.astype(np.uint8)), "PNG"))
    assert np.abs(found[:, :36] - 128).max() < 3


def test_enlarging_interpolates_and_does_not_overshoot() -> None:
    step = np.full((16, 16), 50, np.uint8)
    step[:, 8:] = 200
    row = pixels_of(encoded(Image.fromarray(step), "PNG"), 160)[80]
    assert row.min() == 50
    assert row.max() == 200
    assert len(np.unique(row)) > 5
    assert (np.diff(row) >= 0).all()


def test_transparent_pixels_are_black_whatever_colour_they_hide() -> None:
    found = pixels_of(encoded(with_alpha(), "PNG"), 64)
    assert (found[:7] == 0).all()
    assert (found[8:] == pixels_of(encoded(colour(), "PNG"), 64)[8:]).all()


def test_sixteen_bits_spread_the_found_range_over_eight() -> None:
    found = pixels_of(encoded(deep(), "PNG"), 64)
    plain = picture().astype(float)
    expected = (plain - plain.min()) / np.ptp(plain) * 255
    assert np.abs(found - expected).max() <= 1


def test_one_dead_pixel_does_not_darken_a_16_bit_image() -> None:
    values = np.asarray(Image.fromarray(picture(512))).astype(np.uint16) * 8
    values[100, 100] = 65535
    assert np.median(pixels_of(encoded(Image.fromarray(values), "PNG"))) > 100


def test_tiniest_range_is_spread_without_overflow() -> None:
    values = np.zeros((64, 64), np.float32)
    values[:, 32:] = 1e-44
    found = pixels_of(encoded(Image.fromarray(values), "TIFF"), 64)
    assert (found[0, 0], found[0, 63]) == (0, 255)


def test_white_is_zero_is_turned_round_at_16_bits() -> None:
    values = picture().astype(np.uint16) * 12
    plain, inverted = pixels_of(tagged(values)), pixels_of(tagged(values, t262=0))
    assert np.abs(plain + inverted - 255).max() <= 1


def test_byte_order_of_16_bits_does_not_matter() -> None:
    values = picture().astype(np.uint16) * 12
    big = Image.frombytes("I;16B", values.shape, values.astype(">u2").tobytes())
    data = encoded(big, "TIFF")
    assert data.startswith(b"MM")
    assert (pixels_of(data) == pixels_of(tagged(values))).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the row that is stored first is shown at the right
    upright = np.rot90(pixels_of(encoded(grey(), "PNG")), -1)
    assert (pixels_of(encoded(grey(), "PNG", exif=exif)) == upright).all()
    assert np.abs(pixels_of(PLANTED["oriented.jpg"]()) - upright).max() < 8


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_tiff_orientation_is_applied_once(compression: str) -> None:
    upright = np.rot90(pixels_of(encoded(grey(), "PNG")), -1)
    data = encoded(grey(), "TIFF", compression=compression, tiffinfo={274: 6})
    assert np.abs(pixels_of(data) - upright).max() <= 1  # turned before the resize


def test_orientation_of_16_bits_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.rot90(pixels_of(encoded(deep(), "PNG")), -1)
    assert (pixels_of(encoded(deep(), "PNG", exif=exif)) == upright).all()


def test_file_above_the_limit_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 99)
    assert reason_of(bytes(99)) is Reason.NOT_AN_IMAGE
    assert reason_of(bytes(100)) is Reason.FILE_TOO_LARGE


@pytest.mark.parametrize("name", [name for name in BAD if "bomb." in name])
def test_bombs_are_rejected_before_any_pixel_is_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    assert reason_of(PLANTED[name]()) is EXPECTED[name]


def test_memory_error_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(MemoryError):
        read_radiograph(encoded(grey(), "PNG"), SIZE)


def test_nothing_process_wide_is_changed() -> None:
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    for make in PLANTED.values():
        reason_of(make())
    assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_pillow_warning_does_not_escape() -> None:
    data = encoded(grey(), "PNG")
    odd = data[:33] + chunk(b"acTL", bytes(8)) + data[33:]
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(BytesIO(odd))
    assert reason_of(odd) is None  # warnings are errors in tests


@pytest.mark.parametrize(
    "name", ["grey.png", "grey.jpg", "progressive.jpg", "grey.bmp", "grey.tif"]
)
def test_cut_anywhere_a_file_is_truncated(name: str) -> None:
    data = PLANTED[name]()
    for length in range(18, len(data), 37):
        assert reason_of(data[:length]) is Reason.TRUNCATED, length


def test_one_flipped_bit_anywhere_in_a_png_is_found() -> None:
    data = encoded(grey(), "PNG")
    for place in range(8, len(data), 11):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        assert reason_of(bytes(changed)) in (Reason.CORRUPT, Reason.TRUNCATED), place


def test_header_without_area_is_corrupt() -> None:
    assert reason_of(png(0, 64)) is Reason.CORRUPT


SEEDS = [PLANTED[name]() for name in GOOD]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([b"", *(seed[:16] for seed in SEEDS)]), st.binary(max_size=300))
def test_arbitrary_bytes_give_pixels_or_a_reason(head: bytes, rest: bytes) -> None:
    reason_of(head + rest)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_changed_files_give_pixels_or_a_reason(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(SEEDS)))
    places = st.integers(0, min(len(changed), data.draw(st.sampled_from([64, 400, 10**6]))) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        changed[place] = value
    reason_of(bytes(changed[: data.draw(st.sampled_from([len(changed), len(changed) // 2]))]))


def test_an_alpha_that_hides_everything_is_none() -> None:
    layers = colour().convert("RGBA")
    layers.putalpha(0)
    hidden = read_radiograph(encoded(layers, "PNG"), 64).pixels
    assert (hidden == read_radiograph(encoded(colour(), "PNG"), 64).pixels).all()


def test_a_wrong_checksum_behind_the_pixels_costs_none() -> None:
    data = encoded(grey(), "PNG")
    assert (read_radiograph(data[:-1] + b"\0", 64).pixels == read_radiograph(data, 64).pixels).all()
