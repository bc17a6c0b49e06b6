from __future__ import annotations

import pytest

from eagle_spark.errors import Reason
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff
from tests.helpers.planted import EXPECTED, PLANTED

KINDS = {"png": "png", "jpg": "jpeg", "bmp": "bmp", "tif": "tiff"}


@pytest.mark.parametrize("name", [name for name, reason in EXPECTED.items() if reason is None])
def test_good_files_are_known_by_their_first_bytes(name: str) -> None:
    expected = "png" if name == "png_named.jpg" else KINDS[name.rsplit(".", 1)[1]]
    assert sniff(PLANTED[name]()[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    "name", [name for name, reason in EXPECTED.items() if reason is Reason.NOT_AN_IMAGE]
)
def test_other_content_is_unknown_whatever_its_name(name: str) -> None:
    assert sniff(PLANTED[name]()) is None


@pytest.mark.parametrize("head", [b"", b"BM", b"\x89PNG", b"\xff", b"II", b"BM" + bytes(16)])
def test_too_few_bytes_are_unknown(head: bytes) -> None:
    assert sniff(head) is None
