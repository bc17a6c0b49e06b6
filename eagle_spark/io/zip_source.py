"""Validate a zip archive before unpacking it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from eagle_spark.errors import InputError
from eagle_spark.io import is_hidden
from eagle_spark.io.archives import decode_member_name, describe_entry_fault

# An archive of images, workbooks and text stays far below both limits; zip bombs do not.
MAX_RATIO = 200  # unpacked bytes per byte of the archive
MAX_TOTAL = 1 << 40  # unpacked bytes


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises:
        InputError: when the file cannot be read as a zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be read as a zip archive: {error}") from error


def list_valid_files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Check all entries of an archive; return its files, except hidden ones.

    Each `filename` is replaced by the path of `decode_member_name`.

    Raises:
        InputError: for an entry outside the target folder, of another type than file and folder,
            encrypted, duplicated, or with the path of a folder; and for an archive that unpacks
            to more than `MAX_TOTAL` bytes, or `MAX_RATIO` times its own size.
    """
    name = archive.filename or ""
    for entry in archive.infolist():
        if fault := describe_entry_fault(entry):
            raise InputError(f"{name}: entry {entry.orig_filename!r} {fault}; nothing was uploaded")
        entry.filename = decode_member_name(entry)
    files = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_size(archive, files)
    paths: set[str] = set()
    folders = {folder for entry in archive.infolist() for folder in _list_parents(entry.filename)}
    for entry in files:
        if entry.filename in paths or entry.filename in folders:
            fault = "occurs twice" if entry.filename in paths else "is a file and a folder"
            raise InputError(f"{name}: entry {entry.filename!r} {fault}; nothing was uploaded")
        paths.add(entry.filename)
    return [e for e in files if not any(is_hidden(part) for part in e.filename.split("/"))]


def _check_size(archive: zipfile.ZipFile, files: list[zipfile.ZipInfo]) -> None:
    total = sum(entry.file_size for entry in files)
    packed = Path(archive.filename or "").stat().st_size
    if total > min(MAX_TOTAL, MAX_RATIO * packed):
        largest = max(files, key=lambda entry: entry.file_size)
        raise InputError(
            f"{archive.filename}: unpacks from {packed:,} to {total:,} bytes; wanted at most"
            f" {MAX_RATIO} times its size and {MAX_TOTAL:,} bytes; the largest entry is"
            f" {largest.filename!r}; nothing was uploaded"
        )


def _list_parents(name: str) -> Iterator[str]:
    """Yield every parent folder of an entry."""
    parts = name.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])
