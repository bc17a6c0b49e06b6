"""Hostile archives: name -> file name, factory, outcome of the members."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from eagle_spark.imaging.decode import MAX_FILE_BYTES, decode_image
from eagle_spark.io import FileEntry, list_folder
from eagle_spark.io.archives import Archives, Member, list_members
from tests.helpers.sample_images import SIDE, encode_image, grey
from tests.hostile.hostile_trial import describe_outcome

CLIMBING = ("../../evil.png", "/tmp/evil.png", "a/../../evil.png")  # noqa: S108
TERABYTE = 2**40


def read_members(folder: Path) -> str:
    """List the archives of a folder and decode all of their members, as score does."""
    with Archives() as archives:

        def read(archive: FileEntry, member: Member) -> None:
            location = (archive.uri, member.position, member.length)
            decode_image(archives.read(*location, MAX_FILE_BYTES), SIDE)

        answers = [
            describe_outcome(lambda path=archive, inside=member: read(path, inside))
            for archive in list_folder(str(folder))
            for member in list_members(archive)
        ]
    return "; ".join(answers) or "nothing is listed"


def image() -> bytes:
    return encode_image(grey(), "PNG")


def zipped(files: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(*entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def member(name: str = "a.png", kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def inflated(size: int, declared: int, name: str = "a.png") -> bytes:
    """Return a zip with a member of `size` zeros whose declared size differs."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = bytes(2**20)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, first + again * (size // len(block)) + packer.flush())
    data = bytearray(stream.getvalue())
    directory = data.index(b"PK\1\2")
    for head, size_at in ((8, 22), (directory + 10, directory + 24)):
        struct.pack_into("<H", data, head, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", data, size_at, declared)
    return bytes(data)


def header_of(kind: bytes, size: int) -> bytes:
    """Return a valid member and a header that declares a number of bytes."""
    entry = member("b", kind)
    entry.size = size
    blocks = 1 + -(-len(image()) // tarfile.BLOCKSIZE)
    sound = tarred((member(), image()))[: blocks * tarfile.BLOCKSIZE]
    return sound + entry.tobuf(tarfile.GNU_FORMAT) + bytes(2 * tarfile.BLOCKSIZE)


def encrypted() -> bytes:
    data = bytearray(zipped([("a.png", image())]))
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("a.png")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


def within(depth: int) -> bytes:
    data = zipped([("a.png", image())])
    for _ in range(depth):
        data = zipped([("a.zip", data)])
    return data


OUT = "bad_member: has a path that leaves the archive"
ARCHIVES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "zip of one image that inflates to 300 MB": (
        "a.zip",
        lambda: inflated(300 * 2**20, 300 * 2**20),
        "file_too_large: 268435457 bytes",
    ),
    "zip of one image that declares 100 bytes and holds 300 MB": (
        "a.zip",
        lambda: inflated(300 * 2**20, 100),
        "bad_member: cannot be unpacked: Bad CRC-32",
    ),
    "zip of one image that declares 4 GB": (
        "a.zip",
        lambda: inflated(2**20, 2**32 - 2),
        "bad_member: cannot be unpacked: Bad CRC-32",
    ),
    "tar.gz of one image that inflates to 64 MB": (
        "a.tar.gz",
        lambda: tarred((member(), bytes(2**26)), mode="w:gz"),
        "not_an_image",
    ),
    "zip in a zip in a zip": ("a.zip", lambda: within(2), "not_an_image"),
    "zip whose members climb out": (
        "a.zip",
        lambda: zipped((name, image()) for name in CLIMBING),
        "bad_member: has a '..' part in its path; accepted; bad_member: has a '..' part",
    ),
    "zip with a link out": ("a.zip", lambda: zipped([(link(), b"/etc/passwd")]), "bad_member: is"),
    "zip behind a password": ("a.zip", encrypted, "bad_member: is encrypted"),
    "zip cut in half": ("a.zip", lambda: zipped([("a.png", image())])[:500], "bad_archive"),
    "zip in name only": ("a.zip", image, "bad_archive"),
    "tar whose members climb out": (
        "a.tar",
        lambda: tarred(*((member(name), image()) for name in CLIMBING)),
        f"{OUT}; {OUT}; {OUT}",
    ),
    "tar with links and a device": (
        "a.tar",
        lambda: tarred(
            (member(kind=tarfile.SYMTYPE, target="/etc/passwd"), b""),
            (member(kind=tarfile.LNKTYPE, target="../../etc/passwd"), b""),
            (member(kind=tarfile.CHRTYPE), b""),
        ),
        "; ".join(["bad_member: is a link or device"] * 3),
    ),
    "tar with an image of 1 TB": (
        "a.tar",
        lambda: header_of(tarfile.REGTYPE, TERABYTE),
        "accepted; bad_member: cannot be unpacked: unexpected end of data; bad_archive",
    ),
    "tar with a name of 1 TB": (
        "a.tar",
        lambda: header_of(tarfile.GNUTYPE_LONGNAME, TERABYTE),
        "accepted; bad_archive",
    ),
    "tar with a header of 1 TB": (
        "a.tar",
        lambda: header_of(tarfile.XHDTYPE, TERABYTE),
        "accepted; bad_archive",
    ),
}
