"""List and read images inside archives without unpacking: `archive.zip!/a/b.png`.

A zip has a directory, which gives access to any single member. A tar has none: its members are
numbered and read in order. Sizes of headers and directories are limited before they are read,
because a small archive can inflate to any size.
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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol, cast

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.io import FileEntry, is_hidden, resolve, to_utf8

MEMBER_SEPARATOR = "!/"
MAX_OPEN_ARCHIVES = 4
BUFFER_BYTES = 1 << 18
_ZEROS = bytes(tarfile.BLOCKSIZE)
UNREADABLE_ARCHIVE = -1  # position of the archive itself when it cannot be read to its end
_ZIP_SUFFIXES, _TAR_SUFFIXES = (".zip",), (".tar", ".tar.gz", ".tgz")

# zipfile does not limit the output of the other methods: 4 kB of bzip2 unpack to 4 GB.
_COMPRESSION_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED_FLAGS, _UTF8_FLAG = 0x1 | 0x40, 0x800  # bits of an entry's flags
_UNIX_SYSTEMS = (3, 19)  # `create_system` of Unix and macOS
# Names in GBK: pairs of bytes with at least one Chinese character; in code page 437 these are box
# drawings and Greek letters.
_GBK_NAME = re.compile(
    rb"(?=.*[\xb0-\xf7])(?:[\0-\x7f]|[\xa1-\xa9\xb0-\xf7][\xa1-\xfe])*", re.DOTALL
)
# Errors from the content of an archive; every other OSError comes from the storage.
_CONTENT_ERRORS = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError),
)
MAX_MEMBER_BYTES = 2**63 - 1
# Headers before one member of a tar. Attributes of macOS and SELinux take about 20,000 bytes; time
# and memory of tarfile grow with the square of a header's size before Python 3.11.10.
MAX_HEADER_BYTES = 1 << 15
# Zeros between two tars in one file; tar pads its last record, of 10 kB to 1 MB.
MAX_ZERO_BYTES = 1 << 26
MAX_DIRECTORY_BYTES = 1 << 26  # in the file; the objects of zipfile take ten times as much memory
MAX_NAMES_BYTES = 1 << 29  # memory for all names of an archive


@dataclass(frozen=True)
class Member:
    """A file inside an archive.

    Attributes:
        path: URI of the archive, `!/` and the name in it; `#2` follows the second occurrence of a
            name. For an unreadable archive, its own URI.
        length: unpacked bytes.
        position: the key for `Archives.read`: header offset in a zip, member number in a tar.
    """

    path: str
    length: int
    position: int


def is_archive(name: str) -> bool:
    """Return whether a file name has the suffix of a supported archive."""
    return name.lower().endswith((*_ZIP_SUFFIXES, *_TAR_SUFFIXES))


def _is_zip(uri: str) -> bool:
    return uri.lower().endswith(_ZIP_SUFFIXES)


def list_members(archive: FileEntry) -> Iterator[Member]:
    """Yield the files of an archive, except hidden files.

    When the archive cannot be read to its end or exceeds a limit, the last member is the archive
    itself with the position `UNREADABLE_ARCHIVE`. Listing a compressed tar decompresses it.
    """
    last_numbers: dict[str, int] = {}  # path -> its last `#` number
    names_bytes = 0
    list_entries = _list_zip_entries if _is_zip(archive.uri) else _list_tar_entries
    try:
        with _open_stream(archive.uri) as stream:
            for name, length, position in list_entries(stream):
                if any(is_hidden(part) for part in name.split("/") if part not in (".", "..")):
                    continue
                if not 0 <= length <= MAX_MEMBER_BYTES:
                    raise tarfile.ReadError(f"a member of {length} bytes")
                path = unique_path = to_utf8(f"{archive.uri}{MEMBER_SEPARATOR}{name}")
                number = last_numbers.get(path, 1)
                while unique_path in last_numbers:
                    number += 1
                    unique_path = f"{path}#{number}"
                last_numbers[path], last_numbers[unique_path] = number, 1
                names_bytes += sys.getsizeof(unique_path)
                if names_bytes > MAX_NAMES_BYTES:
                    raise tarfile.ReadError(f"names of more than {MAX_NAMES_BYTES} bytes")
                yield Member(unique_path, length, position)
    except (*_CONTENT_ERRORS, OSError, MemoryError):
        yield Member(to_utf8(archive.uri), archive.length, UNREADABLE_ARCHIVE)


class Archives:
    """Read members; keep up to `MAX_OPEN_ARCHIVES` archives open until the block ends."""

    def __init__(self) -> None:
        self._readers: dict[str, _Reader] = {}

    def __enter__(self) -> Archives:
        return self

    def __exit__(self, *_: object) -> None:
        while self._readers:
            self._readers.popitem()[1].close()

    def read(self, archive: str, position: int, length: int, limit: int) -> bytes:
        """Return the content of a member, at most `limit` + 1 bytes, so that callers detect excess.

        Args:
            length: the listed length; another length reveals an archive replaced since.

        Raises:
            ImageRejectedError: when the member or the archive is invalid; `UNREADABLE` when the
                storage fails or memory is short, which may be temporary.
        """
        if position == UNREADABLE_ARCHIVE:
            raise ImageRejectedError(Reason.BAD_ARCHIVE, "cannot be read to its end as an archive")
        try:
            return self._open_reader(archive).read(position, length, limit + 1)
        except _CONTENT_ERRORS as error:
            self._close_reader(archive)
            raise ImageRejectedError(Reason.BAD_MEMBER, f"cannot be unpacked: {error}") from error
        except (OSError, MemoryError) as error:
            self._close_reader(archive)
            cause = str(error) or "not enough memory"
            raise ImageRejectedError(Reason.UNREADABLE, f"cannot be read: {cause}") from error

    def _close_reader(self, uri: str) -> None:
        if reader := self._readers.pop(uri, None):
            reader.close()

    def _open_reader(self, uri: str) -> _Reader:
        if uri not in self._readers:
            while len(self._readers) >= MAX_OPEN_ARCHIVES:
                self._close_reader(next(iter(self._readers)))
            reader: type[_ZipReader | _TarReader] = _ZipReader if _is_zip(uri) else _TarReader
            self._readers[uri] = reader(uri)
        return self._readers[uri]


def decode_member_name(entry: zipfile.ZipInfo) -> str:
    """Return the path of an entry of a zip archive, relative and with slashes.

    Some writers store backslashes, a leading `/` or `./`, or UTF-8 and GBK without a flag.
    """
    name = entry.orig_filename  # `filename` ends at the first NUL
    if not entry.flag_bits & _UTF8_FLAG and not name.isascii():
        name = _decode_name(name.encode("cp437"))
    if "/" not in name:
        name = name.replace("\\", "/")
    end = "/" if name.endswith("/") else ""
    return "/".join(part for part in name.split("/") if part not in ("", ".")) + end


def _decode_name(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if _GBK_NAME.fullmatch(name):
        with suppress(UnicodeDecodeError):
            return name.decode("gbk")
    return name.decode("cp437")


def describe_entry_fault(entry: zipfile.ZipInfo) -> str:
    """Return the fault of an entry of a zip archive; empty for a valid entry."""
    name = decode_member_name(entry)
    file_type = (
        stat.S_IFMT(entry.external_attr >> 16) if entry.create_system in _UNIX_SYSTEMS else 0
    )
    if re.match("[A-Za-z]:", name):
        return "has an absolute path"
    if "\\" in name or "\0" in name:
        return "has a backslash or NUL in its name"
    if ".." in name.split("/"):
        return "has a '..' part in its path"
    if not name:
        return "has no name"
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if entry.flag_bits & _ENCRYPTED_FLAGS:
        return "is encrypted"
    if entry.compress_type not in _COMPRESSION_METHODS:
        return f"is compressed by method {entry.compress_type}, not by deflate"
    return ""


class _Reader(Protocol):
    def read(self, position: int, length: int, limit: int) -> bytes: ...

    def close(self) -> None: ...


class _ZipReader:
    def __init__(self, uri: str) -> None:
        self._stream = _open_stream(uri)
        try:
            self._archive = _open_zip(self._stream)
        except BaseException:
            self._stream.close()
            raise
        self._entries = {entry.header_offset: entry for entry in self._archive.infolist()}

    def read(self, position: int, length: int, limit: int) -> bytes:
        entry = self._entries[position]
        _check_length(entry.file_size, length)
        if fault := describe_entry_fault(entry):
            raise ImageRejectedError(Reason.BAD_MEMBER, fault)
        with self._archive.open(entry) as stream:
            return stream.read(limit)

    def close(self) -> None:
        self._archive.close()
        self._stream.close()


class _TarReader:
    """Read a tar in one pass while positions ascend."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._open()

    def _open(self) -> None:
        self._stream = _open_stream(self._uri)
        try:
            self._archive = _BoundedTar.open(fileobj=self._stream)
        except BaseException:
            self._stream.close()
            raise
        self._next_position = 0

    def read(self, position: int, length: int, limit: int) -> bytes:
        if position < self._next_position:
            self.close()
            self._open()
        while True:
            entry = self._archive.next()
            if entry is None:
                raise EOFError(f"wanted member {position + 1}; got {self._next_position} members")
            self._next_position += 1
            if self._next_position > position:
                break
        _check_length(entry.size, length)
        if fault := _describe_tar_fault(entry):
            raise ImageRejectedError(Reason.BAD_MEMBER, fault)
        stream = self._archive.extractfile(entry)
        assert stream
        with stream:
            return stream.read(limit)

    def close(self) -> None:
        self._archive.close()
        self._stream.close()


