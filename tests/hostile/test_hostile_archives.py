"""Archives that claim or unpack to more than memory holds: one row, and little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.io import archives, resolve
from eagle_spark.io.archives import (
    MAX_HEADER_BYTES,
    UNREADABLE_ARCHIVE,
    Archives,
    Member,
    list_members,
)

MAX_MEMORY = 8 << 20  # bytes of memory that any of these may take
END = bytes(2 * tarfile.BLOCKSIZE)
HEADERS = [
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


SOUND, BEHIND = member("sound.png", b"sound"), member("behind.png", b"behind") + END


def record(key: str, value: str) -> bytes:
    """Return a line of a pax header, its own length in front."""
    rest = f" {key}={value}\n"
    length = next(n for n in range(len(rest), len(rest) + 9) if len(str(n)) + len(rest) == n)
    return f"{length}{rest}".encode()


def sparse(extended: bool, size: int = 0) -> bytes:
    block = bytearray(header("sparse.png", size, tarfile.GNUTYPE_SPARSE))
    block[482] = extended  # whether blocks follow that go on with the map
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def members(path: Path) -> list[Member]:
    storage, plain = resolve(str(path))
    return list(list_members(storage.stat(plain)))


def listed(path: Path) -> list[str]:
    """Return the names of an archive's members, "" for the archive itself, listed in little memory.

    The executors' reader comes to the same end.
    """
    uri = path.as_uri()
    tracemalloc.start()
    try:
        entries = members(path)
        if entries[-1].position == UNREADABLE_ARCHIVE:
            with Archives() as opened, pytest.raises(ImageRejectedError) as raised:
                opened.read(uri, 1 << 40, 0, 1 << 20)
            assert raised.value.reason is Reason.BAD_MEMBER
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY
    finally:
        tracemalloc.stop()
    return [entry.path.removeprefix(uri).removeprefix("!/") for entry in entries]


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("before", [b"", SOUND], ids=["first", "later"])
def test_a_header_that_claims_a_terabyte_breaks_the_archive(
    tmp_path: Path, kind: bytes, before: bytes
) -> None:
    path = tmp_path / "n.tar"
    path.write_bytes(before + header("x", 1 << 40, kind) + BEHIND)
    assert listed(path) == [*(["sound.png"] if before else []), ""]


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_inflates_breaks_the_archive(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "n.tgz"
    path.write_bytes(gzip.compress(SOUND + member("x", b"n" * (32 << 20), kind) + BEHIND))
    assert listed(path) == ["sound.png", ""]


def test_a_map_of_holes_without_an_end_breaks_the_archive(tmp_path: Path) -> None:
    numbers = b"".join(b"%011o\0" % number for number in range(1, 43))
    block = (numbers + b"\1").ljust(tarfile.BLOCKSIZE, b"\0")
    version = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")
    pax = member("x", version, tarfile.XHDTYPE) + member("y", b"9999999\n" + b"1\n" * (4 << 20))
    for section in (sparse(True) + block * 20_000, pax):
        path = tmp_path / "n.tgz"
        path.write_bytes(gzip.compress(SOUND + section + BEHIND))
        assert listed(path) == ["sound.png", ""]


@pytest.mark.parametrize("kind", HEADERS)
def test_a_chain_of_headers_breaks_the_archive(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "n.tar"
    path.write_bytes(SOUND + header("x", 0, kind) * 5000 + BEHIND)
    assert listed(path) == ["sound.png", ""]


def test_records_that_overlap_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "n.tar"
    path.write_bytes(SOUND + member("x", b"2 " * 20_000 + b"=\n", tarfile.XHDTYPE) + BEHIND)
    assert listed(path) == ["sound.png", ""]


def test_global_headers_do_not_accumulate(tmp_path: Path) -> None:
    path = tmp_path / "n.tar"
    headers = (
        member("x", record(f"k{i}", "v" * 10_000), tarfile.XGLTYPE) + SOUND for i in range(2000)
    )
    path.write_bytes(b"".join(headers) + BEHIND)
    *sound, broken = listed(path)
    assert broken == ""
    assert len(sound) == MAX_HEADER_BYTES // 10_000


def test_a_negative_size_does_not_loop(tmp_path: Path) -> None:
    path = tmp_path / "n.tar"
    path.write_bytes(SOUND + sparse(False, -tarfile.BLOCKSIZE) + BEHIND)
    assert listed(path) == ["sound.png", ""]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_longest_names_of_file_systems_are_read(tmp_path: Path, kind: int) -> None:
    path, name = tmp_path / "n.tar", f"{'ü/' * 1360}x.png"
    with tarfile.open(path, "w", format=kind, pax_headers={"comment": "c" * 1000}) as archive:
        info = tarfile.TarInfo(name)
        info.size, info.uname = 1, "Jürgen"
        archive.addfile(info, io.BytesIO(b"1"))
    assert listed(path) == [name]


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress])
def test_a_tar_is_plain_or_gzip_whatever_its_name(tmp_path: Path, compress: object) -> None:
    path = tmp_path / "n.tgz"
    path.write_bytes(compress(SOUND + BEHIND))  # type: ignore[operator]
    assert listed(path) == [""]


def test_a_directory_beyond_the_bound_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(2000):
            archive.writestr(f"{i:04}.png", b"")
    assert len(listed(path)) == 2000
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 2000 * (46 + 8))
    assert listed(path) == [""]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_an_end_are_rejected(tmp_path: Path, method: int) -> None:
    path = tmp_path / "n.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("bomb.png", bytes(32 << 20))
    (member,) = members(path)
    with Archives() as opened, pytest.raises(ImageRejectedError, match="by method") as raised:
        opened.read(path.as_uri(), member.position, member.length, 1000)
    assert raised.value.reason is Reason.BAD_MEMBER


def test_names_beyond_the_bound_break_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.tgz"
    path.write_bytes(gzip.compress(b"".join(member(f"{i}.png", b"") for i in range(5000)) + END))
    monkeypatch.setattr(archives, "MAX_NAMES_BYTES", 100_000)
    names = listed(path)
    assert names[-1] == ""
    assert 100 < len(names) < 2000


def test_members_of_one_name_are_numbered_without_delay(tmp_path: Path) -> None:
    path = tmp_path / "n.tgz"
    path.write_bytes(gzip.compress(SOUND * 20_000 + END))
    begun = time.monotonic()
    entries = members(path)
    assert time.monotonic() - begun < 30
    assert entries[-1].path.endswith("!/sound.png#20000")


def test_a_memory_error_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(_: str) -> NoReturn:
        raise MemoryError

    path = tmp_path / "n.tar"
    path.write_bytes(SOUND + END)
    (member,) = members(path)
    monkeypatch.setattr(archives, "_open_stream", greedy)
    assert [broken.position for broken in members(path)] == [UNREADABLE_ARCHIVE]
    with (
        Archives() as opened,
        pytest.raises(ImageRejectedError, match="not enough memory") as raised,
    ):
        opened.read(path.as_uri(), member.position, member.length, 100)
    assert raised.value.reason is Reason.UNREADABLE
