"""Images inside of archives, listed and read where they are: `night.zip!/a/b.png`.

A zip has a directory, so any member can be read alone. A tar has none: its members are counted, and
read in the order in which they stand. What headers and directories claim or hold is bounded before
it is read: a small archive can inflate to any size.
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Protocol, cast

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.io import FileEntry, is_hidden, locate, printable

INSIDE = "!/"
MOST_OPEN = 4
BUFFER_BYTES = 1 << 18
_ZEROS = bytes(tarfile.BLOCKSIZE)
BROKEN = -1  # position of the archive itself where it cannot be read to its end
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz")

# zipfile unpacks the others without an end: 4 kB of bzip2 into 4 GB.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED, _UTF8 = 0x1 | 0x40, 0x800  # bits of an entry's flags
_UNIX = (3, 19)  # systems on which an entry was made: Unix, macOS
# Names in GBK: pairs of bytes, one of them a Chinese character at least; in code page 437 these are
# frames and Greek letters.
_HANZI = re.compile(rb"(?=.*[\xb0-\xf7])(?:[\0-\x7f]|[\xa1-\xa9\xb0-\xf7][\xa1-\xfe])*", re.DOTALL)
# What the bytes of an archive may lead to; any other OSError is the storage's.
_BAD = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError),
)
MOST_BYTES = 2**63 - 1
# Bytes of headers before a member of a tar. Attributes of macOS and SELinux have some 20,000; time
# and memory of tarfile go by the square of a header before Python 3.11.10.
MOST_HEADERS = 1 << 15
# Bytes of zeros between two tars in one file; tar fills its last record, of 10 kB to 1 MB.
MOST_ZEROS = 1 << 26
MOST_DIRECTORY = 1 << 26  # bytes in the file; zipfile's objects take ten times as much
MOST_NAMES = 1 << 29  # bytes of memory for the names of an archive


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

    Where it cannot be read to its end, or leads beyond a bound, the last one is the archive itself,
    `BROKEN`. Nothing of it is kept; a compressed tar has to be unpacked to be listed.
    """
    numbers: dict[str, int] = {}  # path -> the last number that was given to it
    held = 0
    try:
        with _opened(archive.uri) as stream:
            for name, length, position in _entries(archive.uri)(stream):
                if any(is_hidden(part) for part in name.split("/") if part not in (".", "..")):
                    continue
                if not 0 <= length <= MOST_BYTES:
                    raise tarfile.ReadError(f"a member of {length} bytes")
                path = free = printable(f"{archive.uri}{INSIDE}{name}")
                number = numbers.get(path, 1)
                while free in numbers:
                    number += 1
                    free = f"{path}#{number}"
                numbers[path], numbers[free] = number, 1
                held += sys.getsizeof(free)
                if held > MOST_NAMES:
                    raise tarfile.ReadError(f"names of more than {MOST_NAMES} bytes")
                yield Member(free, length, position)
    except (*_BAD, OSError, MemoryError):
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
                `UNREADABLE` when the storage cannot be read or memory is short, which may pass.
        """
        if position == BROKEN:
            raise ImageRejected(Reason.BAD_ARCHIVE, "cannot be read to its end as an archive")
        try:
            return self._reader(archive).read(position, length, limit + 1)
        except _BAD as error:
            self._drop(archive)
            raise ImageRejected(Reason.BAD_MEMBER, f"cannot be unpacked: {error}") from error
        except (OSError, MemoryError) as error:
            self._drop(archive)
            told = str(error) or "not enough memory"
            raise ImageRejected(Reason.UNREADABLE, f"cannot be read: {told}") from error

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


def member_name(entry: zipfile.ZipInfo) -> str:
    """Return the path of an entry of a zip archive, relative and with slashes.

    Some writers take backslashes for slashes, begin with `/` or `./`, and store UTF-8 or GBK
    without the flag that says so.
    """
    name = entry.orig_filename  # `filename` ends at the first NUL
    if not entry.flag_bits & _UTF8 and not name.isascii():
        name = _decoded(name.encode("cp437"))
    if "/" not in name:
        name = name.replace("\\", "/")
    end = "/" if name.endswith("/") else ""
    return "/".join(part for part in name.split("/") if part not in ("", ".")) + end


def _decoded(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if _HANZI.fullmatch(name):
        with suppress(UnicodeDecodeError):
            return name.decode("gbk")
    return name.decode("cp437")


def entry_fault(entry: zipfile.ZipInfo) -> str:
    """Return what is wrong with an entry of a zip archive; empty when nothing is."""
    name = member_name(entry)
    kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system in _UNIX else 0
    if re.match("[A-Za-z]:", name):
        return "has an absolute path"
    if "\\" in name or "\0" in name:
        return "has a backslash or NUL in its name"
    if ".." in name.split("/"):
        return "has a '..' part in its path"
    if not name:
        return "has no name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return f"is compressed by method {entry.compress_type}, not by deflate"
    return ""


class _Reader(Protocol):
    def read(self, position: int, length: int, limit: int) -> bytes: ...

    def close(self) -> None: ...


class _ZipReader:
    def __init__(self, uri: str) -> None:
        self._stream = _opened(uri)
        try:
            self._archive = _zip_of(self._stream)
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
            self._archive = _Tar.open(fileobj=self._stream)
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


class _Bounded:
    """A file of which no more than `most` bytes can be read."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._left = file, most
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > self._left:
            raise tarfile.ReadError(f"headers claim {size} bytes, at most {self._left} are read")
        data = self._file.read(size)  # -1 is zipfile's search in the last 64 kB
        self._left -= len(data)
        return data


