"""The score job: masks as files, and images inside of archives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.datasets.synthetic.sample import write_unlabelled
from eagle_spark.errors import (
    OutputError,
    SettingsError,
)
from tests.helpers.score_runs import is_balanced, list_valid_images, query

pytestmark = [pytest.mark.spark, pytest.mark.train]


@pytest.mark.slow("three runs of score")
def test_masks_are_written_in_the_tree_of_the_images(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    assert score(masks_out=masks)["masks_written"] == 12
    scored = [row for row in query(tmp_path / "warehouse") if row.status == "scored"]
    wanted = {
        masks / Path(row.path.removeprefix(f"{images.as_uri()}/") + ".mask.png"): row.mask
        for row in scored
    }
    files = [path for path in masks.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in files if path.name != ".model"} == wanted
    assert score(masks_out=masks)["masks_written"] == 0
    lost, changed = sorted(wanted)[:2]
    lost.unlink()
    source = images / changed.relative_to(masks).as_posix().removesuffix(".mask.png")
    shutil.copy(images / lost.relative_to(masks).as_posix().removesuffix(".mask.png"), source)
    assert score(masks_out=masks)["masks_written"] == 2
    assert changed.read_bytes() == lost.read_bytes() == wanted[lost]


@pytest.mark.extended("three runs of score; test_mask_files.py needs no model", seconds=10)
def test_masks_of_another_model_replace_those_of_the_first(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, other_model_folder: Path
) -> None:
    score(masks_out=tmp_path / "masks")
    assert score(masks_out=tmp_path / "masks", model=other_model_folder)["masks_written"] == 12
    back = score(masks_out=tmp_path / "masks")
    assert (back["scored"], back["masks_written"]) == (0, 12)
    masks = {path.read_bytes() for path in tmp_path.rglob("*.mask.png")}
    assert masks == {
        row.mask
        for row in query(tmp_path / "warehouse")
        if row.status == "scored" and row.model_id == back["model_id"]
    }


def test_masks_that_cannot_be_written_are_reported(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(SettingsError, match="`masks_out`: wanted a folder outside of `images`"):
        score(masks_out=images / "masks")
    (sound, *_) = list_valid_images(images)
    shutil.copy(sound, images / f"{'n' * 250}.png")
    result = score(masks_out=tmp_path / "masks")
    assert (result["masks_written"], result["masks_failed"]) == (12, 1)
    assert "1 of 13 masks could not be written" in caplog.text
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OutputError, match=r"`masks_out` .*taken: not a folder"):
        score(masks_out=tmp_path / "taken")


@pytest.mark.slow("six runs of score")
@pytest.mark.parametrize(
    "name",
    [
        "night.zip",
        pytest.param("night.tar.gz", marks=pytest.mark.extended("six more runs", seconds=25)),
    ],
)
def test_archives_are_scored_in_place(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)

    def pack() -> None:
        form = {"night.zip": "zip", "night.tar.gz": "gztar"}[name]
        shutil.make_archive(str(folder / "night"), form, images)

    score()
    loose = {row.image_id: row.label for row in query(tmp_path / "warehouse")}
    shutil.rmtree(tmp_path / "warehouse")
    pack()
    first = score(images=tmp_path / "in", masks_out=tmp_path / "masks")
    assert is_balanced(first)
    assert (first["scored"], first["rejected"], first["masks_written"]) == (12, 4, 12)
    for row in query(tmp_path / "warehouse"):
        inside = row.path.removeprefix(f"{folder.as_uri()}/{name}!/").removeprefix("./")
        assert (images / inside).is_file()
        assert row.label == loose[row.image_id]
        if row.status == "scored":
            masks = list(tmp_path.rglob(f"masks/deep/{name}!/**/*.mask.png"))
            assert row.mask in [path.read_bytes() for path in masks]
    assert score(images=tmp_path / "in")["scored"] == 0
    (changed, *_) = list_valid_images(images)
    write_unlabelled(tmp_path / "other", 1, 77)
    (other, *_) = list_valid_images(tmp_path / "other")
    shutil.copy(other, changed)
    pack()
    again = score(images=tmp_path / "in")
    assert is_balanced(again)
    assert (again["scored"], again["deduplicated"], again["rejected"]) == (12, 11, 4)
    alone = score(images=folder / name, masks_out=tmp_path / "alone")
    assert (alone["already_scored"], alone["scored"], alone["masks_written"]) == (12, 0, 12)
    assert score(images=folder / name, masks_out=tmp_path / "alone")["masks_written"] == 0
    assert (tmp_path / "alone" / f"{name}!").is_dir()
