"""`eagle-resize`: one size, and everything else as it was."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eagle_spark.datasets.resize import resize, resize_file
from eagle_spark.errors import InputError, OutputError
from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.imaging.sniff import sniff
from eagle_spark.settings import ResizeSettings
from tests.helpers.planted import EXPECTED, PLANTED, SIDE, encoded, grey, put

SIZE = 32


def settings(source: Path, target: Path, size: int = SIZE) -> ResizeSettings:
    return ResizeSettings(input=str(source), out=str(target), size=size)


@pytest.mark.parametrize("name", PLANTED)
def test_every_kind_of_file(name: str, tmp_path: Path) -> None:
    put(tmp_path / "in" / name, PLANTED[name]())
    done = resize_file(tmp_path / "in", tmp_path / "out", SIZE, name)
    written = tmp_path / "out" / name
    if EXPECTED[name]:
        assert (done.action, done.rejected and done.rejected.reason) == ("rejected", EXPECTED[name])
        assert not written.exists()
        return
    assert done.action == "resized"
    assert sniff(written.read_bytes()) == sniff(PLANTED[name]())
    wanted = read_radiograph(PLANTED[name](), SIZE).pixels.astype(int)
    with Image.open(written) as image:
        assert (image.size, image.mode) == ((SIZE, SIZE), "L")
        assert np.abs(np.asarray(image) - wanted).mean() < (6 if name.endswith("jpg") else 1e-9)


def test_a_folder_in_parallel_and_again(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for number in range(40):
        put(source / f"A/images/{number}.png", encoded(grey().rotate(number), "PNG"))
    right = put(source / "A/images/right.png", encoded(grey().resize((SIZE, SIZE)), "PNG"))
    put(source / "A/images/broken.png", PLANTED["truncated.png"]())
    put(source / "A/masks/0.png", encoded(grey().point(lambda level: 255 * (level > 99)), "PNG"))
    put(source / "A.metadata.xlsx", b"PK a workbook")

    found = resize(settings(source, target))
    assert found.pop("seconds") >= 0
    assert found == {
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
    put(source / "A/images/1.png", encoded(grey().rotate(180), "PNG"))
    os.utime(source / "A/images/1.png", ns=(1, 1))
    again = resize(settings(source, target))
    assert (again["resized"], again["kept"], again["rejected"]) == (1, 41, 1)
    changed = [path.name for path, inode in before.items() if path.stat().st_ino != inode]
    assert changed == ["1.png"]


def test_another_size_keeps_nothing_of_the_first(tmp_path: Path) -> None:
    put(tmp_path / "in/x.png", encoded(grey(), "PNG"))
    for size, action in ((32, "resized"), (48, "resized"), (SIDE, "copied"), (SIDE, "kept")):
        assert resize(settings(tmp_path / "in", tmp_path / "out", size))[action] == 1


@pytest.mark.parametrize("place", ["in", "in/out", "link"])
def test_the_output_lies_elsewhere(place: str, tmp_path: Path) -> None:
    put(tmp_path / "in/x.png", encoded(grey(), "PNG"))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(OutputError, match="must not lie in"):
        resize(settings(tmp_path / "in", tmp_path / place))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["x.png"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    put(tmp_path / "in/x.png", encoded(grey(), "PNG"))
    put(tmp_path / "file", b"")
    with pytest.raises(OutputError, match="--out"):
        resize(settings(tmp_path / "in", tmp_path / "file"))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        resize(settings(tmp_path / "in", tmp_path / "out"))
