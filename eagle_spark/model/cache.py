"""Folders among the temporary files where no other user can write: models, compiled graphs."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

from eagle_spark.errors import ModelError

MAX_ENTRIES = 4  # that a folder keeps
MAX_UNUSED_SECONDS = 24 * 3600  # of an older entry; engines read it only when they start
DIGEST_BYTES = hashlib.sha256().digest_size


def open_cache(content: str) -> Path:
    """Return the folder of this user for a kind of content; create it if needed.

    Raises:
        ModelError: when another user owns it, or can write there.
    """
    folder = Path(tempfile.gettempdir(), f"eagle-{content}-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ModelError(
            f"{folder}: wanted a folder of this user with mode 0700 for copies of {content}; "
            "remove it, or set TMPDIR to another folder"
        )
    return folder


def mark_used(entry: Path) -> None:
    """Protect an entry from `prune_cache` for `MAX_UNUSED_SECONDS`; OSError if there is none."""
    os.utime(entry)


def read_entry(file: Path) -> bytes:
    """Return what `write_entry` has written; OSError if there is no file, or it is altered."""
    mark_used(file)
    content = file.read_bytes()
    digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        raise OSError(f"{file}: altered")
    return data


def write_entry(file: Path, data: bytes) -> None:
    """Write a file of data behind its SHA-256, whole or not at all; prune its folder."""
    partial_file = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        partial_file.write_bytes(hashlib.sha256(data).digest() + data)
        partial_file.replace(file)
    finally:
        partial_file.unlink(missing_ok=True)
    prune_cache(file.parent)


def prune_cache(folder: Path) -> None:
    """Delete entries, complete or partial, that are neither among the newest nor of this day."""
    used_at: dict[Path, float] = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process prunes as well
            used_at[path] = path.lstat().st_mtime
    for path in sorted(used_at, key=used_at.__getitem__)[:-MAX_ENTRIES]:
        if time.time() - used_at[path] > MAX_UNUSED_SECONDS:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
