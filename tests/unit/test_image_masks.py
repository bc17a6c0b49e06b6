from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.mask import decode_mask, encode_mask, read_mask
from tests.helpers.sample_images import EXPECTED_REASONS, SAMPLE_IMAGES, encode_image, grey

UNREADABLE = [
    name for name, reason in EXPECTED_REASONS.items() if reason not in (None, Reason.NO_CONTRAST)
]


def lungs(side: int = 64) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 8 : side // 3] = True
    mask[side // 4 : side // 2, side // 2 : side - side // 8] = True
    return mask


def as_levels(high: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(lungs().astype(dtype) * dtype(high))


@pytest.mark.parametrize(
    "data",
    [
        encode_image(as_levels(255).convert("RGB"), "PNG"),
        encode_image(as_levels(255), "PNG"),
        encode_image(as_levels(1), "PNG"),
        encode_image(as_levels(65535, np.uint16), "PNG"),
        encode_image(as_levels(255).convert("1"), "PNG"),
        encode_image(as_levels(255).convert("P"), "PNG"),
        encode_image(as_levels(255), "BMP"),
        encode_image(as_levels(255), "TIFF", compression="tiff_lzw"),
        encode_image(as_levels(255), "JPEG", quality=90),
    ],
    ids=["rgb", "grey", "zero_one", "16_bit", "1_bit", "palette", "bmp", "tiff", "jpeg"],
)
def test_every_encoding_gives_the_same_mask(data: bytes) -> None:
    mask = read_mask(data, 64)
    assert mask.dtype == np.bool_
    assert mask.view(np.uint8).max() == 1
    assert (mask == lungs()).all()


@pytest.mark.parametrize("side", [256, 100, 31])
def test_mask_of_another_size_is_resized_without_new_edges(side: int) -> None:
    mask = read_mask(encode_image(Image.fromarray(lungs(side)), "PNG"), 64)
    assert mask.shape == (64, 64)
    assert abs(mask.mean() - lungs(side).mean()) < 0.04
    assert np.abs(np.diff(mask[20].astype(int))).sum() == 4  # two lungs, four edges


def test_full_mask_is_full() -> None:
    assert read_mask(encode_image(Image.new("L", (64, 64), 255), "PNG"), 32).all()


def test_mask_without_a_pixel_is_empty() -> None:
    with pytest.raises(ImageRejectedError) as rejected:
        read_mask(encode_image(Image.new("L", (64, 64)), "PNG"), 32)
    assert rejected.value.reason is Reason.MASK_EMPTY


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_mask_is_invalid_and_names_the_inner_reason(name: str) -> None:
    data = SAMPLE_IMAGES[name]()
    with pytest.raises(ImageRejectedError) as rejected:
        read_mask(data, 64)
    assert rejected.value.reason is Reason.MASK_INVALID
    assert str(EXPECTED_REASONS[name]) in rejected.value.detail


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_decoding_gives_back_what_was_encoded(mask: NDArray[np.bool_]) -> None:
    decoded = decode_mask(encode_mask(mask))
    assert decoded.dtype == np.bool_
    assert (decoded == mask).all()


def test_encoded_masks_are_small_equal_and_read_by_anyone() -> None:
    mask = lungs(224)
    data = encode_mask(mask)
    assert data == encode_mask(mask.copy(order="F"))
    assert len(data) < 400
    assert (read_mask(data, 224) == mask).all()


def test_decoding_rejects_other_images() -> None:
    with pytest.raises(ValueError, match="1-bit"):
        decode_mask(encode_image(grey(), "PNG"))


@given(st.integers(16, 60))
def test_reading_an_encoded_mask_at_its_size_changes_nothing(side: int) -> None:
    assert (read_mask(encode_mask(lungs(side)), side) == lungs(side)).all()


def labelled(*levels: int) -> NDArray[np.uint8]:
    """A mask with the left lung of the first level, the right of the second, then the heart."""
    mask = np.zeros((64, 64), np.uint8)
    places = (np.s_[16:48, 8:28], np.s_[16:48, 36:56], np.s_[50:60, 20:40])
    for place, level in zip(places, levels, strict=False):
        mask[place] = level
    return mask


@pytest.mark.parametrize("levels", [(1, 2), (1, 2, 3), (100, 255), (40, 255), (255, 40), (7, 8)])
def test_labels_are_all_lung(levels: tuple[int, ...]) -> None:
    mask = labelled(*levels)
    assert (read_mask(encode_image(Image.fromarray(mask), "PNG"), 64) == (mask > 0)).all()


def test_labels_of_16_bits_are_all_lung() -> None:
    mask = labelled(1, 2).astype(np.uint16) * 1000
    assert (read_mask(encode_image(Image.fromarray(mask), "PNG"), 64) == (mask > 0)).all()


@pytest.mark.parametrize("quality", range(30, 101, 2))
def test_jpeg_does_not_change_a_mask(quality: int) -> None:
    data = encode_image(as_levels(255), "JPEG", quality=quality)
    assert (read_mask(data, 64) == lungs()).mean() > 0.99
    again = Image.open(BytesIO(data)).convert("L")  # and so it does where it is a PNG by now
    assert (read_mask(encode_image(again, "PNG"), 64) == lungs()).mean() > 0.99


@pytest.mark.parametrize("odd", [1, 4])
def test_a_background_that_is_not_quite_black_is_background(odd: int) -> None:
    mask = np.asarray(as_levels(255).resize((300, 300), Image.Resampling.BICUBIC)).copy()
    mask[mask < odd] = odd
    mask[0, 0] = 0
    assert (read_mask(encode_image(Image.fromarray(mask), "PNG"), 64) == lungs()).mean() > 0.97


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_a_mask_of_one_value_is_full_at_every_depth(dtype: type) -> None:
    data = encode_image(Image.fromarray(np.full((64, 64), 7, dtype)), "TIFF")
    assert read_mask(data, 32).all()


def test_a_lung_with_the_lowest_label_is_kept_beside_a_large_one() -> None:
    with pytest.raises(ImageRejectedError) as rejected:
        read_mask(encode_image(Image.fromarray(labelled(1, 255)), "PNG"), 64)
    assert rejected.value.reason == Reason.MASK_INVALID


def test_smooth_edges_are_cut_in_the_middle() -> None:
    smooth = as_levels(255).resize((300, 300), Image.Resampling.BICUBIC)
    assert (read_mask(encode_image(smooth, "PNG"), 64) == lungs()).mean() > 0.97


@pytest.mark.parametrize("level", [20, 60, 100])
def test_a_lung_that_would_be_lost_rejects_the_mask(level: int) -> None:
    mask = labelled(level, 255).astype(np.int64)
    rising = np.arange(64, dtype=np.int64)[:, None]  # every grey between, on a narrow strip
    mask[:, :2] = np.minimum(255, rising * 4 + np.arange(2))
    with pytest.raises(ImageRejectedError) as rejected:
        read_mask(encode_image(Image.fromarray(mask.astype(np.uint8)), "PNG"), 64)
    assert rejected.value.reason == Reason.MASK_INVALID
    assert "neither background" in rejected.value.detail


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_mask_has_the_orientation_of_its_image(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = np.zeros((64, 64), np.uint8)
    mask[4:20, 4:40] = 255
    options = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    data = encode_image(Image.fromarray(mask), kind, **options)
    image = decode_image(data, 64).pixels >= 128
    assert (read_mask(data, 64) == image).mean() > 0.99


def test_a_fully_transparent_mask_is_read() -> None:
    layers = np.dstack([labelled(255, 255)] * 3 + [np.zeros((64, 64), np.uint8)])
    assert read_mask(encode_image(Image.fromarray(layers, "RGBA"), "PNG"), 64).any()
