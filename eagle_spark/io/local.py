"""The disk of the machine that asks."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO

from eagle_spark.io.files import CHUNK, FileEntry, Storage, is_hidden, partial_of


class LocalStorage(Storage):
    """The disk of the machine that asks."""

    prefix = "file://"

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`, folder by folder; links to folders are not followed.

        What is gone by the time it is looked at is left out.
        """
        folders = [path]
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(folder)
            except (FileNotFoundError, NotADirectoryError):
                if folder == path:
                    raise
                continue
            with entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif found := self._entry(entry):
                        yield found

    def _entry(self, entry: os.DirEntry[str]) -> FileEntry | None:
        try:
            found = entry.stat()
        except OSError:  # a broken or looping link: listed, so that it is counted and rejected
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                return None
        return FileEntry(self.prefix + entry.path, found.st_size, int(found.st_mtime * 1000))

    def find(self, path: str) -> FileEntry:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        return FileEntry(self.prefix + path, found.st_size, int(found.st_mtime * 1000))

    def open(self, path: str) -> BinaryIO:
        """Open a regular file; raise OSError for anything else."""
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not os.path.isfile(descriptor):
            folder = os.path.isdir(descriptor)
            os.close(descriptor)
            if folder:
                raise IsADirectoryError(errno.EISDIR, "is a folder", path)
            raise OSError(f"not a regular file: {path}")
        return os.fdopen(descriptor, "rb")

    def read(self, path: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a regular file."""
        with self.open(path) as stream:
            return stream.read(limit)

    def put(self, path: str, source: Callable[[], IO[bytes]]) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = partial_of(path)
        try:
            with source() as stream, open(partial, "xb") as sink:
                shutil.copyfileobj(stream, sink, CHUNK)
            os.replace(partial, path)
        except BaseException:
            self.delete(partial)
            raise

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def rename(self, source: str, target: str) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "something is there already", target)
        os.rename(source, target)

    def delete(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
