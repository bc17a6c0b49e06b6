"""Images inside of archives, listed and read where they are: `night.zip!/a/b.png`.

A zip has a directory, so any member can be read alone. A tar has none: its members are counted, and
read in the order in which they stand.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import BinaryIO, Protocol, cast

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.storage import FileEntry, is_hidden, locate, printable

INSIDE = "!/"
MOST_OPEN = 4
BUFFER_BYTES = 1 << 18
BROKEN = -1  # position of the archive itself where it cannot be read to its end
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz")

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_ENCRYPTED = 0x1 | 0x40
# What the bytes of an archive may lead to; any other OSError is the storage's.
_BAD = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, KeyError, OverflowError),
    struct.error,
)
MOST_BYTES = 2**63 - 1


@dataclass(frozen=True)
class Member:
    """A file inside of an archive.

    Attributes:
        path: URI of the archive, `!/` and the name in it; `#2` after a name that comes a second
            time. Of an archive that is broken its own URI.
        length: bytes, unpacked.
        position: what `Archives.read` finds it by.
    """

    path: str
    length: int
    position: int


def is_archive(name: str) -> bool:
    """Whether a file of this name is looked into."""
    return name.lower().endswith((*_ZIP, *_TAR))


def _is_zip(uri: str) -> bool:
    return uri.lower().endswith(_ZIP)


def list_members(archive: FileEntry) -> Iterator[Member]:
    """Yield the files of an archive, hidden ones left out.

    Where it cannot be read to its end the last one is the archive itself, `BROKEN`. Nothing of it
    is kept; a compressed tar has to be unpacked to be listed.
    """
    seen: set[str] = set()
    try:
        with _opened(archive.uri) as stream:
            for name, length, position in _entries(archive.uri)(stream):
                if any(is_hidden(part) for part in name.split("/") if part not in (".", "..")):
                    continue
                if not 0 <= length <= MOST_BYTES:
                    raise tarfile.ReadError(f"a member of {length} bytes")
                path = printable(f"{archive.uri}{INSIDE}{name}")
                names = chain([path], (f"{path}#{number}" for number in count(2)))
                free = next(name for name in names if name not in seen)
                seen.add(free)
                yield Member(free, length, position)
    except (*_BAD, OSError):
        yield Member(printable(archive.uri), archive.length, BROKEN)


class Archives:
    """Reads members; keeps some archives open until the block ends."""

    def __init__(self) -> None:
        self._open: dict[str, _Reader] = {}

    def __enter__(self) -> Archives:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def read(self, archive: str, position: int, length: int, limit: int) -> bytes:
        """Return the bytes of a member, at most `limit` + 1 of them, so that excess shows.

        Args:
            length: as it was listed: an archive that was replaced since is noticed by it.

        Raises:
            ImageRejected: when there is something wrong with the member or the archive; as
                `UNREADABLE` when the storage cannot be read, which may pass.
        """
        if position == BROKEN:
            raise ImageRejected(Reason.BAD_ARCHIVE, "cannot be read to its end as an archive")
        try:
            return self._reader(archive).read(position, length, limit + 1)
        except _BAD as error:
            self._drop(archive)
            raise ImageRejected(Reason.BAD_MEMBER, f"cannot be unpacked: {error}") from error
        except OSError as error:
            self._drop(archive)
            raise ImageRejected(Reason.UNREADABLE, f"cannot be read: {error}") from error

    def _drop(self, archive: str) -> None:
        if reader := self._open.pop(archive, None):
            reader.close()

    def _reader(self, uri: str) -> _Reader:
        if uri not in self._open:
            while len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            reader: type[_ZipReader | _TarReader] = _ZipReader if _is_zip(uri) else _TarReader
            self._open[uri] = reader(uri)
        return self._open[uri]


def entry_fault(entry: zipfile.ZipInfo) -> str:
    """Return what is wrong with an entry of a zip archive; empty when nothing is."""
    name = entry.orig_filename  # `filename` ends at the first NUL
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute path"
    if "\\" in name or "\0" in name:
        return "has a backslash or NUL in its name"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "has an empty, '.' or '..' part in its path"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return f"is compressed by unknown method {entry.compress_type}"
    return ""


class _Reader(Protocol):
    def read(self, position: int, length: int, limit: int) -> bytes: ...

    def close(self) -> None: ...


class _ZipReader:
    def __init__(self, uri: str) -> None:
        self._stream = _opened(uri)
        try:
            self._archive = zipfile.ZipFile(self._stream)
        except BaseException:
            self._stream.close()
            raise
        self._entries = {entry.header_offset: entry for entry in self._archive.infolist()}

    def read(self, position: int, length: int, limit: int) -> bytes:
        entry = self._entries[position]
        _check_length(entry.file_size, length)
        if fault := entry_fault(entry):
            raise ImageRejected(Reason.BAD_MEMBER, fault)
        with self._archive.open(entry) as stream:
            return stream.read(limit)

    def close(self) -> None:
        self._archive.close()
        self._stream.close()


class _TarReader:
    """Goes through the archive once, as long as positions ascend."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._begin()

    def _begin(self) -> None:
        self._stream = _opened(self._uri)
        try:
            self._archive = tarfile.open(fileobj=self._stream)  # noqa: SIM115 - stays open
        except BaseException:
            self._stream.close()
            raise
        self._next = 0

    def read(self, position: int, length: int, limit: int) -> bytes:
        if position < self._next:
            self.close()
            self._begin()
        while True:
            entry = self._archive.next()
            if entry is None:
                raise EOFError(f"{self._next} members, wanted number {position + 1}")
            self._next += 1
            self._archive.members = []  # type: ignore[attr-defined]  # or it keeps them all
            if self._next > position:
                break
        _check_length(entry.size, length)
        if fault := _tar_fault(entry):
            raise ImageRejected(Reason.BAD_MEMBER, fault)
        stream = self._archive.extractfile(entry)
        assert stream
        with stream:
            return stream.read(limit)

    def close(self) -> None:
        self._archive.close()
        self._stream.close()


def _check_length(found: int, listed: int) -> None:
    if found != listed:
        raise ValueError(f"{found} bytes, listed were {listed}: the archive has changed")


def _opened(uri: str) -> BinaryIO:
    storage, path = locate(uri)
    stream = storage.open(path)
    # The readers of archives ask for a few hundred bytes at a time.
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), BUFFER_BYTES))


Entries = Callable[[BinaryIO], Iterator[tuple[str, int, int]]]


def _entries(uri: str) -> Entries:
    return _zip_entries if _is_zip(uri) else _tar_entries


def _zip_entries(stream: BinaryIO) -> Iterator[tuple[str, int, int]]:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.orig_filename, entry.file_size, entry.header_offset


def _tar_entries(stream: BinaryIO) -> Iterator[tuple[str, int, int]]:
    with tarfile.open(fileobj=stream) as archive:
        number = -1
        while entry := archive.next():
            number += 1
            archive.members = []  # type: ignore[attr-defined]
            if not entry.isdir():
                name = "/".join(part for part in entry.name.split("/") if part != ".")
                yield name, entry.size, number
        # tarfile takes a damaged header for the end.
        file = cast(BinaryIO, archive.fileobj)
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of archive")


def _tar_fault(entry: tarfile.TarInfo) -> str:
    """Return what is wrong with an entry of a tar archive; empty when nothing is."""
    if entry.name.startswith("/") or ".." in entry.name.split("/") or "\0" in entry.name:
        return "has a path that leaves the archive"
    return "" if entry.isfile() else "is a link or device"