class _BoundedFile:
    """A file that returns at most `max_bytes` bytes in all."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file, self._remaining = file, max_bytes
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > self._remaining:
            raise tarfile.ReadError(f"headers: wanted at most {self._remaining} bytes; got {size}")
        data = self._file.read(size)  # -1 is zipfile's search in the last 64 kB
        self._remaining -= len(data)
        return data


def _open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(cast(BinaryIO, _BoundedFile(stream, MAX_DIRECTORY_BYTES)))
    archive.fp = stream
    return archive


class _TarHeader(tarfile.TarInfo):
    """A header that may follow zero blocks, as in a tar appended to another tar."""

    @classmethod
    def fromtarfile(cls, archive: _BoundedTar) -> tarfile.TarInfo:  # type: ignore[override]
        is_first = archive.unbounded.tell() == archive.offset  # else a further part of a header
        block = (archive.unbounded if is_first else archive.fileobj).read(tarfile.BLOCKSIZE)
        if is_first:
            start = archive.offset
            while block and block == _ZEROS[: len(block)]:
                archive.offset += len(block)
                if archive.offset - start > MAX_ZERO_BYTES:
                    raise tarfile.ReadError(f"more than {MAX_ZERO_BYTES} bytes of zeros")
                block = archive.unbounded.read(tarfile.BLOCKSIZE)
            archive.has_end |= not block and archive.offset > start
        header = cls.frombuf(block, archive.encoding, archive.errors)
        header.offset = archive.unbounded.tell() - tarfile.BLOCKSIZE
        # As in the base class: tarfile reads the remaining blocks of the header.
        return cast(tarfile.TarInfo, header._proc_member(archive))  # type: ignore[attr-defined]


class _BoundedTar(tarfile.TarFile):
    """A tar with bounded memory for the headers of each member."""

    OPEN_METH = {"tar": "taropen", "gz": "gzopen"}  # noqa: RUF012 - xz allocates up to 4 GB

    tarinfo = _TarHeader
    has_end = False  # whether zero blocks ended the file

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member, None at the end; raise tarfile.ReadError beyond a limit."""
        self.unbounded = cast(BinaryIO, self.fileobj)
        self.fileobj = cast(BinaryIO, _BoundedFile(self.unbounded, MAX_HEADER_BYTES))
        try:
            # Limits raise ReadError: tarfile treats a HeaderError as the end of the archive.
            entry = super().next()
        finally:
            self.fileobj = self.unbounded
        if sum(len(key) + len(value) for key, value in self.pax_headers.items()) > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"global headers of more than {MAX_HEADER_BYTES} bytes")
        if entry and self.offset <= entry.offset:
            raise tarfile.ReadError("a member of negative size")  # tarfile returns it again
        self.members: list[tarfile.TarInfo] = []  # tarfile keeps every member otherwise
        return entry


