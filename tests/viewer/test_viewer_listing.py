"""Expansion of files and folders into a list of image files."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagle_spark.errors import SettingsError
from eagle_spark.viewer.listing import list_image_files


def test_a_folder_is_sorted_naturally_without_other_files(tmp_path: Path) -> None:
    names = ("a/x-10.png", "a/x-9.PNG", "b/1.2.840.113", "IM0001", "c.dcm", "notes.txt", "d.xlsx")
    for name in (*names, ".hidden.png", "_tmp/x.png", "a/x-²3.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    files = [str(Path(file).relative_to(tmp_path)) for file in list_image_files([str(tmp_path)])]
    assert files == ["a/x-9.PNG", "a/x-10.png", "a/x-²3.png", "b/1.2.840.113", "c.dcm", "IM0001"]


def test_file_paths_are_returned_unchanged(tmp_path: Path) -> None:
    paths = [str(tmp_path / "notes.txt"), "nowhere.png"]
    assert list_image_files(paths) == paths


def test_an_unsupported_scheme_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="sftp"):
        list_image_files(["sftp://host/x"])
