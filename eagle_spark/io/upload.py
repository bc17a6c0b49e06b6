"""`hadoop/put SOURCE TARGET`: upload a folder or zip archive to HDFS, several files in parallel.

Existing files of the same length are skipped, so the same command resumes an interrupted run. A
file gets its name when it is complete. Names that begin with `.` or `_` are skipped, because every
Hadoop reader ignores them.
"""

from __future__ import annotations

import os
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from eagle_spark.errors import EagleError, InputError, OutputError
from eagle_spark.io import absolute_uri, join, list_folder, resolve
from eagle_spark.io.zip_source import list_valid_files, open_archive
from eagle_spark.progress import Progress
from eagle_spark.testing.failpoints import failpoint

DEFAULT_JOBS = 16
_DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError)
_MAX_NAME_BYTES = 255  # per part of a path, on HDFS as on most disks


@dataclass(frozen=True)
class SourceFile:
    """One file to upload.

    Attributes:
        name: path below the source, `/` between its parts.
        length: bytes.
        open: opens the file for reading.
    """

    name: str
    length: int
    open: Callable[[], IO[bytes]]


def upload(source: str, target: str, jobs: int = DEFAULT_JOBS) -> dict[str, object]:
    """Upload all files of the local folder or zip archive `source` to the URI `target`.

    Returns:
        `listed`, `uploaded`, `skipped` (files, `listed == uploaded + skipped`), `bytes`
        (uploaded), `seconds`.

    Raises:
        InputError: before the first upload, when the source is missing or invalid.
        OutputError: when the target is a file.
        EagleError: when an upload fails or the uploaded length differs; other files stay.
    """
    started, target = time.monotonic(), absolute_uri(target)
    with _open_source(Path(source)) as files:
        _check_names(files, target)
        target_lengths = _list_lengths(target)
        missing = [file for file in files if target_lengths.get(file.name) != file.length]
        failpoint("before write")
        _upload_files(missing, target, jobs)
        target_lengths = _list_lengths(target) if missing else target_lengths
    for file in files:
        if target_lengths.get(file.name) != file.length:
            raise EagleError(
                f"{join(target, file.name)}: wanted {file.length} bytes; got"
                f" {target_lengths.get(file.name, 'none')}; run the command again"
            )
    failpoint("audited")
    return {
        "listed": len(files),
        "uploaded": len(missing),
        "skipped": len(files) - len(missing),
        "bytes": sum(file.length for file in missing),
        "seconds": round(time.monotonic() - started, 3),
    }


@contextmanager
def _open_source(source: Path) -> Iterator[list[SourceFile]]:
    if source.is_dir():
        yield list(_list_source_files(source))
    elif source.is_file():
        with open_archive(source) as archive:
            yield [
                SourceFile(entry.filename, entry.file_size, partial(archive.open, entry))
                for entry in list_valid_files(archive)
            ]
    else:
        raise InputError(f"no such folder or zip archive: {source}")


def _list_source_files(source: Path) -> Iterator[SourceFile]:
    root = absolute_uri(str(source))
    for entry in list_folder(root):
        storage, path = resolve(entry.uri)
        try:
            is_regular = stat.S_ISREG(os.stat(path).st_mode)
        except OSError:
            is_regular = False
        if not is_regular:
            raise InputError(f"not a regular file: {path!r}; nothing was uploaded")
        name = _remove_root(root, entry.uri)
        yield SourceFile(name, entry.length, partial(storage.open, path))


def _remove_root(root: str, uri: str) -> str:
    return uri.removeprefix(root.rstrip("/") + "/")


def _check_names(files: list[SourceFile], target: str) -> None:
    for file in files:
        try:
            length = max(len(part.encode()) for part in file.name.split("/"))
        except UnicodeEncodeError:
            raise InputError(f"name is not UTF-8: {file.name!r}; nothing was uploaded") from None
        if length > _MAX_NAME_BYTES:
            raise InputError(f"name is too long: {file.name!r}; nothing was uploaded")
        if ":" in file.name and target.startswith("hdfs:"):
            raise InputError(f"HDFS allows no colon: {file.name!r}; nothing was uploaded")


def _list_lengths(target: str) -> dict[str, int]:
    """Return the length of every file below `target`; empty when the folder does not exist."""
    storage, path = resolve(target)
    if not storage.exists(path):
        return {}
    try:
        entries = list(list_folder(target))
    except InputError as error:
        raise OutputError(f"the target must be a folder: {error}") from error
    return {_remove_root(target, entry.uri): entry.length for entry in entries}


def _upload_files(files: Sequence[SourceFile], target: str, jobs: int) -> None:
    """Upload files, `jobs` in parallel."""
    with ThreadPoolExecutor(jobs) as pool, Progress("upload", len(files), "files") as progress:
        futures: dict[Future[None], SourceFile] = {
            pool.submit(_upload_file, file, target): file for file in files
        }
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                progress.update(done)
                failpoint("publishing")
        except BaseException as error:
            pool.shutdown(cancel_futures=True)
            if isinstance(error, EagleError) or not isinstance(error, Exception):
                raise
            cause = str(error) or type(error).__name__
            raise EagleError(
                f"{futures[future].name!r}: {cause}; run the command again to continue"
            ) from error


def _upload_file(file: SourceFile, target: str) -> None:
    storage, path = resolve(join(target, file.name))
    try:
        storage.put(path, lambda: cast("IO[bytes]", _FailpointStream(file.open())))
    except _DAMAGE_ERRORS as error:
        raise InputError(f"entry {file.name!r} is damaged: {error}") from error


class _FailpointStream:
    """A source stream with a failpoint at its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        if not block:
            failpoint("written")
        return block

    def __enter__(self) -> _FailpointStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