def _check_length(length: int, listed_length: int) -> None:
    if length != listed_length:
        raise ValueError(f"wanted {listed_length} bytes; got {length}: the archive has changed")


def _open_stream(uri: str) -> BinaryIO:
    storage, path = resolve(uri)
    stream = storage.open(path)
    # zipfile and tarfile read a few hundred bytes at a time.
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), BUFFER_BYTES))


def _list_zip_entries(stream: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Yield name, unpacked bytes and position of each file."""
    with _open_zip(stream) as archive:
        for entry in archive.infolist():
            name = decode_member_name(entry)
            if not name.endswith("/"):
                yield name, entry.file_size, entry.header_offset


def _list_tar_entries(stream: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Yield name, unpacked bytes and position of each entry but folders."""
    with _BoundedTar.open(fileobj=stream) as archive:
        number = -1
        while entry := archive.next():
            number += 1
            if not entry.isdir():
                name = "/".join(part for part in entry.name.split("/") if part != ".")
                yield name, entry.size, number
        if not archive.has_end:  # tarfile treats a damaged header as the end
            raise tarfile.ReadError("no end of archive")


def _describe_tar_fault(entry: tarfile.TarInfo) -> str:
    """Return the fault of an entry of a tar archive; empty for a valid entry."""
    if entry.name.startswith("/") or ".." in entry.name.split("/") or "\0" in entry.name:
        return "has a path that leaves the archive"
    return "" if entry.isfile() else "is a link or device"
