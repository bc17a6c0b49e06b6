"""Files by URI: the local disk and HDFS behind one small set of verbs.

A URI is a plain path, `file:///…` or `hdfs://…`; `hdfs:///…` means the `fs.defaultFS` of the
`core-site.xml` in `HADOOP_CONF_DIR`. Nothing heavy is loaded before an HDFS is used.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from functools import lru_cache

from eagle_spark.errors import ImageRejected, InputError, Reason, SettingsError
from eagle_spark.io.files import FileEntry as FileEntry
from eagle_spark.io.files import Storage as Storage
from eagle_spark.io.files import is_hidden as is_hidden
from eagle_spark.io.hadoop_conf import default_authority
from eagle_spark.io.local import LocalStorage as LocalStorage

# host, host:port, [IPv6]:port or a nameservice; nothing else, so that no password gets any further.
_AUTHORITY = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)


def printable(name: str) -> str:
    """Return `name` in a form that tables can store; a name that is no UTF-8 holds surrogates."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def split_uri(uri: str) -> tuple[str, str, str]:
    """Return (scheme, authority, absolute path) of a URI or plain path.

    Raises:
        SettingsError: for a scheme that is neither `file` nor `hdfs`; for a user or password in the
            URI, which is not repeated; for a NUL in a path on this machine; for `hdfs:///…` where
            no `fs.defaultFS` says which.
    """
    if "\0" in uri and not uri.startswith("hdfs:"):  # there it is a name like any other
        raise SettingsError("a path on this machine holds no NUL")
    if "://" not in uri:
        plain = uri.removeprefix("file:") if uri.startswith("file:/") else uri
        return "file", "", _plain(os.path.abspath(plain))
    scheme, rest = uri.split("://", 1)
    authority, _, path = rest.partition("/")
    if scheme not in ("file", "hdfs"):
        raise SettingsError(
            f"a URI begins with file:// or hdfs://, or is a plain path; got {scheme}://…"
        )
    if scheme == "hdfs":
        authority = authority or default_authority()
        if not _AUTHORITY.fullmatch(authority):
            raise SettingsError(
                "hdfs:// is followed by host:port or a nameservice, never by a user or password;"
                " got something else (not shown)"
            )
    elif authority:
        raise SettingsError("file:// URIs have three slashes (file:///…); got two (file://…)")
    return scheme, authority, _plain(path)


def _plain(path: str) -> str:
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def absolute_uri(uri: str) -> str:
    """Return the one spelling of `uri` that tables and logs use."""
    scheme, authority, path = split_uri(uri)
    return f"{scheme}://{authority}{path}"


@lru_cache(maxsize=16)
def _storage(scheme: str, authority: str) -> Storage:
    if scheme == "file":
        return LocalStorage()
    from eagle_spark.io.hdfs import HdfsStorage

    return HdfsStorage(authority)


def locate(uri: str) -> tuple[Storage, str]:
    """Return the file system of `uri` and the plain path in it."""
    scheme, authority, path = split_uri(uri)
    return _storage(scheme, authority), path


def list_folder(uri: str) -> Iterator[FileEntry]:
    """Yield every file below the folder `uri`, hidden ones left out.

    Raises:
        InputError: when there is no such folder, or it may not be read.
    """
    storage, path = locate(uri)
    try:
        yield from storage.list_files(path)
    except FileNotFoundError as error:
        raise InputError(f"no such folder: {uri}") from error
    except NotADirectoryError as error:
        raise InputError(f"not a folder: {uri}") from error
    except PermissionError as error:
        raise InputError(f"folder may not be read: {uri}: {error}") from error
    except OSError as error:
        raise InputError(f"folder cannot be listed: {uri}: {error}") from error


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def read_image(uri: str, limit: int, reason: Reason = Reason.UNREADABLE) -> bytes:
    """Return the bytes of one file, at most `limit` + 1 of them, so that excess shows.

    Raises:
        ImageRejected: with `reason`, when the file cannot be read.
    """
    storage, path = locate(uri)
    try:
        return storage.read(path, limit + 1)
    except OSError as error:
        raise ImageRejected(reason, f"cannot be read: {error}") from error
