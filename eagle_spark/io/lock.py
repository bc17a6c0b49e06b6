"""Locks between runs: the active run renews a lease file.

A killed run leaves its file unchanged. The next run takes over at once when the process of the
holder is visible on this machine and has ended; otherwise it waits until the file is stale. Clocks
of other machines are not compared.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TypedDict, cast

from eagle_spark.errors import EagleError
from eagle_spark.io import resolve

HEARTBEAT_SECONDS = 5.0
# A file that has not changed for so long belongs to a killed run. On HDFS a heartbeat may be late:
# writing is retried until HDFS detects a dead DataNode.
STALE_SECONDS, STALE_SECONDS_ON_HDFS = 20.0, 60.0
MAX_READ_RETRIES = 6  # how many times the stale time to retry reading an unreadable file
MAX_BYTES = 4096

_log = logging.getLogger(__name__)


class _Holder(TypedDict, total=False):
    """Content of a lease file; `pids` names the space in which `pid` is unique."""

    run_id: str
    host: str
    pid: int
    pids: str
    beat: int


_UNKNOWN_HOLDER = _Holder(run_id="", host="an unknown host", pid=0)


class AlreadyRunningError(EagleError):
    """Raised when another run of the same job is active."""


class Lease:
    """A lease file that this run holds."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id
        self._heartbeats, self._other_run_id = 0, ""

    def check(self) -> None:
        """Raise AlreadyRunningError if another run has taken over the file."""
        self._read_other_run_id()
        if self._other_run_id:
            raise AlreadyRunningError(
                f"the same job is already running: {self._other_run_id}; this run stops"
            )

    def write_heartbeat(self) -> None:
        """Write the file with the next heartbeat count."""
        storage, path = resolve(self._uri)
        holder = _Holder(
            run_id=self._run_id,
            host=os.uname().nodename,
            pid=os.getpid(),
            pids=_read_pid_namespace(),
            beat=self._heartbeats,
        )
        self._heartbeats += 1
        storage.write(path, json.dumps(holder).encode())

    def renew(self) -> None:
        """Write the next heartbeat, unless another run has taken over the file."""
        with suppress(OSError):  # the storage may be unavailable for a moment
            self._read_other_run_id()
            if not self._other_run_id:
                self.write_heartbeat()

    def release(self) -> None:
        """Delete the file, unless another run has taken it over."""
        with suppress(OSError):
            self._read_other_run_id()
            if not self._other_run_id:
                storage, path = resolve(self._uri)
                storage.delete(path)

    def _read_other_run_id(self) -> None:
        holder = _read_holder(self._uri)
        if holder and holder["run_id"] not in ("", self._run_id):
            self._other_run_id = holder["run_id"]


@contextmanager
def lease(uri: str, run_id: str, stale_seconds: float | None = None) -> Iterator[Lease]:
    """Hold the lease file `uri` for the duration of the block.

    When two runs start at the same time, the next `check` of the first writer fails.

    Args:
        stale_seconds: a holder without a heartbeat for so long counts as killed.

    Raises:
        AlreadyRunningError: when an active run holds the file.
    """
    if stale_seconds is None:
        stale_seconds = STALE_SECONDS_ON_HDFS if uri.startswith("hdfs:") else STALE_SECONDS
    interval = min(HEARTBEAT_SECONDS, stale_seconds / 4)
    _wait_for_holder(uri, stale_seconds)
    held_lease, ended = Lease(uri, run_id), Event()

    def renew_until_ended() -> None:
        while not ended.wait(interval):
            held_lease.renew()

    held_lease.write_heartbeat()
    renewer = Thread(target=renew_until_ended, name="lease", daemon=True)
    renewer.start()
    try:
        yield held_lease
    finally:
        ended.set()
        renewer.join(timeout=30)
        held_lease.release()


def _wait_for_holder(uri: str, stale_seconds: float) -> None:
    """Return when no active run holds the file; failed reads count neither way."""
    holder = _read_holder(uri)
    if not holder or _has_ended(holder):
        return
    _log.info("checking for %.0f s whether %s still runs", stale_seconds, _describe_holder(holder))
    pause, unchanged_seconds = min(1.0, stale_seconds / 4), 0.0
    deadline = time.monotonic() + MAX_READ_RETRIES * stale_seconds
    while holder and unchanged_seconds < stale_seconds and time.monotonic() < deadline:
        time.sleep(pause)
        current = _read_holder(uri)
        if current and not current["run_id"]:
            continue
        if current and holder["run_id"] and current != holder:
            raise AlreadyRunningError(
                f"the same job is already running: {_describe_holder(current)}; "
                "wait until it ends, or stop it, then run this job again"
            )
        unchanged_seconds = unchanged_seconds + pause if current == holder else 0.0
        holder = current


def _describe_holder(holder: _Holder) -> str:
    return f"{holder['run_id'] or 'another run'} on {holder['host']}, process {holder['pid']}"


def _read_pid_namespace() -> str:
    """Return the space in which process ids are unique: boot id and PID namespace."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _has_ended(holder: _Holder) -> bool:
    """Return whether the process of the holder is visible on this machine and has ended."""
    namespace = _read_pid_namespace()
    if namespace == "" or (holder.get("pids"), holder["host"]) != (namespace, os.uname().nodename):
        return False
    try:
        os.kill(holder["pid"], 0)  # `/proc` may hide the processes of other users
    except OSError as error:  # PermissionError: a running process of another user
        return isinstance(error, ProcessLookupError)
    return False


def _read_holder(uri: str) -> _Holder | None:
    """Return the last heartbeat in the file; None without a file.

    `run_id` is empty when the file cannot be read.
    """
    storage, path = resolve(uri)
    try:
        return cast(_Holder, dict(_UNKNOWN_HOLDER, **json.loads(storage.read(path, MAX_BYTES))))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):  # being replaced, or unavailable for a moment
        return _UNKNOWN_HOLDER.copy()
