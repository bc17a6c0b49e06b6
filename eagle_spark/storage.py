"""Files by URI: the local disk and HDFS behind one small set of verbs.

A URI is a plain path, `file:///…` or `hdfs://…`. HDFS is reached through `hdfs-native`, which needs
no JVM and reads `HADOOP_CONF_DIR`; its own client is used, not its fsspec wrapper, because the
wrapper parses paths as URLs and loses everything behind a `#` or `?` in a file name.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from eagle_spark.errors import ImageRejected, InputError, Reason, SettingsError


@dataclass(frozen=True)
class FileEntry:
    """One listed file.

    Attributes:
        uri: absolute URI, `file:///…` or `hdfs://host:port/…`, not percent-encoded.
        length: bytes.
        modified: modification time, milliseconds since the epoch.
    """

    uri: str
    length: int
    modified: int

    @property
    def name(self) -> str:
        return self.uri.rsplit("/", 1)[-1]


class Storage(Protocol):
    """What the jobs need of a file system. Paths are plain absolute paths without a scheme."""

    prefix: str

    def list_files(self, path: str) -> Iterator[FileEntry]: ...
    def open(self, path: str) -> BinaryIO: ...
    def read(self, path: str, limit: int) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def exists(self, path: str) -> bool: ...
    def rename(self, source: str, target: str) -> None: ...
    def delete(self, path: str) -> None: ...


def printable(name: str) -> str:
    """Return `name` in a form that tables can store; a name that is no UTF-8 holds surrogates."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def is_hidden(name: str) -> bool:
    """Whether a name is skipped in listings, as Hadoop does: it begins with `.` or `_`."""
    return name.startswith((".", "_"))


class LocalStorage:
    """The disk of the machine that asks."""

    prefix = "file://"

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`, folder by folder; links to folders are not followed."""
        folders = [path]
        while folders:
            folder = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield self._entry(entry)

    def _entry(self, entry: os.DirEntry[str]) -> FileEntry:
        try:
            found = entry.stat()
        except OSError:  # a broken or looping link: listed, so that it is counted and rejected
            found = entry.stat(follow_symlinks=False)
        return FileEntry(self.prefix + entry.path, found.st_size, int(found.st_mtime * 1000))

    def open(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def read(self, path: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a regular file; raise OSError for anything else."""
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not os.path.isfile(descriptor):
                raise OSError(f"not a regular file: {path}")
            return stream.read(limit)

    def write(self, path: str, data: bytes) -> None:
        """Write whole or not at all; parents are made."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        partial.write_bytes(data)
        os.replace(partial, target)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def delete(self, path: str) -> None:
        """Remove a file or a whole folder; nothing there is fine."""
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


@contextmanager
def _hdfs_errors() -> Iterator[None]:
    """Turn what `hdfs-native` raises besides OSError into one line of it."""
    try:
        yield
    except RuntimeError as error:  # the NameNode's Java stack stands behind the first line
        raise OSError(str(error).splitlines()[0]) from error


class HdfsStorage:
    """HDFS by `hdfs-native`."""

    def __init__(self, authority: str) -> None:
        from hdfs_native import Client

        self.prefix = f"hdfs://{authority}"
        try:
            self._client = Client(self.prefix)
        except (RuntimeError, ValueError, OSError) as error:
            line = str(error).splitlines()[0]
            raise InputError(f"{self.prefix}: HDFS cannot be reached: {line}") from error

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`."""
        root = path.rstrip("/") + "/"
        with _hdfs_errors():
            if not self._client.get_file_info(path).isdir:
                raise NotADirectoryError(path)
            for status in self._client.list_status(path, True):
                inside = status.path.removeprefix(root).split("/")
                if not status.isdir and not any(is_hidden(part) for part in inside):
                    yield FileEntry(
                        self.prefix + status.path, status.length, status.modification_time
                    )

    def open(self, path: str) -> BinaryIO:
        with _hdfs_errors():
            return cast(BinaryIO, self._client.read(path))

    def read(self, path: str, limit: int) -> bytes:
        with _hdfs_errors(), self._client.read(path) as stream:
            return bytes(stream.read(limit))

    def write(self, path: str, data: bytes) -> None:
        """Write whole or not at all; parents are made."""
        from hdfs_native import WriteOptions

        folder, name = path.rsplit("/", 1)
        partial = f"{folder}/.{name}.{os.uname().nodename}.{os.getpid()}.partial"
        with _hdfs_errors():
            with self._client.create(partial, WriteOptions(overwrite=True)) as stream:
                stream.write(data)
            self._client.rename(partial, path, True)

    def exists(self, path: str) -> bool:
        with _hdfs_errors():
            try:
                self._client.get_file_info(path)
            except FileNotFoundError:
                return False
            return True

    def rename(self, source: str, target: str) -> None:
        with _hdfs_errors():
            self._client.rename(source, target, False)

    def delete(self, path: str) -> None:
        """Remove a file or a whole folder; nothing there is fine."""
        if self.exists(path):
            with _hdfs_errors():
                self._client.delete(path, True)


def split_uri(uri: str) -> tuple[str, str, str]:
    """Return (scheme, authority, absolute path) of a URI or plain path.

    Raises:
        SettingsError: for a scheme that is neither `file` nor `hdfs`.
    """
    if "://" not in uri:
        plain = uri.removeprefix("file:") if uri.startswith("file:/") else uri
        return "file", "", _plain(os.path.abspath(plain))
    scheme, rest = uri.split("://", 1)
    authority, _, path = rest.partition("/")
    if scheme not in ("file", "hdfs"):
        raise SettingsError(
            f"a URI begins with file:// or hdfs://, or is a plain path; got {scheme}://…"
        )
    if scheme == "file" and authority:
        raise SettingsError(f"file:// URIs have three slashes (file:///…); got {uri}")
    return scheme, authority, _plain(path)


def _plain(path: str) -> str:
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def absolute_uri(uri: str) -> str:
    """Return the one spelling of `uri` that tables and logs use."""
    scheme, authority, path = split_uri(uri)
    return f"{scheme}://{authority}{path}"


@lru_cache(maxsize=16)
def _storage(scheme: str, authority: str) -> Storage:
    return LocalStorage() if scheme == "file" else HdfsStorage(authority)


def locate(uri: str) -> tuple[Storage, str]:
    """Return the file system of `uri` and the plain path in it."""
    scheme, authority, path = split_uri(uri)
    return _storage(scheme, authority), path


def list_folder(uri: str) -> Iterator[FileEntry]:
    """Yield every file below the folder `uri`, hidden ones left out.

    Raises:
        InputError: when there is no such folder, or it may not be read.
    """
    storage, path = locate(uri)
    try:
        yield from storage.list_files(path)
    except FileNotFoundError as error:
        raise InputError(f"no such folder: {uri}") from error
    except NotADirectoryError as error:
        raise InputError(f"not a folder: {uri}") from error
    except PermissionError as error:
        raise InputError(f"folder may not be read: {uri}: {error}") from error
    except OSError as error:
        raise InputError(f"folder cannot be listed: {uri}: {error}") from error


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def read_image(uri: str, limit: int, reason: Reason = Reason.UNREADABLE) -> bytes:
    """Return the bytes of one file, at most `limit` + 1 of them, so that excess shows.

    Raises:
        ImageRejected: with `reason`, when the file cannot be read.
    """
    storage, path = locate(uri)
    try:
        return storage.read(path, limit + 1)
    except OSError as error:
        raise ImageRejected(reason, f"cannot be read: {error}") from error
