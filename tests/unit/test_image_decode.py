from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging import decode
from eagle_spark.imaging.decode import DecodedImage, decode_image
from eagle_spark.imaging.png import encode_chunk
from tests.helpers.sample_images import (
    EXPECTED_REASONS,
    SAMPLE_IMAGES,
    colour,
    deep,
    encode_image,
    grey,
    picture,
    png,
    with_alpha,
)

SIZE = 48
GOOD = [name for name, reason in EXPECTED_REASONS.items() if reason is None]
BAD = [name for name, reason in EXPECTED_REASONS.items() if reason is not None]
ALTERED = {"one_bit.png", "rgba.png", "grey_alpha.png", "palette_transparent.png", "oriented.jpg"}


def decode_pixels(data: bytes, size: int = SIZE) -> NDArray[np.int64]:
    return decode_image(data, size).pixels.astype(np.int64)


def decode_reason(data: bytes) -> Reason | None:
    try:
        decoded = decode_image(data, SIZE)
    except ImageRejectedError as rejected:
        return rejected.reason
    assert decoded.pixels.shape == (SIZE, SIZE)
    assert decoded.pixels.dtype == np.uint8
    return None


def tagged(values: NDArray[np.uint16], **tags: int) -> bytes:
    """A 16-bit TIFF; `tags` by number, as `t262=0`."""
    stream = BytesIO()
    Image.fromarray(values).save(
        stream, "TIFF", tiffinfo={int(tag[1:]): value for tag, value in tags.items()}
    )
    return stream.getvalue()


@pytest.mark.parametrize("name", SAMPLE_IMAGES)
def test_each_sample_file_is_accepted_or_has_its_reason(name: str) -> None:
    assert decode_reason(SAMPLE_IMAGES[name]()) == EXPECTED_REASONS[name]


@pytest.mark.parametrize("name", BAD)
def test_a_rejection_has_a_detail(name: str) -> None:
    with pytest.raises(ImageRejectedError) as rejected:
        decode_image(SAMPLE_IMAGES[name](), SIZE)
    assert rejected.value.detail


@pytest.mark.parametrize("name", [name for name in GOOD if name not in ALTERED])
def test_every_format_and_depth_gives_the_same_image(name: str) -> None:
    expected = decode_pixels(encode_image(grey(), "PNG"))
    pixels = decode_pixels(SAMPLE_IMAGES[name]())
    assert np.corrcoef(expected.ravel(), pixels.ravel())[0, 1] > 0.99


def test_the_size_is_that_of_the_file_though_jpegs_are_decoded_smaller() -> None:
    image = Image.fromarray(picture(600)).resize((600, 500))
    decoded = decode_image(encode_image(image, "JPEG", quality=95), SIZE)
    assert (decoded.width, decoded.height) == (600, 500)
    assert np.abs(decoded.pixels - decode_pixels(encode_image(image, "PNG"))).max() <= 3


def test_pixels_cannot_be_written_to() -> None:
    decoded: DecodedImage = decode_image(encode_image(grey(), "PNG"), SIZE)
    with pytest.raises(ValueError, match="read-only"):
        decoded.pixels[0, 0] = 1


def test_shrinking_averages_fine_detail() -> None:
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    board[:, 400:] = 0
    pixels = decode_pixels(encode_image(Image.fromarray(board.astype(np.uint8)), "PNG"))
    assert np.abs(pixels[:, :36] - 128).max() < 3


def test_enlarging_interpolates_and_does_not_overshoot() -> None:
    step = np.full((16, 16), 50, np.uint8)
    step[:, 8:] = 200
    row = decode_pixels(encode_image(Image.fromarray(step), "PNG"), 160)[80]
    assert row.min() == 50
    assert row.max() == 200
    assert len(np.unique(row)) > 5
    assert (np.diff(row) >= 0).all()


def test_transparent_pixels_are_black() -> None:
    pixels = decode_pixels(encode_image(with_alpha(), "PNG"), 64)
    assert (pixels[:7] == 0).all()
    assert (pixels[8:] == decode_pixels(encode_image(colour(), "PNG"), 64)[8:]).all()


def test_the_range_of_16_bits_is_stretched_to_8_bits() -> None:
    pixels = decode_pixels(encode_image(deep(), "PNG"), 64)
    plain = picture().astype(float)
    expected = (plain - plain.min()) / np.ptp(plain) * 255
    assert np.abs(pixels - expected).max() <= 1


def test_one_dead_pixel_does_not_darken_a_16_bit_image() -> None:
    values = np.asarray(Image.fromarray(picture(512))).astype(np.uint16) * 8
    values[100, 100] = 65535
    assert np.median(decode_pixels(encode_image(Image.fromarray(values), "PNG"))) > 100


