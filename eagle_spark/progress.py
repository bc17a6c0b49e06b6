"""A line that tells how far long work is: count, rate, time to go."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, TextIO
from uuid import uuid4

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Progress:
    """Show `what: done/total, rate, ETA` on the terminal, see `open_terminal`; else be silent."""

    def __init__(self, what: str, total: int, unit: str = "images") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._start, self._first = time.monotonic(), 0
        self._shown = False
        self._terminal: TextIO | None = None

    def __enter__(self) -> Progress:
        self._terminal = open_terminal()
        return self

    @property
    def live(self) -> bool:
        """Whether anybody sees the line."""
        return self._terminal is not None

    def begin(self, done: int) -> None:
        """Measure the rate from now on, when `done` units are done already."""
        self._start, self._first = time.monotonic(), done

    def update(self, done: int, note: str = "") -> None:
        if self._terminal:
            self._write(f"\r{self.line(done)}{note}\x1b[K")
            self._shown = True

    def line(self, done: int) -> str:
        """Return the line for `done` units, rate measured since the beginning."""
        seconds = time.monotonic() - self._start
        rate = (done - self._first) / seconds if seconds > 0 else 0.0
        left = f"{(self._total - done) / rate:.0f} s to go" if rate else "…"
        return f"{self._what}: {done:,}/{self._total:,} {self._unit}, {rate:.1f}/s, {left}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            self._write("\n")
        if self._terminal not in (None, sys.stderr):
            with suppress(OSError):
                self._terminal.close()

    def _write(self, text: str) -> None:
        # A terminal that somebody closes must not end the work.
        with suppress(OSError):
            print(text, end="", file=self._terminal, flush=True)


def open_terminal() -> TextIO | None:
    """Return standard error where it is a terminal, else the one this process runs in front of.

    spark-submit puts a pipe in the place of both outputs of Python, so that standard error alone
    would never do there. None where nobody looks: in the background, or without a terminal.
    """
    if sys.stderr.isatty():
        return sys.stderr
    with suppress(OSError), ExitStack() as stack:
        terminal = stack.enter_context(open("/dev/tty", "w", errors="replace"))
        if os.tcgetpgrp(terminal.fileno()) == os.getpgrp():
            stack.pop_all()
            return terminal
    return None


@contextmanager
def watch_tasks(spark: SparkSession, what: str, total: int) -> Iterator[None]:
    """Show how much of `total` the Spark tasks started inside have done, once a second."""
    context, group, ended = spark.sparkContext, uuid4().hex, Event()

    def poll(progress: Progress) -> None:
        tracker = context.statusTracker()
        while not ended.wait(1.0):
            jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
            stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
            tasks = sum(stage.numTasks for stage in stages if stage)
            done = sum(stage.numCompletedTasks for stage in stages if stage)
            if tasks:
                progress.update(total * done // tasks)

    with Progress(what, total) as progress:
        if not progress.live or not total:
            yield
            return
        context.setJobGroup(group, what)
        watcher = Thread(target=poll, args=(progress,), daemon=True)
        watcher.start()
        try:
            yield
            progress.update(total)
        finally:
            ended.set()
            watcher.join(timeout=10)
