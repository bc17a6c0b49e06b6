"""A line that tells how far long work is: count, rate, time to go."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Progress:
    """Show `what: done/total, rate, ETA` on standard error; silent when that is no terminal."""

    def __init__(self, what: str, total: int, unit: str = "images") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._start = time.monotonic()
        self._shown = False
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def update(self, done: int) -> None:
        if self._live:
            print(f"\r{self.line(done)}\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = True

    def line(self, done: int) -> str:
        """Return the line for `done` units, rate measured since the start."""
        seconds = time.monotonic() - self._start
        rate = done / seconds if seconds > 0 else 0.0
        left = f"{(self._total - done) / rate:.0f} s to go" if rate else "…"
        return f"{self._what}: {done:,}/{self._total:,} {self._unit}, {rate:.1f}/s, {left}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            print(file=sys.stderr, flush=True)


@contextmanager
def watch_tasks(spark: SparkSession, what: str, total: int) -> Iterator[None]:
    """Show how much of `total` the Spark tasks started inside have done, once a second."""
    if not sys.stderr.isatty() or not total:
        yield
        return
    context, group, ended = spark.sparkContext, uuid4().hex, Event()
    context.setJobGroup(group, what)

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
        watcher = Thread(target=poll, args=(progress,), daemon=True)
        watcher.start()
        try:
            yield
            progress.update(total)
        finally:
            ended.set()
            watcher.join(timeout=10)
