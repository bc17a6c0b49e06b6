"""HDFS through `hdfs-native`, without a JVM; imported when the first `hdfs://` URI is used.

The client replaces its fsspec wrapper, which parses paths as URLs and drops everything after a `#`
or `?` in a file name.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, cast

import hdfs_native

from eagle_spark.errors import InputError
from eagle_spark.io.files import CHUNK_BYTES, FileEntry, Storage, is_hidden, temp_path
from eagle_spark.io.hadoop_conf import (
    DEFAULT_PORT,
    find_conf_dir,
    read_file_permission,
    read_namenode_addresses,
    read_site_settings,
)

# A restarted NameNode answers within this time; a wrong address is an error after it.
CONNECT_SECONDS = 12
_PROBE_SECONDS = 3
# HDFS assigns new files to a dead DataNode until it detects the death: 40 s of pauses in all,
# besides the duration of the attempts.
_RETRY_PAUSES = (1, 3, 6, 10, 10, 10)  # seconds
_MAX_RETRY_SECONDS = 120  # no further attempt begins after this time

# Java exception of a NameNode -> Python exception, errno of an OSError.
_EXCEPTION_TYPES = {
    "AccessControlException": PermissionError,
    "FileAlreadyExistsException": FileExistsError,
    "ParentNotDirectoryException": NotADirectoryError,
}
_ERRNOS = {
    "DSQuotaExceededException": errno.EDQUOT,
    "NSQuotaExceededException": errno.EDQUOT,
    "QuotaByStorageTypeExceededException": errno.EDQUOT,
    "PathComponentTooLongException": errno.ENAMETOOLONG,
    "InvalidPathException": errno.EINVAL,
    "SafeModeException": errno.EROFS,
}

_log = logging.getLogger(__name__)


class TransientError(OSError):
    """Raised when the same HDFS operation may succeed a little later."""


class HdfsStorage(Storage):
    """HDFS.

    When a DataNode dies, hdfs-native continues to read from another replica, and `_with_retries`
    repeats a write.
    """

    def __init__(self, authority: str) -> None:
        """Connect to the NameNodes of `host`, `host:port` or a nameservice.

        Raises:
            InputError: when no NameNode answers within `CONNECT_SECONDS`.
        """
        self.prefix = f"hdfs://{authority}"
        ids = _wait_for_namenodes(authority)
        # Without white space, and reachable NameNodes first: hdfs-native waits for minutes for a
        # host that is switched off.
        settings = dict(read_site_settings())
        url = self.prefix
        if "" not in ids:
            settings[f"dfs.ha.namenodes.{authority}"] = ",".join(ids)
        elif not re.search(r":\d+$", authority):
            url = f"{url}:{DEFAULT_PORT}"
        try:
            self._client = hdfs_native.Client(url, settings)
        except (RuntimeError, ValueError, OSError) as error:
            cause = translate_error(error)
            raise InputError(f"{self.prefix}: HDFS cannot be reached: {cause}") from error

    def list_files(self, path: str) -> Iterator[FileEntry]:
        """Yield every file below `path`, folder by folder; skip folders that disappear."""
        with _translate_errors():
            if not self._client.get_file_info(path).isdir:
                raise NotADirectoryError(path)
        folders = [path]
        while folders:
            folder = folders.pop()
            ignored_errors = () if folder == path else (FileNotFoundError,)
            # A recursive listing raises for any folder that disappears.
            with _translate_errors(), suppress(*ignored_errors):
                for status in self._client.list_status(folder, False):
                    if is_hidden(status.path.rsplit("/", 1)[-1]):
                        continue
                    if status.isdir:
                        folders.append(status.path)
                    else:
                        yield FileEntry(
                            self.prefix + status.path, status.length, status.modification_time
                        )

    def stat(self, path: str) -> FileEntry:
        with _translate_errors():
            status = self._client.get_file_info(path)
        if status.isdir:
            raise IsADirectoryError(path)
        return FileEntry(self.prefix + path, status.length, status.modification_time)

    def open(self, path: str) -> BinaryIO:
        with _translate_errors():
            return cast(BinaryIO, _Reader(self._client.inner.read(path)))

    def read(self, path: str, limit: int) -> bytes:
        with self.open(path) as stream:
            return stream.read(limit)

    def put(self, path: str, open_source: Callable[[], IO[bytes]]) -> None:
        _with_retries(lambda: self._put_once(path, open_source), f"{self.prefix}{path}")

    def _put_once(self, path: str, open_source: Callable[[], IO[bytes]]) -> None:
        temp = temp_path(path)
        with open_source() as stream:
            try:
                self._write(temp, stream, overwrite=False)
                with _translate_errors():
                    self._client.rename(temp, path, True)
            except BaseException:
                with suppress(Exception):
                    self._client.delete(temp)
                raise

    def create(self, path: str, data: bytes) -> None:
        _with_retries(lambda: self._create_once(path, data), f"{self.prefix}{path}")

    def _create_once(self, path: str, data: bytes) -> None:
        try:
            # A failed attempt may have left a part that could not be deleted either.
            self._write(path, io.BytesIO(data), overwrite=True)
        except BaseException:
            with suppress(Exception):
                self._client.delete(path)
            raise

    def _write(self, path: str, stream: IO[bytes], overwrite: bool) -> None:
        """Write a stream to a file of HDFS; a failure leaves a part of it."""
        permission = read_file_permission()
        options = hdfs_native.WriteOptions(permission=permission, overwrite=overwrite)
        with _translate_errors():
            # The inner writer, because the finalizer of the stream around it closes it after a
            # failure, and closing never returns when the DataNode is dead.
            sink = self._client.inner.create(path, options)
        while block := stream.read(CHUNK_BYTES):
            with _translate_errors():
                sink.write(block)
        with _translate_errors():
            sink.close()

    def exists(self, path: str) -> bool:
        with _translate_errors():
            try:
                self._client.get_file_info(path)
            except FileNotFoundError:
                return False
            return True

    def rename(self, source: str, target: str) -> None:
        # The error of HDFS itself differs between a file and a folder.
        if self.exists(target):
            raise FileExistsError(errno.EEXIST, "the target exists", target)
        with _translate_errors():
            self._client.rename(source, target, False)

    def delete(self, path: str) -> None:
        with _translate_errors(), suppress(FileNotFoundError):
            self._client.delete(path, True)


class _Reader(hdfs_native.FileReader):  # type: ignore[misc]
    """An open file that raises OSError."""

    def read(self, size: int = -1) -> bytes:
        with _translate_errors():
            return bytes(super().read(size))

    def readinto(self, buffer: bytearray | memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, at most the end of the file: hdfs-native fails beyond it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: len(self)}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "position before the beginning of the file")
        target: int = min(start + offset, len(self))
        with _translate_errors():
            super().seek(target)
        return target


def _wait_for_namenodes(authority: str) -> list[str]:
    """Return the ids of the NameNodes, reachable ones first; raise InputError if none answers."""
    addresses = read_namenode_addresses(authority)
    deadline = time.monotonic() + CONNECT_SECONDS
    is_waiting = False
    while True:
        round_started = time.monotonic()
        failures: dict[str, OSError] = {}
        for name, address in addresses.items():
            try:
                _probe_namenode(address)
            except OSError as error:
                failures[name] = error
        if len(failures) < len(addresses):
            return sorted(addresses, key=lambda name: name in failures)
        causes = "; ".join(
            f"{host}:{port}: {failures[name].strerror or failures[name]}"
            for name, (host, port) in addresses.items()
        )
        is_unknown = all(isinstance(error, socket.gaierror) for error in failures.values())
        now = time.monotonic()
        if is_unknown or now + (now - round_started) > deadline:  # silent hosts time out each round
            break
        if not is_waiting:
            _log.warning("hdfs://%s: retrying for %d s: %s", authority, CONNECT_SECONDS, causes)
            is_waiting = True
        time.sleep(1)
    raise InputError(
        f"hdfs://{authority}: HDFS cannot be reached:"
        f" {causes or 'a nameservice without addresses'}."
        f" Is the NameNode up, and are host and port (or the nameservice in hdfs-site.xml of"
        f" HADOOP_CONF_DIR, now {find_conf_dir() or 'not set'}) right?"
    )


def _probe_namenode(address: tuple[str, int]) -> None:
    """Raise OSError unless a Hadoop RPC server answers; the probe needs no credentials."""
    try:
        with socket.create_connection(address, _PROBE_SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if b"Hadoop IPC port" not in connection.recv(4096):
                raise OSError("wanted the RPC port of a NameNode; got another service")
    except UnicodeError as error:
        raise socket.gaierror(f"not a host name: {error}") from error


def _with_retries(action: Callable[[], None], uri: str) -> None:
    """Run `action`; repeat it after each of `_RETRY_PAUSES` while it raises TransientError.

    Raises:
        OSError: the error of the last attempt; a permanent error is raised at once.
    """
    started = time.monotonic()
    for pause in _RETRY_PAUSES:
        try:
            return action()
        except TransientError as error:
            if time.monotonic() - started > _MAX_RETRY_SECONDS:
                raise
            _log.warning("%s: retrying in %d s: %s", uri, pause, str(error))
        time.sleep(pause)
    return action()


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise errors of `hdfs-native` as OSErrors of one line."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise translate_error(error) from error


def translate_error(error: Exception) -> OSError:
    """Convert an error of `hdfs-native` to an OSError of one line, without the Java stack trace."""
    first_line = re.split(r"(?:\\n|\n)(?:\\t|\t)", str(error))[0]
    text = " ".join(first_line.replace("\\n", " ").replace('\\"', '"').split())
    if isinstance(error, OSError):
        return TransientError(f"HDFS: {text}") if type(error) is OSError else type(error)(text)
    match = re.fullmatch(r'(\w+)\("(.*?)(?:"\))?', text)
    kind, content = match.groups() if match else ("", text)
    if kind in ("DataTransferError", "OperationFailed"):
        return TransientError(f"HDFS: {content}")
    if kind not in ("RPCError", "FatalRPCError"):
        return OSError(text)
    java_class, _, message = content.partition('", "')
    name = re.split(r"[.$]", java_class)[-1]
    if (
        name in ("RetriableException", "StandbyException", "NotReplicatedYetException")
        or (name == "SafeModeException" and "turned off automatically" in message)
        or "could only be written to" in message
    ):
        return TransientError(message)
    if "must both be directories" in message:
        return IsADirectoryError(errno.EISDIR, "a folder has this name")
    if number := _ERRNOS.get(name):
        return OSError(number, message)
    return _EXCEPTION_TYPES.get(name, OSError)(message)
