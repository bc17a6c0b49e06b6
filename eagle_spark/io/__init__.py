"""Files by URI: one small interface for the local disk and HDFS.

A URI is a plain path, `file:///…` or `hdfs://…`; `hdfs:///…` means the `fs.defaultFS` of the
`core-site.xml` in `HADOOP_CONF_DIR`. The HDFS client is imported when the first HDFS URI is used.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from eagle_spark.errors import ImageRejectedError, InputError, Reason, SettingsError
from eagle_spark.io.files import FileEntry as FileEntry
from eagle_spark.io.files import Storage as Storage
from eagle_spark.io.files import is_hidden as is_hidden
from eagle_spark.io.hadoop_conf import read_default_authority
from eagle_spark.io.local import LocalStorage as LocalStorage

# host, host:port, [IPv6]:port or a nameservice; nothing else, so that no password passes.
_AUTHORITY = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)


def to_utf8(name: str) -> str:
    """Return `name` as valid UTF-8, which tables can store; surrogates become escapes."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def split_uri(uri: str) -> tuple[str, str, str]:
    """Return (scheme, authority, absolute path) of a URI or plain path.

    Raises:
        SettingsError: for a scheme other than `file` and `hdfs`; for a user or password in the URI
            (the message omits them); for a NUL in a local path; for `hdfs:///…` without
            `fs.defaultFS`.
    """
    if "\0" in uri and not uri.startswith("hdfs:"):  # HDFS allows NUL
        raise SettingsError("wanted a local path without NUL; got one with NUL")
    if "://" not in uri:
        local_path = uri.removeprefix("file:") if uri.startswith("file:/") else uri
        return "file", "", _normalise_path(os.path.abspath(local_path))
    scheme, rest = uri.split("://", 1)
    authority, _, path = rest.partition("/")
    if scheme not in ("file", "hdfs"):
        raise SettingsError(f"wanted a file:// or hdfs:// URI or a plain path; got {scheme}://…")
    if scheme == "hdfs":
        authority = authority or read_default_authority()
        if not _AUTHORITY.fullmatch(authority):
            raise SettingsError(
                "wanted host:port or a nameservice after hdfs://, without user or password;"
                " got something else (not shown)"
            )
    elif authority:
        raise SettingsError("wanted three slashes in a file URI (file:///…); got two (file://…)")
    return scheme, authority, _normalise_path(path)


def _normalise_path(path: str) -> str:
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def absolute_uri(uri: str) -> str:
    """Return the canonical form of `uri`, as in tables and logs."""
    scheme, authority, path = split_uri(uri)
    return f"{scheme}://{authority}{path}"


@lru_cache(maxsize=16)
def _create_storage(scheme: str, authority: str) -> Storage:
    if scheme == "file":
        return LocalStorage()
    from eagle_spark.io.hdfs import HdfsStorage

    return HdfsStorage(authority)


def resolve(uri: str) -> tuple[Storage, str]:
    """Return the storage of `uri` and the plain path in it."""
    scheme, authority, path = split_uri(uri)
    return _create_storage(scheme, authority), path


def list_folder(uri: str) -> Iterator[FileEntry]:
    """Yield every file below the folder `uri`, except hidden files.

    Raises:
        InputError: when the folder does not exist or cannot be read.
    """
    storage, path = resolve(uri)
    try:
        yield from storage.list_files(path)
    except FileNotFoundError as error:
        raise InputError(f"no such folder: {uri}") from error
    except NotADirectoryError as error:
        raise InputError(f"not a folder: {uri}") from error
    except PermissionError as error:
        raise InputError(f"folder is not readable: {uri}: {error}") from error
    except OSError as error:
        raise InputError(f"folder cannot be listed: {uri}: {error}") from error


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def read_bytes(uri: str, limit: int, reason: Reason = Reason.UNREADABLE) -> bytes:
    """Return the content of a file, at most `limit` + 1 bytes, so that callers detect excess.

    Raises:
        ImageRejectedError: with `reason`, when the file cannot be read.
    """
    storage, path = resolve(uri)
    try:
        return storage.read(path, limit + 1)
    except OSError as error:
        raise ImageRejectedError(reason, f"cannot be read: {error}") from error


@contextmanager
def temporary_folder(uri: str) -> Iterator[str]:
    """Yield a folder that does not exist yet; whatever was written to it is deleted at the end."""
    try:
        yield uri
    finally:
        storage, path = resolve(uri)
        storage.delete(path)