def test_a_tiny_range_is_stretched_without_overflow() -> None:
    values = np.zeros((64, 64), np.float32)
    values[:, 32:] = 1e-44
    pixels = decode_pixels(encode_image(Image.fromarray(values), "TIFF"), 64)
    assert (pixels[0, 0], pixels[0, 63]) == (0, 255)


def test_white_is_zero_is_inverted_at_16_bits() -> None:
    values = picture().astype(np.uint16) * 12
    plain, inverted = decode_pixels(tagged(values)), decode_pixels(tagged(values, t262=0))
    assert np.abs(plain + inverted - 255).max() <= 1


def test_byte_order_of_16_bits_does_not_matter() -> None:
    values = picture().astype(np.uint16) * 12
    big = Image.frombytes("I;16B", values.shape, values.astype(">u2").tobytes())
    data = encode_image(big, "TIFF")
    assert data.startswith(b"MM")
    assert (decode_pixels(data) == decode_pixels(tagged(values))).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the row that is stored first is shown at the right
    upright = np.rot90(decode_pixels(encode_image(grey(), "PNG")), -1)
    assert (decode_pixels(encode_image(grey(), "PNG", exif=exif)) == upright).all()
    assert np.abs(decode_pixels(SAMPLE_IMAGES["oriented.jpg"]()) - upright).max() < 8


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_tiff_orientation_is_applied_once(compression: str) -> None:
    upright = np.rot90(decode_pixels(encode_image(grey(), "PNG")), -1)
    data = encode_image(grey(), "TIFF", compression=compression, tiffinfo={274: 6})
    assert np.abs(decode_pixels(data) - upright).max() <= 1  # turned before the resize


def test_orientation_of_16_bits_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.rot90(decode_pixels(encode_image(deep(), "PNG")), -1)
    assert (decode_pixels(encode_image(deep(), "PNG", exif=exif)) == upright).all()


def test_file_above_the_limit_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 99)
    assert decode_reason(bytes(99)) is Reason.NOT_AN_IMAGE
    assert decode_reason(bytes(100)) is Reason.FILE_TOO_LARGE


@pytest.mark.parametrize("name", [name for name in BAD if "bomb." in name])
def test_bombs_are_rejected_before_any_pixel_is_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    assert decode_reason(SAMPLE_IMAGES[name]()) is EXPECTED_REASONS[name]


def test_a_memory_error_is_not_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(MemoryError):
        decode_image(encode_image(grey(), "PNG"), SIZE)


def test_nothing_process_wide_is_changed() -> None:
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    for make in SAMPLE_IMAGES.values():
        decode_reason(make())
    assert warnings.filters == filters
    assert limit == Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_pillow_warning_does_not_escape() -> None:
    data = encode_image(grey(), "PNG")
    odd = data[:33] + encode_chunk(b"acTL", bytes(8)) + data[33:]
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(BytesIO(odd))
    assert decode_reason(odd) is None  # warnings are errors in tests


@pytest.mark.parametrize(
    "name", ["grey.png", "grey.jpg", "progressive.jpg", "grey.bmp", "grey.tif"]
)
def test_cut_anywhere_a_file_is_truncated(name: str) -> None:
    data = SAMPLE_IMAGES[name]()
    for length in range(18, len(data), 37):
        assert decode_reason(data[:length]) is Reason.TRUNCATED, length


def test_a_flipped_bit_anywhere_in_a_png_is_detected() -> None:
    data = encode_image(grey(), "PNG")
    for place in range(8, len(data), 11):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        assert decode_reason(bytes(changed)) in (Reason.CORRUPT, Reason.TRUNCATED), place


def test_header_without_area_is_corrupt() -> None:
    assert decode_reason(png(0, 64)) is Reason.CORRUPT


SEEDS = [SAMPLE_IMAGES[name]() for name in GOOD]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([b"", *(seed[:16] for seed in SEEDS)]), st.binary(max_size=300))
def test_arbitrary_bytes_give_pixels_or_a_reason(head: bytes, rest: bytes) -> None:
    decode_reason(head + rest)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_changed_files_give_pixels_or_a_reason(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(SEEDS)))
    places = st.integers(0, min(len(changed), data.draw(st.sampled_from([64, 400, 10**6]))) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        changed[place] = value
    decode_reason(bytes(changed[: data.draw(st.sampled_from([len(changed), len(changed) // 2]))]))


def test_a_fully_transparent_alpha_is_ignored() -> None:
    layers = colour().convert("RGBA")
    layers.putalpha(0)
    hidden = decode_image(encode_image(layers, "PNG"), 64).pixels
    assert (hidden == decode_image(encode_image(colour(), "PNG"), 64).pixels).all()


def test_a_wrong_checksum_after_the_pixels_is_ignored() -> None:
    data = encode_image(grey(), "PNG")
    assert (decode_image(data[:-1] + b"\0", 64).pixels == decode_image(data, 64).pixels).all()
