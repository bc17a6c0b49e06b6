"""What is opened when somebody names files and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagle_spark.errors import SettingsError
from eagle_spark.viewer.listing import image_files


def test_a_folder_comes_by_number_and_without_what_is_no_image(tmp_path: Path) -> None:
    names = ("a/x-10.png", "a/x-9.PNG", "b/1.2.840.113", "IM0001", "c.dcm", "notes.txt", "d.xlsx")
    for name in (*names, ".hidden.png", "_tmp/x.png", "a/x-²3.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = [str(Path(file).relative_to(tmp_path)) for file in image_files([str(tmp_path)])]
    assert found == ["a/x-9.PNG", "a/x-10.png", "a/x-²3.png", "b/1.2.840.113", "c.dcm", "IM0001"]


def test_files_are_taken_as_they_are_named(tmp_path: Path) -> None:
    given = [str(tmp_path / "notes.txt"), "nowhere.png"]
    assert image_files(given) == given


def test_a_folder_that_may_not_be_listed_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="sftp"):
        image_files(["sftp://host/x"])
