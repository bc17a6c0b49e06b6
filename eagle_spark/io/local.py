"""Local file system."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO

from eagle_spark.io.files import CHUNK_BYTES, FileEntry, Storage, is_hidden, temp_path


class LocalStorage(Storage):
    """Local file system."""

    prefix = "file://"

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`, folder by folder, without following links to folders.

        Files and folders that disappear during the listing are skipped.
        """
        folders = [path]
        while folders:
            folder = folders.pop()
            try:
                children = os.scandir(folder)
            except (FileNotFoundError, NotADirectoryError):
                if folder == path:
                    raise
                continue
            with children:
                for child in children:
                    if is_hidden(child.name):
                        continue
                    if child.is_dir(follow_symlinks=False):
                        folders.append(child.path)
                    elif entry := self._create_entry(child):
                        yield entry

    def _create_entry(self, child: os.DirEntry[str]) -> FileEntry | None:
        try:
            status = child.stat()
        except OSError:  # a broken or looping link: listed, so that it is counted and rejected
            try:
                status = child.stat(follow_symlinks=False)
            except FileNotFoundError:
                return None
        return FileEntry(self.prefix + child.path, status.st_size, int(status.st_mtime * 1000))

    def stat(self, path: str) -> FileEntry:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        return FileEntry(self.prefix + path, status.st_size, int(status.st_mtime * 1000))

    def open(self, path: str) -> BinaryIO:
        """Open a regular file; raise OSError for anything else."""
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not os.path.isfile(descriptor):
            is_folder = os.path.isdir(descriptor)
            os.close(descriptor)
            if is_folder:
                raise IsADirectoryError(errno.EISDIR, "is a folder", path)
            raise OSError(f"not a regular file: {path}")
        return os.fdopen(descriptor, "rb")

    def read(self, path: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a regular file."""
        with self.open(path) as stream:
            # Python allocates a buffer of the requested size.
            expected = min(limit, os.fstat(stream.fileno()).st_size + 1)
            data = stream.read(expected)
            return data if len(data) < expected else data + stream.read(limit - expected)

    def put(self, path: str, open_source: Callable[[], IO[bytes]]) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temp = temp_path(path)
        try:
            with open_source() as stream, open(temp, "xb") as sink:
                shutil.copyfileobj(stream, sink, CHUNK_BYTES)
            os.replace(temp, path)
        except BaseException:
            self.delete(temp)
            raise

    def create(self, path: str, data: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path, "xb") as sink:
                sink.write(data)
        except FileExistsError:
            raise
        except BaseException:
            self.delete(path)
            raise

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def rename(self, source: str, target: str) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "the target exists", target)
        os.rename(source, target)

    def delete(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
