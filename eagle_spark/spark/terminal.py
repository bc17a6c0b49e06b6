"""A quiet terminal: lines of Java and TensorFlow that no user can act on are left out.

Logs of schedulers and clusters keep every line.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

from eagle_spark.progress import has_terminal

NOISE = re.compile(
    rb"WARNING: Using incubator modules"
    rb"|.* WARN Utils: (Your hostname|Set SPARK_LOCAL_IP)"
    rb"|Setting default log level to|To adjust logging level use"
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ .*\.cc:\d+\]"
    rb"|[IWE]0000 00:00:\d+\.\d+ .*\.cc:\d+\]"
    rb"|To enable the following instructions: "
    rb"|Doing CPU training\.\.\.|Will run with \d+ Spark tasks|Distributed training in progress"
    rb"|View Spark executor stderr logs|Training with \d+ slots is complete"
)
JOIN_SECONDS = 2.0


def copy_lines(source: int, target: int) -> None:
    """Copy lines from one file descriptor to another, except those that match `NOISE`."""
    pending = b""
    while block := os.read(source, 65536):
        *lines, pending = (pending + block).split(b"\n")
        for line in lines:
            _write(target, line + b"\n")
    _write(target, pending)


def _write(target: int, line: bytes) -> None:
    if not NOISE.match(line):
        with suppress(OSError):  # the terminal is closed
            os.write(target, line)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Filter standard error of this process and of its children, if a person sees it.

    spark-submit puts a pipe between Python and the terminal.
    """
    if not has_terminal():
        yield
        return
    source, target = os.pipe()
    terminal, pipe = os.dup(2), os.fstat(target).st_ino
    os.dup2(target, 2)
    os.close(target)
    thread = Thread(target=copy_lines, args=(source, terminal), name="stderr", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        if os.fstat(2).st_ino == pipe:  # not pointed at nothing meanwhile
            os.dup2(terminal, 2)
        thread.join(JOIN_SECONDS)  # a child may hold the pipe open


def run_quietly(path: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program with its standard error filtered, and return its exit code."""
    with subprocess.Popen(
        words, executable=path, env=dict(environment), stderr=subprocess.PIPE
    ) as child:
        # Ctrl-C reaches the child as well; this process waits for its end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
        assert child.stderr is not None
        copy_lines(child.stderr.fileno(), 2)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
