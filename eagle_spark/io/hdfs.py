"""HDFS by `hdfs-native`, which needs no JVM; loaded only where an `hdfs://` URI is used.

The client itself is used, not its fsspec wrapper, because the wrapper parses paths as URLs and
loses everything behind a `#` or `?` in a file name.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, BinaryIO, cast

import hdfs_native

from eagle_spark.errors import InputError
from eagle_spark.io.files import CHUNK, FileEntry, Storage, is_hidden, partial_of
from eagle_spark.io.hadoop_conf import (
    DEFAULT_PORT,
    conf_dir,
    file_permission,
    namenodes,
    site_settings,
)

# A NameNode that is restarted is back within this time; a wrong address is told after it.
REACH_SECONDS = 12
_ANSWER_SECONDS = 3
# HDFS names a dead DataNode for new files until it notices: 40 s in all, beside the attempts' own.
_PAUSES = (1, 3, 6, 10, 10, 10)  # seconds
_PATIENCE = 120  # seconds after which no further attempt begins

# What a NameNode raises, and what that is here.
_KINDS = {
    "AccessControlException": PermissionError,
    "FileAlreadyExistsException": FileExistsError,
    "ParentNotDirectoryException": NotADirectoryError,
}
_NUMBERS = {
    "DSQuotaExceededException": errno.EDQUOT,
    "NSQuotaExceededException": errno.EDQUOT,
    "QuotaByStorageTypeExceededException": errno.EDQUOT,
    "PathComponentTooLongException": errno.ENAMETOOLONG,
    "InvalidPathException": errno.EINVAL,
    "SafeModeException": errno.EROFS,
}

_log = logging.getLogger(__name__)


class PassingError(OSError):
    """Raised when HDFS may well do the same thing a little later."""


class HdfsStorage(Storage):
    """HDFS. Reading goes on with another replica by itself when a DataNode dies; writing is tried
    again, see `_patiently`."""

    def __init__(self, authority: str) -> None:
        """Connect to the NameNodes of `host`, `host:port` or a nameservice.

        Raises:
            InputError: when none of them answers within `REACH_SECONDS`.
        """
        self.prefix = f"hdfs://{authority}"
        ids = _reach(authority)
        # Without white space; and hdfs-native would wait for minutes for a host that is switched
        # off: those that answer come first.
        settings = dict(site_settings())
        url = self.prefix
        if "" not in ids:
            settings[f"dfs.ha.namenodes.{authority}"] = ",".join(ids)
        elif not re.search(r":\d+$", authority):
            url = f"{url}:{DEFAULT_PORT}"
        try:
            self._client = hdfs_native.Client(url, settings)
        except (RuntimeError, ValueError, OSError) as error:
            line = translated(error)
            raise InputError(f"{self.prefix}: HDFS cannot be reached: {line}") from error

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`, folder by folder; a folder that has gone is left out."""
        with _errors():
            if not self._client.get_file_info(path).isdir:
                raise NotADirectoryError(path)
        folders = [path]
        while folders:
            folder = folders.pop()
            gone = () if folder == path else (FileNotFoundError,)
            # Not recursive, which raises for any folder that has gone.
            with _errors(), suppress(*gone):
                for status in self._client.list_status(folder, False):
                    if is_hidden(status.path.rsplit("/", 1)[-1]):
                        continue
                    if status.isdir:
                        folders.append(status.path)
                    else:
                        yield FileEntry(
                            self.prefix + status.path, status.length, status.modification_time
                        )

    def find(self, path: str) -> FileEntry:
        with _errors():
            status = self._client.get_file_info(path)
        if status.isdir:
            raise IsADirectoryError(path)
        return FileEntry(self.prefix + path, status.length, status.modification_time)

    def open(self, path: str) -> BinaryIO:
        with _errors():
            return cast(BinaryIO, _Reader(self._client.inner.read(path)))

    def read(self, path: str, limit: int) -> bytes:
        with self.open(path) as stream:
            return stream.read(limit)

    def put(self, path: str, source: Callable[[], IO[bytes]]) -> None:
        _patiently(lambda: self._put(path, source), f"{self.prefix}{path}")

    def _put(self, path: str, source: Callable[[], IO[bytes]]) -> None:
        partial = partial_of(path)
        options = hdfs_native.WriteOptions(permission=file_permission())
        with source() as stream:
            try:
                with _errors():
                    # Not the stream around it, whose finalizer would close it after a failure:
                    # that waits for ever for the DataNode that is gone.
                    sink = self._client.inner.create(partial, options)
                while block := stream.read(CHUNK):
                    with _errors():
                        sink.write(block)
                with _errors():
                    sink.close()
                    self._client.rename(partial, path, True)
            except BaseException:
                with suppress(Exception):
                    self._client.delete(partial)
                raise

    def exists(self, path: str) -> bool:
        with _errors():
            try:
                self._client.get_file_info(path)
            except FileNotFoundError:
                return False
            return True

    def rename(self, source: str, target: str) -> None:
        # HDFS says so itself, but in other words for a file and a folder.
        if self.exists(target):
            raise FileExistsError(errno.EEXIST, "something is there already", target)
        with _errors():
            self._client.rename(source, target, False)

    def delete(self, path: str) -> None:
        with _errors(), suppress(FileNotFoundError):
            self._client.delete(path, True)


