"""Files and folders that somebody named, as a list of files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from eagle_spark.io import list_folder, split_uri

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")

_DIGITS = re.compile(r"(\d+)")


def image_files(given: Iterable[str]) -> list[str]:
    """Return the paths in order; in the place of a folder what looks like an image below it.

    Files of a folder come by path, numbers by their value; those of `SUFFIXES` or without any
    suffix, as DICOM often is, are taken. What a file is, is told when it is read.

    Raises:
        InputError: when a folder cannot be listed.
    """
    found: list[str] = []
    for path in given:
        found += _below(path) if _is_folder(path) else [path]
    return found


def _is_folder(path: str) -> bool:
    scheme, _, local = split_uri(path)
    return scheme == "file" and Path(local).is_dir()


def _below(folder: str) -> list[str]:
    files = (entry.uri.removeprefix("file://") for entry in list_folder(folder))
    return sorted((file for file in files if _looks_like_one(file)), key=_by_number)


def _looks_like_one(file: str) -> bool:
    suffix = Path(file).suffix.lower()
    # The last part of a UID, as DICOM files are named by, is no suffix.
    return suffix in SUFFIXES or not suffix or suffix[1:].isdigit()


def _by_number(file: str) -> list[tuple[int, str]]:
    parts = _DIGITS.split(file.casefold())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
