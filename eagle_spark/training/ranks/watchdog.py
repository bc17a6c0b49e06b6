"""Heartbeats: every rank writes its step to the staging folder, and the driver checks the files.

A stopped process writes nothing more; a rank in a collective that never ends repeats the same step.
The driver detects both within `stall` seconds (`STALL_SECONDS`) and one or two heartbeats more.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import TypedDict

from eagle_spark.io import join, resolve

STALL_SECONDS = 120.0
START_FACTOR = 3  # before its first step a rank loads TensorFlow, builds the network, traces graphs
HEARTBEAT_SECONDS = 2.0
EXIT_ABANDONED = 75  # exit code of a rank whose attempt the driver abandoned
MAX_HEARTBEAT_BYTES = 4096


class Heartbeat(TypedDict):
    """The content of a heartbeat file.

    Attributes:
        beat: number of heartbeats so far.
        work: number of pieces of work done.
        step: number of the training step; 0 before the first.
        loss: loss of that step; None before the first.
    """

    beat: int
    work: int
    step: int
    loss: float | None
    pid: int
    host: str


def heartbeat_interval(stall: float) -> float:
    """Return the seconds between two heartbeats of a rank, and between two checks of the driver."""
    return min(HEARTBEAT_SECONDS, stall / 4)


def _running_file(staging: str) -> str:
    return join(staging, "running")


def _heartbeat_file(staging: str, rank: int) -> str:
    return join(staging, f"heartbeat-{rank}.json")


class HeartbeatWriter:
    """Writes the heartbeats of one rank in a thread.

    The thread also ends the process, even one that hangs inside TensorFlow, once the driver has
    abandoned the attempt or the parent process is gone.
    """

    def __init__(self, staging: str, rank: int, stall: float) -> None:
        self._staging, self._rank = staging, rank
        self._interval = heartbeat_interval(stall)
        self._beats = self._work = self._step = 0
        self._loss: float | None = None
        self._ended = Event()
        self._parent_pid = os.getppid()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def step(self, step: int | None = None, loss: float | None = None) -> None:
        """Count one more piece of work done; for a training step its number and the loss."""
        self._work += 1
        if step is not None:
            self._step, self._loss = step, loss

    def __enter__(self) -> HeartbeatWriter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=self._interval)

    def _run(self) -> None:
        storage, running = resolve(_running_file(self._staging))
        _, path = resolve(_heartbeat_file(self._staging, self._rank))
        while not self._ended.is_set():
            with suppress(OSError):  # the storage may be out of reach for a moment
                if os.getppid() != self._parent_pid or not storage.exists(running):
                    os._exit(EXIT_ABANDONED)
                self._beats += 1
                storage.write(path, json.dumps(self._heartbeat()).encode())
            self._ended.wait(self._interval)

    def _heartbeat(self) -> Heartbeat:
        return {
            "beat": self._beats,
            "work": self._work,
            "step": self._step,
            "loss": self._loss,
            "pid": os.getpid(),
            "host": os.uname().nodename,
        }


@dataclass
class _RankState:
    """The last heartbeat of a rank; `beat_at` and `work_at` are times of the driver's clock."""

    beat: int
    work: int
    step: int
    beat_at: float
    work_at: float
    process: str = "its process"


class StallDetector:
    """Finds ranks that make no progress; times are seconds of any one clock."""

    def __init__(self, ranks: int, stall: float, now: float) -> None:
        self._stall = stall
        self._ranks = [_RankState(0, 0, 0, now, now) for _ in range(ranks)]

    def record(self, rank: int, heartbeat: Heartbeat, now: float) -> None:
        """Record the heartbeat of a rank that was read at the time `now`."""
        state = self._ranks[rank]
        if heartbeat["beat"] != state.beat:
            state.beat, state.beat_at = heartbeat["beat"], now
        if heartbeat["work"] != state.work:
            state.work, state.work_at = heartbeat["work"], now
        state.step = heartbeat["step"]
        state.process = f"process {heartbeat['pid']} on {heartbeat['host']}"

    def find_stall(self, now: float) -> str | None:
        """Return one line that names the stalled ranks; None when there are none."""
        silent, stuck = [], []
        for rank, state in enumerate(self._ranks):
            name = f"rank {rank} ({state.process})"
            limit = self._stall * (1 if state.step else START_FACTOR)
            if now - state.beat_at > (self._stall if state.beat else limit):
                silent.append(f"{name} has written no heartbeat for {now - state.beat_at:.0f} s")
            if now - state.work_at > limit:
                stuck.append(f"{name} has made no step for {now - state.work_at:.0f} s")
        return "; ".join(silent or stuck) or None


class Watchdog:
    """Cancels ranks that stall; runs on the driver, and ranks may run while it is open.

    `cancel` is called when a rank stalls, `on_heartbeat` with each heartbeat of rank 0.

    Attributes:
        stall_reason: the reason for which `cancel` was called, or None.
    """

    def __init__(
        self,
        staging: str,
        ranks: int,
        stall: float,
        cancel: Callable[[], None],
        on_heartbeat: Callable[[Heartbeat], None] = lambda _: None,
    ) -> None:
        self._staging, self._ranks, self._stall = staging, ranks, stall
        self._cancel, self._on_heartbeat = cancel, on_heartbeat
        self._ended = Event()
        self._thread = Thread(target=self._run, name="watchdog", daemon=True)
        self.stall_reason: str | None = None

    def __enter__(self) -> Watchdog:
        storage, running = resolve(_running_file(self._staging))
        storage.write(running, b"")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)
        with suppress(OSError):
            storage, running = resolve(_running_file(self._staging))
            storage.delete(running)

    def _run(self) -> None:
        detector = StallDetector(self._ranks, self._stall, time.monotonic())
        while not self._ended.wait(heartbeat_interval(self._stall)):
            for rank in range(self._ranks):
                storage, path = resolve(_heartbeat_file(self._staging, rank))
                with suppress(OSError, ValueError):
                    heartbeat = json.loads(storage.read(path, MAX_HEARTBEAT_BYTES))
                    detector.record(rank, heartbeat, time.monotonic())
                    if rank == 0:
                        self._on_heartbeat(heartbeat)
            self.stall_reason = self.stall_reason or detector.find_stall(time.monotonic())
            if self.stall_reason:
                self._cancel()
