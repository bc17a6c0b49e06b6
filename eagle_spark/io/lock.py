"""One run at a time does a piece of work: a file that the running one keeps changing.

A run that was killed leaves its file behind, unchanged. Where its process could be seen from here
and is not there, that is known at once; else another run has to wait to see. No clock of another
machine is asked.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from eagle_spark.errors import EagleError
from eagle_spark.io import locate

BEAT_SECONDS = 5.0
# A file that has not changed for so long is a killed run's. On HDFS a beat may be late: until a
# dead DataNode is noticed, writing is tried again for a while.
DEAD_SECONDS, DEAD_SECONDS_ON_HDFS = 20.0, 60.0
LOOKS = 6  # times as long at most, where the file cannot be read
MAX_BYTES = 4096
_UNKNOWN = {"run_id": "", "host": "an unknown host", "pid": 0}


class AlreadyRunning(EagleError):
    """Raised when another run does the same work at this moment."""


class Lease:
    """What a run holds."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id
        self._beats, self._taken_by = 0, ""

    def check(self) -> None:
        """Raise AlreadyRunning if another run has taken the file in the meantime."""
        self._look()
        if self._taken_by:
            raise AlreadyRunning(
                f"another run does the same at this moment: {self._taken_by}; this one ends"
            )

    def tell(self) -> None:
        """Write the next beat."""
        storage, path = locate(self._uri)
        body = {
            "run_id": self._run_id,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "pids": _pids(),
            "beat": self._beats,
        }
        self._beats += 1
        storage.write(path, json.dumps(body).encode())

    def keep(self) -> None:
        """Write the next beat, unless another run has taken the file."""
        with suppress(OSError):  # the storage may be away for a moment
            self._look()
            if not self._taken_by:
                self.tell()

    def end(self) -> None:
        with suppress(OSError):
            self._look()
            if not self._taken_by:
                storage, path = locate(self._uri)
                storage.delete(path)

    def _look(self) -> None:
        found = _holder(self._uri)
        if found and found["run_id"] not in ("", self._run_id):
            self._taken_by = found["run_id"]


@contextmanager
def lease(uri: str, run_id: str, dead: float | None = None) -> Iterator[Lease]:
    """Hold the file `uri` for as long as the block lasts.

    Of two runs that begin at the same moment the one that wrote first notices at its next `check`.

    Args:
        dead: seconds without a beat after which a holder is taken for dead.

    Raises:
        AlreadyRunning: when another run holds it and is alive.
    """
    if dead is None:
        dead = DEAD_SECONDS_ON_HDFS if uri.startswith("hdfs:") else DEAD_SECONDS
    _wait(uri, dead)
    held, ended = Lease(uri, run_id), Event()

    def keep() -> None:
        while not ended.wait(min(BEAT_SECONDS, dead / 4)):
            held.keep()

    held.tell()
    keeper = Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield held
    finally:
        ended.set()
        keeper.join(timeout=30)
        held.end()


def _wait(uri: str, dead: float) -> None:
    """Return once nobody holds the file; a look at it that fails says nothing of its holder."""
    holder = _holder(uri)
    if not holder or _is_gone(holder):
        return
    told = _told(holder)
    print(f"looking for {dead:.0f} s whether {told} still runs", file=sys.stderr, flush=True)
    pause, quiet, limit = min(1.0, dead / 4), 0.0, time.monotonic() + LOOKS * dead
    while holder and quiet < dead and time.monotonic() < limit:
        time.sleep(pause)
        now = _holder(uri)
        if now and not now["run_id"]:
            continue
        if now and holder["run_id"] and now != holder:
            raise AlreadyRunning(
                f"another run does the same at this moment: {_told(now)}; "
                "wait for its end, or end it, then run this job again"
            )
        quiet = quiet + pause if now == holder else 0.0
        holder = now


def _told(holder: dict[str, Any]) -> str:
    return f"{holder['run_id'] or 'another run'} on {holder['host']}, process {holder['pid']}"


def _pids() -> str:
    """Name what process ids are unique in: this start of this machine, and the container."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder's process would be seen from here, and is not there."""
    pids = _pids()
    if pids == "" or (holder.get("pids"), holder["host"]) != (pids, os.uname().nodename):
        return False
    try:
        os.kill(holder["pid"], 0)  # `/proc` may hide the processes of others
    except OSError as error:  # another one: it is there, and not ours to signal
        return isinstance(error, ProcessLookupError)
    return False


def _holder(uri: str) -> dict[str, Any] | None:
    """Return what the run that holds the file told last; None where there is none.

    Its `run_id` is empty where the file cannot be read.
    """
    storage, path = locate(uri)
    try:
        return dict(_UNKNOWN, **json.loads(storage.read(path, MAX_BYTES)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):  # just being replaced, or out of reach for a moment
        return dict(_UNKNOWN)
