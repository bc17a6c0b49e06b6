"""Signs of life: every rank tells its steps to the staging folder, and the driver watches them.

A stopped process writes nothing more; a rank in a collective that never ends writes the same step
again and again. Both are noticed within `stall` seconds (`STALL_SECONDS`, and a beat or two).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from eagle_spark.io import join, locate

STALL_SECONDS = 120.0
START_FACTOR = 3  # before its first step a rank loads TensorFlow, builds the network, traces graphs
BEAT_SECONDS = 2.0
GIVEN_UP = 75  # exit code of a rank whose attempt the driver gave up
MAX_BEAT_BYTES = 4096


def beat_seconds(stall: float) -> float:
    """Return how often a rank writes and the driver looks."""
    return min(BEAT_SECONDS, stall / 4)


def _running(staging: str) -> str:
    return join(staging, "running")


def _beat_file(staging: str, rank: int) -> str:
    return join(staging, f"heartbeat-{rank}.json")


class Pulse:
    """One rank's side: writes its step from a thread of its own.

    The thread also ends the whole process, even one that hangs inside TensorFlow, once the driver
    has given the attempt up or the process that started this one is gone.
    """

    def __init__(self, staging: str, rank: int, stall: float) -> None:
        self._staging, self._rank = staging, rank
        self._interval = beat_seconds(stall)
        self._beats = self._work = self._step = 0
        self._loss: float | None = None
        self._ended = Event()
        self._parent = os.getppid()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def step(self, step: int | None = None, loss: float | None = None) -> None:
        """Count one more piece of work done; for a training step its number and the loss."""
        self._work += 1
        if step is not None:
            self._step, self._loss = step, loss

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._interval)

    def _run(self) -> None:
        storage, running = locate(_running(self._staging))
        _, path = locate(_beat_file(self._staging, self._rank))
        while not self._ended.is_set():
            with suppress(OSError):  # the storage may be away for a moment
                if os.getppid() != self._parent or not storage.exists(running):
                    os._exit(GIVEN_UP)
                self._beats += 1
                storage.write(path, self._beat())
            self._ended.wait(self._interval)

    def _beat(self) -> bytes:
        beat = {
            "beat": self._beats,
            "work": self._work,
            "step": self._step,
            "loss": self._loss,
            "pid": os.getpid(),
            "host": os.uname().nodename,
        }
        return json.dumps(beat).encode()


@dataclass
class _Seen:
    """What was last heard of a rank, and when by the driver's clock."""

    beat: int
    work: int
    step: int
    beat_at: float
    work_at: float
    process: str = "its process"


class Liveness:
    """Who has been still for too long; times are seconds of any one clock."""

    def __init__(self, ranks: int, stall: float, now: float) -> None:
        self._stall = stall
        self._seen = [_Seen(0, 0, 0, now, now) for _ in range(ranks)]

    def hear(self, rank: int, beat: dict[str, Any], now: float) -> None:
        """Take in what a rank wrote."""
        seen = self._seen[rank]
        if beat["beat"] != seen.beat:
            seen.beat, seen.beat_at = beat["beat"], now
        if beat["work"] != seen.work:
            seen.work, seen.work_at = beat["work"], now
        seen.step = beat["step"]
        seen.process = f"process {beat['pid']} on {beat['host']}"

    def complaint(self, now: float) -> str | None:
        """Return what is wrong, if anything."""
        silent, stuck = [], []
        for rank, seen in enumerate(self._seen):
            name = f"rank {rank} ({seen.process})"
            patience = self._stall * (1 if seen.step else START_FACTOR)
            if now - seen.beat_at > (self._stall if seen.beat else patience):
                silent.append(f"{name} has given no sign of life for {now - seen.beat_at:.0f} s")
            if now - seen.work_at > patience:
                stuck.append(f"{name} has made no step for {now - seen.work_at:.0f} s")
        return "; ".join(silent or stuck) or None


class Watch:
    """The driver's side: while it is open, ranks may run.

    `cancel` is called when one is still, `told` with every new beat of rank 0.

    Attributes:
        complaint: why `cancel` was called, or None.
    """

    def __init__(
        self,
        staging: str,
        ranks: int,
        stall: float,
        cancel: Callable[[], None],
        told: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self._staging, self._ranks, self._stall = staging, ranks, stall
        self._cancel, self._told = cancel, told
        self._ended = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)
        self.complaint: str | None = None

    def __enter__(self) -> Watch:
        storage, running = locate(_running(self._staging))
        storage.write(running, b"")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)
        with suppress(OSError):
            storage, running = locate(_running(self._staging))
            storage.delete(running)

    def _run(self) -> None:
        liveness = Liveness(self._ranks, self._stall, time.monotonic())
        while not self._ended.wait(beat_seconds(self._stall)):
            for rank in range(self._ranks):
                storage, path = locate(_beat_file(self._staging, rank))
                with suppress(OSError, ValueError):
                    beat = json.loads(storage.read(path, MAX_BEAT_BYTES))
                    liveness.hear(rank, beat, time.monotonic())
                    if rank == 0:
                        self._told(beat)
            self.complaint = self.complaint or liveness.complaint(time.monotonic())
            if self.complaint:
                self._cancel()
