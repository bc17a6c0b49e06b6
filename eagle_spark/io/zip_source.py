"""What a zip archive may hold before anything of it is unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from eagle_spark.errors import InputError
from eagle_spark.io import is_hidden
from eagle_spark.io.archives import entry_fault, member_name

# A whole archive of images, workbooks and text stays far below either; bombs do not.
MAX_RATIO = 200  # bytes unpacked per byte of the archive
MAX_TOTAL = 1 << 40  # bytes unpacked


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises:
        InputError: when it cannot be read as one.
    """
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be read as a zip archive: {error}") from error


def checked_files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files of an archive, hidden ones left out, after all entries were checked.

    Their `filename` becomes the path that `member_name` gives.

    Raises:
        InputError: for an entry that leaves the folder it is unpacked into, is no plain file or
            folder, is encrypted, comes twice or stands where a folder has to be; and for an
            archive that unpacks to more than `MAX_TOTAL`, or `MAX_RATIO` times its own size.
    """
    name = archive.filename or ""
    for entry in archive.infolist():
        if fault := entry_fault(entry):
            raise InputError(f"{name}: entry {entry.orig_filename!r} {fault}; nothing was uploaded")
        entry.filename = member_name(entry)
    files = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_size(archive, files)
    seen: set[str] = set()
    folders = {folder for entry in archive.infolist() for folder in _folders(entry.filename)}
    for entry in files:
        if entry.filename in seen or entry.filename in folders:
            fault = "comes twice" if entry.filename in seen else "is a file and a folder"
            raise InputError(f"{name}: entry {entry.filename!r} {fault}; nothing was uploaded")
        seen.add(entry.filename)
    return [e for e in files if not any(is_hidden(part) for part in e.filename.split("/"))]


def _check_size(archive: zipfile.ZipFile, files: list[zipfile.ZipInfo]) -> None:
    total = sum(entry.file_size for entry in files)
    packed = Path(archive.filename or "").stat().st_size
    if total > min(MAX_TOTAL, MAX_RATIO * packed):
        largest = max(files, key=lambda entry: entry.file_size)
        raise InputError(
            f"{archive.filename}: unpacks from {packed:,} to {total:,} bytes, at most"
            f" {MAX_RATIO} times as much and {MAX_TOTAL:,} are taken; the largest entry is"
            f" {largest.filename!r}; nothing was uploaded"
        )


def _folders(name: str) -> Iterator[str]:
    """Yield every folder on the way to an entry."""
    parts = name.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])
