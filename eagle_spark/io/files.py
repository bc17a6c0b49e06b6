"""What the jobs need of a file system."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol
from uuid import uuid4

_OF_WINDOWS = ("thumbs.db", "desktop.ini", ":zone.identifier")
CHUNK = 1 << 20  # bytes held of a file that is copied


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

    What goes wrong is an OSError of one line: FileNotFoundError, FileExistsError, PermissionError,
    … where it has a kind.
    """

    prefix: str

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`; hidden names are left out, see `is_hidden`."""
        ...

    def find(self, path: str) -> FileEntry:
        """Return the file at `path`; raise IsADirectoryError for a folder."""
        ...

    def open(self, path: str) -> BinaryIO: ...

    def read(self, path: str, limit: int) -> bytes:
        """Return at most `limit` bytes of a regular file."""
        ...

    def put(self, path: str, source: Callable[[], IO[bytes]]) -> None:
        """Write what `source` opens, whole or not at all; replace a file; parents are made.

        Until it is whole the file has a hidden name. `source` is opened anew for each attempt.
        """
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write `data` as `put` does."""
        self.put(path, lambda: io.BytesIO(data))

    def exists(self, path: str) -> bool: ...

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name; raise FileExistsError where that name is taken."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file or a whole folder; nothing there is fine."""
        ...


def is_hidden(name: str) -> bool:
    """Whether a name is skipped in listings.

    It begins with `.` or `_`, as Hadoop has it, or Windows keeps notes of its own there.
    """
    return name.startswith((".", "_")) or name.lower().endswith(_OF_WINDOWS)


def partial_of(path: str) -> str:
    """Return a fresh hidden path in the folder of `path`, short whatever the length of its name."""
    return f"{path.rsplit('/', 1)[0]}/.{uuid4().hex}.partial"
