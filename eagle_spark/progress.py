"""A progress line on the terminal: count, rate, remaining time."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TextIO


class Progress:
    """Show `label: done/total, rate, ETA` on the terminal of `open_terminal`, if there is one."""

    def __init__(self, label: str, total: int, unit: str = "images") -> None:
        self._label, self._total, self._unit = label, total, unit
        self._start, self._done_at_start = time.monotonic(), 0
        self._has_written = False
        self._terminal: TextIO | None = None

    def __enter__(self) -> Progress:
        self._terminal = open_terminal()
        return self

    @property
    def is_visible(self) -> bool:
        """Whether the line is shown."""
        return self._terminal is not None

    def begin(self, done: int) -> None:
        """Restart the measurement of the rate; `done` units are complete already."""
        self._start, self._done_at_start = time.monotonic(), done

    def update(self, done: int, note: str = "") -> None:
        if self._terminal:
            self._write(f"\r{self.line(done)}{note}\x1b[K")
            self._has_written = True

    def line(self, done: int) -> str:
        """Return the line for `done` units, with the rate since the start."""
        seconds = time.monotonic() - self._start
        rate = (done - self._done_at_start) / seconds if seconds > 0 else 0.0
        remaining = f"{(self._total - done) / rate:.0f} s to go" if rate else "…"
        return f"{self._label}: {done:,}/{self._total:,} {self._unit}, {rate:.1f}/s, {remaining}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._has_written:
            self._write("\n")
        if self._terminal not in (None, sys.stderr):
            with suppress(OSError):
                self._terminal.close()

    def _write(self, text: str) -> None:
        # A closed terminal must not end the job.
        with suppress(OSError):
            print(text, end="", file=self._terminal, flush=True)


def has_terminal() -> bool:
    """Whether a person sees what this process shows, see `open_terminal`."""
    terminal = open_terminal()
    if terminal not in (None, sys.stderr):
        terminal.close()
    return terminal is not None


def open_terminal() -> TextIO | None:
    """Return standard error if it is a terminal, else the terminal of this foreground process.

    spark-submit replaces both outputs of Python by pipes, so standard error is no terminal there.
    Returns None in the background and without a terminal.
    """
    if sys.stderr.isatty():
        return sys.stderr
    with suppress(OSError), ExitStack() as stack:
        terminal = stack.enter_context(open("/dev/tty", "w", errors="replace"))
        if os.tcgetpgrp(terminal.fileno()) == os.getpgrp():
            stack.pop_all()
            return terminal
    return None
