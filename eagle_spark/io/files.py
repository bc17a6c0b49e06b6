"""The interface of a file system, and rules for file names."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol
from uuid import uuid4

_WINDOWS_SUFFIXES = ("thumbs.db", "desktop.ini", ":zone.identifier")
CHUNK_BYTES = 1 << 20  # buffer of a copy


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
    """A file system. Paths are plain absolute paths without a scheme.

    Every method raises OSError with a text of one line: FileNotFoundError, FileExistsError,
    PermissionError, … where one applies.
    """

    prefix: str

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`, except hidden names (see `is_hidden`)."""
        ...

    def stat(self, path: str) -> FileEntry:
        """Return the entry of the file at `path`; raise IsADirectoryError for a folder."""
        ...

    def open(self, path: str) -> BinaryIO: ...

    def read(self, path: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a regular file."""
        ...

    def put(self, path: str, open_source: Callable[[], IO[bytes]]) -> None:
        """Write a stream to a file atomically; replace an existing file and create parents.

        An incomplete file has a hidden name.

        Args:
            open_source: opens the stream; called once per attempt.
        """
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write `data` as `put` does."""
        self.put(path, lambda: io.BytesIO(data))

    def create(self, path: str, data: bytes) -> None:
        """Write a new file under its final name; create parents.

        A killed writer leaves a part of the file: only for names that nothing refers to yet. `put`
        would leave a hidden file, which Iceberg's removal of orphan files skips.

        An existing file is an error on a local disk. On HDFS it is replaced: a repeated attempt
        replaces its own part.
        """
        ...

    def exists(self, path: str) -> bool: ...

    def rename(self, source: str, target: str) -> None:
        """Rename a file or folder; raise FileExistsError when `target` exists."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file or a folder with its content; ignore a missing path."""
        ...


def is_hidden(name: str) -> bool:
    """Return whether listings skip a name.

    Hadoop hides names that begin with `.` or `_`; the other names are metadata of Windows.
    """
    return name.startswith((".", "_")) or name.lower().endswith(_WINDOWS_SUFFIXES)


def temp_path(path: str) -> str:
    """Return a new hidden path in the folder of `path`; its length does not depend on the name."""
    return f"{path.rsplit('/', 1)[0]}/.{uuid4().hex}.partial"