class _Reader(hdfs_native.FileReader):  # type: ignore[misc]
    """An open file whose errors are OSErrors."""

    def read(self, size: int = -1) -> bytes:
        with _errors():
            return bytes(super().read(size))

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; beyond the end, which hdfs-native does not bear, it is the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: len(self)}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning of the file")
        target: int = min(start + offset, len(self))
        with _errors():
            super().seek(target)
        return target


def _reach(authority: str) -> list[str]:
    """Return the ids of the NameNodes, those that answer first; raise InputError if none does."""
    addresses = namenodes(authority)
    deadline = time.monotonic() + REACH_SECONDS
    waiting = False
    while True:
        begun = time.monotonic()
        failed: dict[str, OSError] = {}
        for one, address in addresses.items():
            try:
                _greet(address)
            except OSError as error:
                failed[one] = error
        if len(failed) < len(addresses):
            return sorted(addresses, key=lambda one: one in failed)
        told = "; ".join(
            f"{host}:{port}: {failed[one].strerror or failed[one]}"
            for one, (host, port) in addresses.items()
        )
        unknown = all(isinstance(error, socket.gaierror) for error in failed.values())
        now = time.monotonic()
        if unknown or now + (now - begun) > deadline:  # silent hosts take their time each round
            break
        if not waiting:
            _log.warning("hdfs://%s: trying for %d s: %s", authority, REACH_SECONDS, told)
            waiting = True
        time.sleep(1)
    raise InputError(
        f"hdfs://{authority}: HDFS cannot be reached: {told or 'a nameservice without addresses'}."
        f" Is the NameNode up, and are host and port (or the nameservice in hdfs-site.xml of"
        f" HADOOP_CONF_DIR, now {conf_dir() or 'not set'}) right?"
    )


def _greet(address: tuple[str, int]) -> None:
    """Raise OSError unless a Hadoop RPC server answers, which needs no credentials."""
    try:
        with socket.create_connection(address, _ANSWER_SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if b"Hadoop IPC port" not in connection.recv(4096):
                raise OSError("what answers is no NameNode's RPC port")
    except UnicodeError as error:
        raise socket.gaierror(f"no name of a host: {error}") from error


def _patiently(action: Callable[[], None], what: str) -> None:
    """Do `action`, again after each of `_PAUSES` when a DataNode has just died or HDFS starts.

    Raises:
        OSError: what the last attempt raised; at once when it is of a kind that lasts.
    """
    started = time.monotonic()
    for pause in _PAUSES:
        try:
            return action()
        except PassingError as error:
            if time.monotonic() - started > _PATIENCE:
                raise
            _log.warning("%s: once more in %d s: %s", what, pause, str(error))
        time.sleep(pause)
    return action()


@contextmanager
def _errors() -> Iterator[None]:
    """Turn whatever `hdfs-native` raises into OSErrors of one line."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise translated(error) from error


def translated(error: Exception) -> OSError:
    """Return what `hdfs-native` raised as an OSError of one line, without the NameNode's stack."""
    first = re.split(r"(?:\\n|\n)(?:\\t|\t)", str(error))[0]
    text = " ".join(first.replace("\\n", " ").replace('\\"', '"').split())
    if isinstance(error, OSError):
        return PassingError(f"HDFS: {text}") if type(error) is OSError else type(error)(text)
    found = re.fullmatch(r'(\w+)\("(.*?)(?:"\))?', text)
    kind, inside = found.groups() if found else ("", text)
    if kind in ("DataTransferError", "OperationFailed"):
        return PassingError(f"HDFS: {inside}")
    if kind not in ("RPCError", "FatalRPCError"):
        return OSError(text)
    java, _, message = inside.partition('", "')
    name = re.split(r"[.$]", java)[-1]
    if (
        name in ("RetriableException", "StandbyException", "NotReplicatedYetException")
        or (name == "SafeModeException" and "turned off automatically" in message)
        or "could only be written to" in message
    ):
        return PassingError(message)
    if "must both be directories" in message:
        return IsADirectoryError(errno.EISDIR, "there is a folder of this name")
    if number := _NUMBERS.get(name):
        return OSError(number, message)
    return _KINDS.get(name, OSError)(message)
