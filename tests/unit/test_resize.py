"""`eagle resize`: images of one size, everything else unchanged."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eagle_spark.datasets.resize import resize, resize_file
from eagle_spark.errors import InputError, OutputError
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.sniff import sniff
from eagle_spark.settings import ResizeSettings
from tests.helpers.sample_images import (
    EXPECTED_REASONS,
    SAMPLE_IMAGES,
    SIDE,
    encode_image,
    grey,
    write_file,
)

SIZE = 32


def settings(source: Path, target: Path, size: int = SIZE) -> ResizeSettings:
    return ResizeSettings(input=str(source), out=str(target), size=size)


@pytest.mark.parametrize("name", SAMPLE_IMAGES)
def test_every_kind_of_file(name: str, tmp_path: Path) -> None:
    write_file(tmp_path / "in" / name, SAMPLE_IMAGES[name]())
    done = resize_file(tmp_path / "in", tmp_path / "out", SIZE, name)
    written = tmp_path / "out" / name
    if EXPECTED_REASONS[name]:
        assert (done.action, done.error and done.error.reason) == (
            "rejected",
            EXPECTED_REASONS[name],
        )
        assert not written.exists()
        return
    assert done.action == "resized"
    assert sniff(written.read_bytes()) == sniff(SAMPLE_IMAGES[name]())
    expected = decode_image(SAMPLE_IMAGES[name](), SIZE).pixels.astype(int)
    with Image.open(written) as image:
        assert (image.size, image.mode) == ((SIZE, SIZE), "L")
        assert np.abs(np.asarray(image) - expected).mean() < (6 if name.endswith("jpg") else 1e-9)


def test_a_folder_in_parallel_and_again(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for number in range(40):
        write_file(source / f"A/images/{number}.png", encode_image(grey().rotate(number), "PNG"))
    right = write_file(
        source / "A/images/right.png", encode_image(grey().resize((SIZE, SIZE)), "PNG")
    )
    write_file(source / "A/images/broken.png", SAMPLE_IMAGES["truncated.png"]())
    write_file(
        source / "A/masks/0.png",
        encode_image(grey().point(lambda level: 255 * (level > 99)), "PNG"),
    )
    write_file(source / "A.metadata.xlsx", b"PK a workbook")

    result = asdict(resize(settings(source, target)))
    assert result.pop("seconds") >= 0
    assert result == {
        "listed": 44,
        "resized": 41,
        "copied": 2,
        "kept": 0,
        "rejected": 1,
        "by_reason": {"truncated": 1},
    }
    assert (target / "A/images/right.png").read_bytes() == right.read_bytes()
    assert (target / "A.metadata.xlsx").read_bytes() == b"PK a workbook"
    with Image.open(target / "A/masks/0.png") as mask:
        assert set(np.unique(np.asarray(mask))) == {0, 255}

    before = {path: path.stat().st_ino for path in target.rglob("*.png")}
    write_file(source / "A/images/1.png", encode_image(grey().rotate(180), "PNG"))
    os.utime(source / "A/images/1.png", ns=(1, 1))
    again = resize(settings(source, target))
    assert (again.resized, again.kept, again.rejected) == (1, 41, 1)
    changed = [path.name for path, inode in before.items() if path.stat().st_ino != inode]
    assert changed == ["1.png"]


def test_another_size_keeps_nothing_of_the_first(tmp_path: Path) -> None:
    write_file(tmp_path / "in/x.png", encode_image(grey(), "PNG"))
    for size, action in ((32, "resized"), (48, "resized"), (SIDE, "copied"), (SIDE, "kept")):
        assert getattr(resize(settings(tmp_path / "in", tmp_path / "out", size)), action) == 1


@pytest.mark.parametrize("place", ["in", "in/out", "link"])
def test_the_output_must_not_lie_in_the_input(place: str, tmp_path: Path) -> None:
    write_file(tmp_path / "in/x.png", encode_image(grey(), "PNG"))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(OutputError, match="must not lie in"):
        resize(settings(tmp_path / "in", tmp_path / place))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["x.png"]


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    write_file(tmp_path / "in/x.png", encode_image(grey(), "PNG"))
    write_file(tmp_path / "file", b"")
    with pytest.raises(OutputError, match=r"`out` .*cannot be written"):
        resize(settings(tmp_path / "in", tmp_path / "file"))


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        resize(settings(tmp_path / "in", tmp_path / "out"))
