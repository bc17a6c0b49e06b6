"""One run at a time over a folder with a model: a file that the running one keeps changing.

A run that was killed leaves its file behind, unchanged; only then another run has to wait to see.
No clock of another machine is asked.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

from eagle_spark.errors import EagleError
from eagle_spark.storage import locate

BEAT_SECONDS = 5.0
DEAD_SECONDS = 20.0  # a file that has not changed for so long is a killed run's
MAX_BYTES = 4096


class AlreadyRunning(EagleError):
    """Raised when another run does the same work at this moment."""


@contextmanager
def lease(uri: str, run_id: str, dead: float = DEAD_SECONDS) -> Iterator[None]:
    """Hold the file `uri` for as long as the block lasts.

    Raises:
        AlreadyRunning: when another run holds it and is alive, or takes it at the same moment.
    """
    holder = _holder(uri)
    if holder:
        told = f"{holder['run_id']} on {holder['host']}, process {holder['pid']}"
        print(f"looking for {dead:.0f} s whether {told} still runs", file=sys.stderr, flush=True)
        deadline = time.monotonic() + dead
        while time.monotonic() < deadline and holder:
            time.sleep(min(1.0, dead / 4))
            if (now := _holder(uri)) and now != holder:
                raise AlreadyRunning(
                    f"another run does the same at this moment: {told}; "
                    "wait for its end, or end it, then run this job again"
                )
            holder = now
    beats, ended = 0, Event()
    storage, path = locate(uri)

    def tell() -> None:
        body = {"run_id": run_id, "host": os.uname().nodename, "pid": os.getpid(), "beat": beats}
        storage.write(path, json.dumps(body).encode())

    def keep() -> None:
        nonlocal beats
        while not ended.wait(min(BEAT_SECONDS, dead / 4)):
            beats += 1
            with suppress(OSError):  # the storage may be away for a moment
                tell()

    tell()
    keeper = Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        found = _holder(uri)
        if found and found["run_id"] != run_id:
            raise AlreadyRunning(f"another run began at the same moment: {found['run_id']}")
        yield
    finally:
        ended.set()
        keeper.join(timeout=30)
        found = _holder(uri)
        if found and found["run_id"] == run_id:
            storage.delete(path)


def _holder(uri: str) -> dict[str, Any] | None:
    """Return what the run that holds the file told last; None where there is none."""
    storage, path = locate(uri)
    try:
        found = json.loads(storage.read(path, MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # just being replaced
        return {"run_id": "a run", "host": "an unknown host", "pid": 0}
    return found if isinstance(found, dict) else None
