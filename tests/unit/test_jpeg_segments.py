"""The check of a JPEG's segments, compared with the counts of `bytes`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging import decode
from eagle_spark.imaging.decode import MAX_EXIF_SEGMENTS, MAX_SCANS, check_jpeg_segments

SCAN, EXIF = b"\xff\xda\0\x08", b"\xff\xe1\0\x10Exif\0\0"
PIECES = (
    *(b"\xff", b"\xda", b"\xff\xda", b"\xff\xff\xda", b"\xff\xe1"),
    *(b"E", b"x", b"Ex", b"Exif\0\0"),
)


def check_by_bytes(data: bytes) -> None:
    """The check as it is defined; slow."""
    scans, segments = data.count(b"\xff\xda"), data.count(b"Exif\0\0")
    if scans > decode.MAX_SCANS:
        raise ImageRejectedError(
            Reason.CORRUPT, f"jpeg: {scans} scans; wanted at most {decode.MAX_SCANS}"
        )
    if segments > decode.MAX_EXIF_SEGMENTS:
        raise ImageRejectedError(
            Reason.CORRUPT,
            f"jpeg: {segments} EXIF segments; wanted at most {decode.MAX_EXIF_SEGMENTS}",
        )


def outcome(check: Callable[[bytes], None], data: bytes) -> tuple[Reason, str | None] | None:
    try:
        check(data)
    except ImageRejectedError as error:
        return error.reason, error.detail
    return None


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=40).map(b"".join),
    st.integers(0, 3),
    st.integers(1, 9) | st.just(1 << 16),
)
def test_all_bytes_have_the_outcome_of_the_definition(data: bytes, limit: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "MAX_SCANS", limit)
        patch.setattr(decode, "MAX_EXIF_SEGMENTS", limit)
        patch.setattr(decode, "_BLOCK_BYTES", block)
        assert outcome(check_jpeg_segments, data) == outcome(check_by_bytes, data)


@pytest.mark.parametrize(("piece", "limit"), [(SCAN, MAX_SCANS), (EXIF, MAX_EXIF_SEGMENTS)])
def test_one_more_than_the_limit_is_rejected(piece: bytes, limit: int) -> None:
    check_jpeg_segments(piece * limit)
    with pytest.raises(ImageRejectedError, match=f"{limit + 1} .*wanted at most {limit}"):
        check_jpeg_segments(piece * (limit + 1))


@pytest.mark.parametrize("offset", range(-2, 3))
def test_segments_across_the_blocks_of_the_search_count_once(offset: int) -> None:
    gap = bytes(decode._BLOCK_BYTES + offset)
    data = (gap + SCAN) * 2 + SCAN * (MAX_SCANS - 1)
    with pytest.raises(ImageRejectedError, match=f"{MAX_SCANS + 1} scans"):
        check_jpeg_segments(data)
