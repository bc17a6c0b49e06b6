"""Expand the user's files and folders into a list of image files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from eagle_spark.io import list_folder, split_uri

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")

_DIGITS = re.compile(r"(\d+)")


def list_image_files(paths: Iterable[str]) -> list[str]:
    """Return the paths in order, each folder replaced by the image files below it.

    The files of a folder are sorted by path, numbers by value. Only files with one of `SUFFIXES`
    or with no suffix, as DICOM files often are, are listed; their content is not checked.

    Raises:
        InputError: when a folder cannot be listed.
        SettingsError: for a URI of an unsupported scheme.
    """
    files: list[str] = []
    for path in paths:
        files += _list_folder_images(path) if _is_folder(path) else [path]
    return files


def _is_folder(path: str) -> bool:
    scheme, _, local = split_uri(path)
    return scheme == "file" and Path(local).is_dir()


def _list_folder_images(folder: str) -> list[str]:
    files = (entry.uri.removeprefix("file://") for entry in list_folder(folder))
    return sorted((file for file in files if _has_image_suffix(file)), key=_natural_sort_key)


def _has_image_suffix(file: str) -> bool:
    suffix = Path(file).suffix.lower()
    # DICOM files named by a UID end in its last number, which is no suffix.
    return suffix in SUFFIXES or not suffix or suffix[1:].isdigit()


def _natural_sort_key(file: str) -> list[tuple[int, str]]:
    parts = _DIGITS.split(file.casefold())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
