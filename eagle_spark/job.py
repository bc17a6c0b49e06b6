"""The frame every job runs in: settings in, one JSON line out, errors to exit codes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from eagle_spark.errors import LOOK_FIRST, EagleError
from eagle_spark.options import parse_settings

S = TypeVar("S")

DISK_FULL = os.strerror(errno.ENOSPC)
# Of HDFS: disk space, names, a kind of storage.
QUOTA = re.compile(r"(?:The \w+ quota|Quota by storage type) .*is exceeded[:.] .*")


def main(
    kind: type[S],
    run: Callable[[S], Mapping[str, object]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run one job and return its exit code: 0 done, 2 bad input or environment, 1 failed.

    The last line on standard output is one JSON object: the job's figures, or
    `{"error": …, "exit_code": …}`. A job that is done may give an `exit_code` of its own among its
    figures: `LOOK_FIRST`. Whatever else the process or a library prints goes to
    standard error, and after that line nowhere: spark-submit merges both outputs of Python.
    """
    settings = _parse(kind, argv)
    if isinstance(settings, int):
        return settings
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first loaded
    output = os.dup(1)
    os.dup2(2, 1)
    # A scheduler's SIGTERM unwinds like any failure, so that Spark stops and the JSON line comes.
    signal.signal(signal.SIGTERM, _stop)
    try:
        result = dict(run(settings))
        code = LOOK_FIRST if result.get("exit_code") == LOOK_FIRST else 0
    except EagleError as error:
        result, code = _failed(error, error.exit_code)
    except Exception as error:
        with suppress(OSError):
            traceback.print_exc()
        result, code = _failed(error, 1)
    with suppress(OSError):  # what it goes to now, the log, may be on a full disk
        sys.stdout.flush()
    os.write(output, (json.dumps(result, allow_nan=False, default=str) + "\n").encode())
    os.close(output)
    _fall_silent()
    return code


def _parse(kind: type[S], argv: Sequence[str] | None) -> S | int:
    try:
        return parse_settings(kind, argv)
    except EagleError as error:
        result, code = _failed(error, error.exit_code)
        print(json.dumps(result), flush=True)
        _fall_silent()
        return code


def _failed(error: Exception, code: int) -> tuple[dict[str, object], int]:
    text = str(error)
    line = text if isinstance(error, EagleError) else _last_raised(text)
    # Of a stage of Spark's, the reason stands within a page of Java, or in the trace alone.
    page = f"{text}\n{getattr(error, '_stackTrace', '')}"
    if DISK_FULL in page:
        before, _, _ = page.partition(DISK_FULL)
        shown = line[:300] if DISK_FULL in line[:300] else f"{before[-200:]}{DISK_FULL}"
        line = f"{_full()}: {shown}"
    elif not isinstance(error, EagleError) and (quota := QUOTA.search(page)):
        line = (
            f"an HDFS quota is reached; make room or have it raised, run this job again: {quota[0]}"
        )
    line = " ".join(line.split()) or type(error).__name__
    with suppress(OSError):
        print(f"error: {line[:2000]}", file=sys.stderr, flush=True)
    figures = error.figures if isinstance(error, EagleError) else {}
    failed = {"error": line[:2000], "kind": type(error).__name__, "exit_code": code}
    return {**figures, **failed}, code


def _last_raised(text: str) -> str:
    """Return what a Python worker raised, without the traceback that Spark hands on."""
    trace = text.rpartition("Traceback (most recent call last):\n")[2]
    raised = (line for line in trace.splitlines() if line[:1].strip())
    return next(raised, text) if trace != text else text


def _full() -> str:
    # Asked of nothing that may fail itself: `tempfile` writes a file to find its folder.
    folder = os.environ.get("TMPDIR", "/tmp")  # noqa: S108
    free = f", {shutil.disk_usage(folder).free:,} bytes free" if os.path.isdir(folder) else ""
    return (
        f"a disk is full, here or of an executor: of TMPDIR ({folder} here{free}), "
        "of SPARK_LOCAL_DIRS or spark.local.dir, or of the warehouse; make room, run this job again"
    )


def _fall_silent() -> None:
    """Point both outputs at nothing, so that no line of an exit handler follows the result."""
    with suppress(OSError):
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _stop(signum: int, _frame: object) -> None:
    raise EagleError(f"stopped by {signal.Signals(signum).name}")
