"""`hadoop/put SOURCE TARGET`: a folder or a zip archive goes up to HDFS, several files at a time.

Files that are there with the same length are skipped, so that an interrupted run is resumed by the
same command. A file appears under its name when it is whole, never before. Names that begin with
`.` or `_` are left out, as every reader on Hadoop leaves them out.
"""

from __future__ import annotations

import json
import os
import stat
import sys
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
from eagle_spark.io import absolute_uri, join, list_folder, locate
from eagle_spark.io.zip_source import checked_files, open_archive
from eagle_spark.options import Parser, local_path
from eagle_spark.progress import Progress
from eagle_spark.testing.failpoints import reached

JOBS = 16
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
_NAME_LIMIT = 255  # bytes of one part of a path, on HDFS as on most disks


@dataclass(frozen=True)
class Item:
    """One file to upload.

    Attributes:
        name: path below the source, `/` between its parts.
        length: bytes.
        open: opens it for reading.
    """

    name: str
    length: int
    open: Callable[[], IO[bytes]]


def upload(source: str, target: str, jobs: int = JOBS) -> dict[str, object]:
    """Bring all files of the local folder or zip archive `source` below the URI `target`.

    Returns:
        `listed`, `uploaded`, `skipped` (files, `listed == uploaded + skipped`), `bytes`
        (uploaded), `seconds`.

    Raises:
        InputError: before anything is uploaded, when the source cannot be taken as it is.
        OutputError: when the target is a file.
        EagleError: when a file could not be uploaded or has another length there; the others stay.
    """
    started, target = time.monotonic(), absolute_uri(target)
    with _items(Path(source)) as items:
        _check_names(items, target)
        there = _lengths(target)
        wanted = [item for item in items if there.get(item.name) != item.length]
        reached("before write")
        _put_all(wanted, target, jobs)
        there = _lengths(target) if wanted else there
    for item in items:
        if there.get(item.name) != item.length:
            raise EagleError(
                f"{join(target, item.name)}: wanted {item.length} bytes, there are"
                f" {there.get(item.name, 'none')}; run it again"
            )
    reached("audited")
    return {
        "listed": len(items),
        "uploaded": len(wanted),
        "skipped": len(items) - len(wanted),
        "bytes": sum(item.length for item in wanted),
        "seconds": round(time.monotonic() - started, 3),
    }


@contextmanager
def _items(source: Path) -> Iterator[list[Item]]:
    if source.is_dir():
        yield list(_folder_items(source))
    elif source.is_file():
        with open_archive(source) as archive:
            files = checked_files(archive)
            yield [Item(e.filename, e.file_size, partial(archive.open, e)) for e in files]
    else:
        raise InputError(f"no such folder or zip archive: {source}")


def _folder_items(source: Path) -> Iterator[Item]:
    root = absolute_uri(str(source))
    for entry in list_folder(root):
        storage, path = locate(entry.uri)
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except OSError:
            regular = False
        if not regular:
            raise InputError(f"not a regular file: {path!r}; nothing was uploaded")
        yield Item(_below(root, entry.uri), entry.length, partial(storage.open, path))


def _below(root: str, uri: str) -> str:
    return uri.removeprefix(root.rstrip("/") + "/")


def _check_names(items: list[Item], target: str) -> None:
    for item in items:
        try:
            longest = max(len(part.encode()) for part in item.name.split("/"))
        except UnicodeEncodeError:
            raise InputError(f"name is not UTF-8: {item.name!r}; nothing was uploaded") from None
        if longest > _NAME_LIMIT:
            raise InputError(f"name is too long: {item.name!r}; nothing was uploaded")
        if ":" in item.name and target.startswith("hdfs:"):
            raise InputError(f"HDFS takes no colon: {item.name!r}; nothing was uploaded")


def _lengths(target: str) -> dict[str, int]:
    """Return the length of every file below `target`; empty when there is no such folder."""
    storage, path = locate(target)
    if not storage.exists(path):
        return {}
    try:
        entries = list(list_folder(target))
    except InputError as error:
        raise OutputError(f"the target has to be a folder: {error}") from error
    return {_below(target, entry.uri): entry.length for entry in entries}


def _put_all(items: Sequence[Item], target: str, jobs: int) -> None:
    """Upload each item, several at a time."""
    with ThreadPoolExecutor(jobs) as pool, Progress("upload", len(items), "files") as progress:
        futures: dict[Future[None], Item] = {
            pool.submit(_put, item, target): item for item in items
        }
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                progress.update(done)
                reached("publishing")
        except BaseException as error:
            pool.shutdown(cancel_futures=True)
            if isinstance(error, EagleError) or not isinstance(error, Exception):
                raise
            text = str(error) or type(error).__name__
            raise EagleError(f"{futures[future].name!r}: {text}; run it again to go on") from error


def _put(item: Item, target: str) -> None:
    storage, path = locate(join(target, item.name))
    try:
        storage.put(path, lambda: cast("IO[bytes]", _Source(item.open())))
    except _DAMAGED as error:
        raise InputError(f"entry {item.name!r} is damaged: {error}") from error


class _Source:
    """What a file is uploaded from; where all of it was read is a step."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        if not block:
            reached("written")
        return block

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Upload as the command line says; the last line on standard output is one JSON object."""
    parser = Parser(
        prog="hadoop/put",
        description="Bring a folder or zip archive to HDFS. Files that are there with the same"
        " length are skipped: run it again to go on after an interruption.",
    )
    parser.add_argument(
        "source", metavar="SOURCE", type=local_path, help="local folder or zip archive"
    )
    parser.add_argument("target", metavar="TARGET", help="folder to fill: hdfs://… or a path")
    parser.add_argument("--jobs", type=int, default=JOBS, help="files at a time (%(default)s)")
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs: wanted at least 1, got {options.jobs}")
    result: dict[str, object]
    try:
        result, code = upload(str(options.source), options.target, options.jobs), 0
    except EagleError as error:
        line = " ".join(str(error).split())
        print(f"error: {line}", file=sys.stderr)
        result, code = {"error": line, "exit_code": error.exit_code}, error.exit_code
    print(json.dumps(result))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