def _zip_of(stream: BinaryIO) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(cast(BinaryIO, _Bounded(stream, MOST_DIRECTORY)))
    archive.fp = stream
    return archive


class _Header(tarfile.TarInfo):
    """A header, whatever zero blocks stand in front: of a tar that was written behind another."""

    @classmethod
    def fromtarfile(cls, archive: _Tar) -> tarfile.TarInfo:  # type: ignore[override]
        is_first = archive.whole.tell() == archive.offset  # else a further part of a header
        block = (archive.whole if is_first else archive.fileobj).read(tarfile.BLOCKSIZE)
        if is_first:
            start = archive.offset
            while block and block == _ZEROS[: len(block)]:
                archive.offset += len(block)
                if archive.offset - start > MOST_ZEROS:
                    raise tarfile.ReadError(f"more than {MOST_ZEROS} bytes of zeros")
                block = archive.whole.read(tarfile.BLOCKSIZE)
            archive.is_ended |= not block and archive.offset > start
        found = cls.frombuf(block, archive.encoding, archive.errors)
        found.offset = archive.whole.tell() - tarfile.BLOCKSIZE
        # What else a header of its kind consists of is read by tarfile, as for any other.
        return cast(tarfile.TarInfo, cast(Any, found)._proc_member(archive))


class _Tar(tarfile.TarFile):
    """A tar whose headers cost a bounded amount of memory, member by member."""

    OPEN_METH = {"tar": "taropen", "gz": "gzopen"}  # noqa: RUF012 - xz asks for up to 4 GB

    tarinfo = _Header
    is_ended = False  # whether the last block was of zeros

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member, None at the end; raise tarfile.ReadError beyond a bound."""
        self.whole = cast(BinaryIO, self.fileobj)
        self.fileobj = cast(BinaryIO, _Bounded(self.whole, MOST_HEADERS))
        try:
            # ReadError comes through; tarfile would take a HeaderError for the end.
            entry = super().next()
        finally:
            self.fileobj = self.whole
        if sum(len(key) + len(value) for key, value in self.pax_headers.items()) > MOST_HEADERS:
            raise tarfile.ReadError(f"global headers of more than {MOST_HEADERS} bytes")
        if entry and self.offset <= entry.offset:
            raise tarfile.ReadError("a member of negative size")  # after which it comes again
        self.members: list[tarfile.TarInfo] = []  # or it keeps them all
        return entry


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
    with _zip_of(stream) as archive:
        for entry in archive.infolist():
            name = member_name(entry)
            if not name.endswith("/"):
                yield name, entry.file_size, entry.header_offset


def _tar_entries(stream: BinaryIO) -> Iterator[tuple[str, int, int]]:
    with _Tar.open(fileobj=stream) as archive:
        number = -1
        while entry := archive.next():
            number += 1
            if not entry.isdir():
                name = "/".join(part for part in entry.name.split("/") if part != ".")
                yield name, entry.size, number
        if not archive.is_ended:  # tarfile takes a damaged header for the end
            raise tarfile.ReadError("no end of archive")


def _tar_fault(entry: tarfile.TarInfo) -> str:
    """Return what is wrong with an entry of a tar archive; empty when nothing is."""
    if entry.name.startswith("/") or ".." in entry.name.split("/") or "\0" in entry.name:
        return "has a path that leaves the archive"
    return "" if entry.isfile() else "is a link or device"
