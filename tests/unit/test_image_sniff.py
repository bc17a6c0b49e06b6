from __future__ import annotations

import pytest

from eagle_spark.errors import Reason
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff
from tests.helpers.sample_images import EXPECTED_REASONS, SAMPLE_IMAGES

KINDS = {"png": "png", "jpg": "jpeg", "bmp": "bmp", "tif": "tiff"}


@pytest.mark.parametrize(
    "name", [name for name, reason in EXPECTED_REASONS.items() if reason is None]
)
def test_formats_are_detected_from_the_first_bytes(name: str) -> None:
    expected = "png" if name == "png_named.jpg" else KINDS[name.rsplit(".", 1)[1]]
    assert sniff(SAMPLE_IMAGES[name]()[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    "name", [name for name, reason in EXPECTED_REASONS.items() if reason is Reason.NOT_AN_IMAGE]
)
def test_other_content_is_unknown(name: str) -> None:
    assert sniff(SAMPLE_IMAGES[name]()) is None


@pytest.mark.parametrize("head", [b"", b"BM", b"\x89PNG", b"\xff", b"II", b"BM" + bytes(16)])
def test_too_few_bytes_are_unknown(head: bytes) -> None:
    assert sniff(head) is None
