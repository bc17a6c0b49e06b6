"""Images in zip and tar archives, valid and hostile."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.io import FileEntry, archives, resolve
from eagle_spark.io.archives import (
    MAX_OPEN_ARCHIVES,
    UNREADABLE_ARCHIVE,
    Archives,
    is_archive,
    list_members,
)

FILES = {"a/1.png": b"one", "a/2.png": b"two" * 1000, "b c/ünï.png": b"three"}


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], links: bool = False) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if links:
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return path


def stat_file(path: Path) -> FileEntry:
    storage, plain = resolve(str(path))
    return storage.stat(plain)


def read_all(path: Path) -> dict[str, bytes | Reason]:
    """Return name -> bytes or reason; members are read from the last to the first, and again."""
    entry = stat_file(path)
    contents: dict[str, bytes | Reason] = {}
    members = list(list_members(entry))
    with Archives() as archives:
        for member in [*reversed(members), *members]:
            name = member.path.removeprefix(entry.uri)
            try:
                data = archives.read(entry.uri, member.position, member.length, 1 << 20)
                assert len(data) == member.length
                contents[name] = data
            except ImageRejectedError as rejected:
                contents[name] = rejected.reason
    return contents


@pytest.mark.parametrize("name", ["n.zip", "N.ZIP", "n.tar", "n.tar.gz", "n.tgz"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # that is the point
def test_members_are_listed_and_read_in_place(tmp_path: Path, name: str) -> None:
    write = write_zip if name.lower().endswith("zip") else write_tar
    files = [*FILES.items(), (".hidden.png", b"x"), ("__MACOSX/1.png", b"x"), ("a/1.png", b"again")]
    path = write(tmp_path / name, files)
    assert is_archive(name)
    assert read_all(path) == {
        **{f"!/{name}": data for name, data in FILES.items()},
        "!/a/1.png#2": b"again",
    }
    assert os.listdir(tmp_path) == [name]


def test_other_files_are_not_archives() -> None:
    assert not any(map(is_archive, ["a.png", "zip", "a.zip.png", "a.gz"]))


@pytest.mark.parametrize("name", ["n.zip", "n.tar", "n.tar.gz"])
def test_a_damaged_archive_gives_its_readable_members_and_a_row(tmp_path: Path, name: str) -> None:
    write = write_zip if name.endswith("zip") else write_tar
    path = write(tmp_path / name, [(f"{i}.png", os.urandom(9000)) for i in range(20)])
    path.write_bytes(path.read_bytes()[:-60_000])
    contents = read_all(path)
    assert contents.pop("") == Reason.BAD_ARCHIVE
    sound = [data for data in contents.values() if isinstance(data, bytes)]
    assert (len(sound) > 10) is not name.endswith("zip")  # a zip's directory is at its end
    members = list(list_members(stat_file(path)))
    assert members[-1].position == UNREADABLE_ARCHIVE
    assert members[-1].path == path.as_uri()


@pytest.mark.parametrize("length", [3 * 1536, 2 * 1536 + 100, 6 * 1536])
def test_a_tar_that_ends_between_or_within_headers_is_broken(tmp_path: Path, length: int) -> None:
    path = write_tar(tmp_path / "n.tar", [(f"{i}.png", b"x" * 1000) for i in range(6)])
    path.write_bytes(path.read_bytes()[:length])
    assert read_all(path)[""] == Reason.BAD_ARCHIVE


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "n.tar", [(f"{i}.png", b"x" * 1000) for i in range(6)])
    data = bytearray(path.read_bytes())
    data[3 * 1536 + 5] ^= 0xFF
    path.write_bytes(data)
    assert read_all(path) == {
        **{f"!/{i}.png": b"x" * 1000 for i in range(3)},
        "": Reason.BAD_ARCHIVE,
    }


def test_no_two_members_share_a_path(tmp_path: Path) -> None:
    names = ["a.png", "a.png", "a.png#2", "./a.png", "b/./c.png"]
    path = write_tar(tmp_path / "n.tar", [(name, name.encode()) for name in names])
    assert read_all(path) == {
        "!/a.png": b"a.png",
        "!/a.png#2": b"a.png",
        "!/a.png#2#2": b"a.png#2",
        "!/a.png#3": b"./a.png",
        "!/b/c.png": b"b/./c.png",
    }


def test_impossible_sizes_break_the_archive(tmp_path: Path) -> None:
    for size in (2**70, -1024):
        info = tarfile.TarInfo("a.png")
        info.size = size
        path = tmp_path / "n.tar"
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10 * tarfile.BLOCKSIZE))
        assert read_all(path) == {"": Reason.BAD_ARCHIVE}


def test_an_archive_that_is_not_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "n.zip")
    assert read_all(tmp_path / "n.zip") == {"": Reason.BAD_ARCHIVE}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_is_detected_with_every_compression(tmp_path: Path, method: int) -> None:
    path = tmp_path / "n.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", os.urandom(5000))
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    assert read_all(path)["!/a.png"] in (Reason.BAD_MEMBER, Reason.UNREADABLE)


def test_a_member_that_was_replaced_since_it_was_listed_is_rejected(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "n.zip", [("a.png", b"old")])
    (member,) = list_members(stat_file(path))
    write_zip(path, [("a.png", b"another")])
    with Archives() as archives, pytest.raises(ImageRejectedError, match="the archive has changed"):
        archives.read(path.as_uri(), member.position, member.length, 100)


def test_a_read_error_of_the_storage_is_retryable(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "n.zip", [("a.png", b"old")])
    (member,) = list_members(stat_file(path))
    path.unlink()
    with Archives() as archives, pytest.raises(ImageRejectedError) as raised:
        archives.read(path.as_uri(), member.position, member.length, 100)
    assert raised.value.reason == Reason.UNREADABLE


def test_a_file_that_is_not_an_archive_is_one_row(tmp_path: Path) -> None:
    for name in ("n.zip", "n.tar", "n.tgz"):
        (tmp_path / name).write_bytes(b"text")
        assert read_all(tmp_path / name) == {"": Reason.BAD_ARCHIVE}


def test_links_and_devices_are_rejected_members(tmp_path: Path) -> None:
    names = ["../out.png", "C:/abs.png", "a/../b.png", "a/back\\slash.png"]
    path = write_zip(tmp_path / "n.zip", [("sound.png", b"s"), *((name, b"x") for name in names)])
    assert read_all(path) == {
        "!/sound.png": b"s",
        **{f"!/{name}": Reason.BAD_MEMBER for name in names},
    }
    path = write_tar(tmp_path / "n.tar", [("sound.png", b"s"), ("../out.png", b"x")], links=True)
    assert read_all(path) == {
        "!/sound.png": b"s",
        "!/../out.png": Reason.BAD_MEMBER,
        "!/link.png": Reason.BAD_MEMBER,
    }


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (b"back\\slash.png", "back/slash.png"),
        (b"night\\sub\\a.png", "night/sub/a.png"),
        (b"/abs.png", "abs.png"),
        (b"./a.png", "a.png"),
        (b"a//b/./c.png", "a/b/c.png"),
        ("tórax.png".encode(), "tórax.png"),
        ("胸部/正位.png".encode(), "胸部/正位.png"),
        ("tórax.png".encode("cp850"), "tórax.png"),
        ("compañía.png".encode("cp437"), "compañía.png"),
        ("胸部/正位.png".encode("gbk"), "胸部/正位.png"),
        ("胸部《1》.png".encode("gbk"), "胸部《1》.png"),
        (b"\xd7\xfa.png", b"\xd7\xfa.png".decode("cp437")),  # a pair that GBK has not assigned
    ],
)
def test_names_of_other_programs_are_paths(tmp_path: Path, stored: bytes, read: str) -> None:
    """Names in a zip without the flag for UTF-8."""
    path = write_zip(tmp_path / "n.zip", [("?" * len(stored), b"x")])
    path.write_bytes(path.read_bytes().replace(b"?" * len(stored), stored))
    assert read_all(path) == {f"!/{read}": b"x"}


def test_names_with_the_same_path_are_numbered(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "n.zip", [("a.png", b"1"), ("./a.png", b"2"), ("/a.png", b"3")])
    assert read_all(path) == {"!/a.png": b"1", "!/a.png#2": b"2", "!/a.png#3": b"3"}


def test_mode_bits_of_another_system_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "n.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for system in (0, 3, 19):
            entry = zipfile.ZipInfo(f"{system}.png")
            entry.create_system, entry.external_attr = system, 0o120777 << 16
            archive.writestr(entry, b"x")
    assert read_all(path) == {
        "!/0.png": b"x",
        "!/3.png": Reason.BAD_MEMBER,
        "!/19.png": Reason.BAD_MEMBER,
    }


def small_tar(name: str) -> tuple[bytes, bytes]:
    """A tar of one member: up to its end, and with it."""
    entry = tarfile.TarInfo(name)
    entry.size = 1
    body = entry.tobuf() + b"x".ljust(512, b"\0")
    return body, body + bytes(1024)


@pytest.mark.parametrize("zeros", [512, 1024, 10_240])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_concatenated_tars_are_read(tmp_path: Path, zeros: int, ending: str) -> None:
    data = small_tar("a.png")[0] + bytes(zeros) + small_tar("b.png")[1]
    path = tmp_path / f"n{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    assert read_all(path) == {"!/a.png": b"x", "!/b.png": b"x"}


@pytest.mark.parametrize("name", ["n.tar", "n.tar.gz"])
def test_an_empty_tar_is_valid(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / name, [])
    assert read_all(tmp_path / name) == {}


def test_trailing_data_of_a_tar_is_reported(tmp_path: Path) -> None:
    (tmp_path / "n.tar").write_bytes(small_tar("a.png")[1] + b"garbage" * 200)
    assert read_all(tmp_path / "n.tar") == {"!/a.png": b"x", "": Reason.BAD_ARCHIVE}


def test_endless_zeros_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ZERO_BYTES", 4096)
    (tmp_path / "n.tar").write_bytes(small_tar("a.png")[1] + bytes(8192))
    assert read_all(tmp_path / "n.tar") == {"!/a.png": b"x", "": Reason.BAD_ARCHIVE}


def test_attributes_of_20_kb_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "n.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = 1
        entry.pax_headers = {"LIBARCHIVE.xattr.com.apple.ResourceFork": "A" * 20_000}
        archive.addfile(entry, io.BytesIO(b"x"))
    assert read_all(path) == {"!/a.png": b"x"}


@pytest.mark.parametrize("name", ["Thumbs.db", "sub/desktop.ini", "a.png:Zone.Identifier"])
def test_files_of_windows_are_not_members(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "n.zip", [("a.png", b"x"), (name, b"y")])
    assert read_all(path) == {"!/a.png": b"x"}


def test_a_member_without_a_name_is_rejected(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "n.zip", [("sound.png", b"s"), ("", b"x")])
    assert read_all(path) == {"!/sound.png": b"s", "!/": Reason.BAD_MEMBER}


def test_encrypted_and_altered_members_are_rejected(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "n.zip", [("one.png", b"o" * 100), ("two.png", b"t" * 100)])
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1  # the flag of the first entry
    data[data.index(b"two.png") + len(b"two.png")] ^= 0xFF  # the first byte of the second one
    path.write_bytes(data)
    assert read_all(path) == {"!/one.png": Reason.BAD_MEMBER, "!/two.png": Reason.BAD_MEMBER}


def test_a_bomb_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "n.zip", [("bomb.png", bytes(50_000_000))])
    (member,) = list_members(stat_file(path))
    with Archives() as archives:
        assert len(archives.read(path.as_uri(), member.position, member.length, 1000)) == 1001


def test_more_archives_than_may_be_open_are_read_in_turn(tmp_path: Path) -> None:
    paths = [
        write_zip(tmp_path / f"{i}.zip", [("a.png", bytes([i]))])
        for i in range(MAX_OPEN_ARCHIVES + 2)
    ]
    members = [next(list_members(stat_file(path))) for path in paths]
    with Archives() as archives:
        for _ in range(2):
            for i, (path, member) in enumerate(zip(paths, members, strict=True)):
                assert archives.read(path.as_uri(), member.position, 1, 10) == bytes([i])
