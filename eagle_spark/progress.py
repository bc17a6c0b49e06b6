"""A line that tells how far long work is: count, rate, time to go."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TextIO


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
