"""Runs jobs and tools: settings in, JSON or lines out, errors to exit codes."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, TypeVar

from eagle_spark.cli.parse import add_dashes, parse_settings
from eagle_spark.errors import EXIT_NEEDS_ATTENTION, EagleError
from eagle_spark.progress import has_terminal, open_terminal
from eagle_spark.settings import Settings
from eagle_spark.spark.terminal import quiet_stderr

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound=Settings)
Result = Mapping[str, object]

DISK_FULL = os.strerror(errno.ENOSPC)
# Of HDFS: disk space, names, a kind of storage.
QUOTA = re.compile(r"(?:The \w+ quota|Quota by storage type) .*is exceeded[:.] .*")


def run_job(
    kind: type[S],
    run: Callable[[S], DataclassInstance | Result],
    argv: Sequence[str] | None = None,
    program: str = "",
) -> int:
    """Run one job and return its exit code: 0 done, 2 bad input or environment, 1 failed.

    The last line on standard output is one JSON object: the job's result, or
    `{"error": …, "exit_code": …}`. The result of a job that is done may hold the `exit_code`
    `EXIT_NEEDS_ATTENTION`. All other output of the process goes to standard error, and after that
    line nowhere: spark-submit merges both outputs of Python. In a terminal a table of the result
    comes before the line.
    """
    with quiet_stderr():
        return _run_job(kind, run, argv, program)


def _run_job(
    kind: type[S],
    run: Callable[[S], DataclassInstance | Result],
    argv: Sequence[str] | None,
    program: str,
) -> int:
    configure_logging(kind)
    try:
        settings = parse_settings(kind, argv, program)
    except EagleError as error:
        result, code = _describe_failure(kind, error, error.exit_code)
        print(json.dumps(result), flush=True)
        _silence_stdio()
        return code
    output = os.dup(1)
    os.dup2(2, 1)
    # A scheduler's SIGTERM unwinds like any failure, so that Spark stops and the JSON line comes.
    signal.signal(signal.SIGTERM, _raise_stopped)
    try:
        value = run(settings)
        result = asdict(value) if is_dataclass(value) else dict(value)
        code = EXIT_NEEDS_ATTENTION if result.get("exit_code") == EXIT_NEEDS_ATTENTION else 0
    except EagleError as error:
        result, code = _describe_failure(kind, error, error.exit_code)
    except Exception as error:
        _report_trace()
        result, code = _describe_failure(kind, error, 1)
    _show_table(result)
    with suppress(OSError):  # it goes to the log now, which may be on a full disk
        sys.stdout.flush()
    os.write(output, (json.dumps(result, allow_nan=False, default=str) + "\n").encode())
    os.close(output)
    _silence_stdio()
    return code


def run_tool(
    kind: type[S],
    run: Callable[[S], Iterable[str]],
    argv: Sequence[str] | None = None,
    program: str = "",
) -> int:
    """Print the lines of a tool as they come, and return its exit code.

    An error is one line on standard error.
    """
    configure_logging(kind)
    try:
        with quiet_stderr():
            for line in run(parse_settings(kind, argv, program)):
                print(line, flush=True)
    except EagleError as error:
        message = add_dashes(" ".join(str(error).split()), kind)
        print(f"error: {message}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


class _Formatter(logging.Formatter):
    def __init__(self, kind: type[Settings]) -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        text = add_dashes(super().format(record), self._kind)
        return f"{record.levelname.lower()}: {text}" if record.levelno > logging.INFO else text


def configure_logging(kind: type[Settings]) -> None:
    """Send the log of this package to standard error: `warning: …`, remarks as they are."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is first loaded
    logging.raiseExceptions = False  # standard error may be on a full disk
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(kind))
    log = logging.getLogger("eagle_spark")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


def _report_trace() -> None:
    """Print the trace of an unexpected error; in a terminal write it to a file and name it."""
    with suppress(OSError):
        if not has_terminal():
            traceback.print_exc()
            return
        with tempfile.NamedTemporaryFile("w", prefix="eagle-", suffix=".log", delete=False) as log:
            traceback.print_exc(file=log)
        print(f"details of the error: {log.name}", file=sys.stderr, flush=True)


def _show_table(result: Result) -> None:
    """Show the scalar values of a result in the terminal, if there is one."""
    terminal = open_terminal()
    if terminal is None or "error" in result:
        return
    rows = [
        (name.replace("_", " "), text)
        for name, value in result.items()
        if not name.endswith(("_id", "_ids")) and (text := _format_value(value))
    ]
    width = max((len(name) for name, _ in rows), default=0)
    with suppress(OSError):
        for name, text in rows:
            print(f"  {name:<{width}}  {text}", file=terminal, flush=True)


def _format_value(value: object) -> str:
    """Return a number or a short text for a person; nothing for other values."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return value if isinstance(value, str) and len(value) < 64 else ""


def _describe_failure(
    kind: type[Settings], error: Exception, code: int
) -> tuple[dict[str, object], int]:
    text = str(error)
    line = text if isinstance(error, EagleError) else _last_raised(text)
    # Spark gives the reason of a failed stage within a page of Java, or in the trace alone.
    page = f"{text}\n{getattr(error, '_stackTrace', '')}"
    if DISK_FULL in page:
        before, _, _ = page.partition(DISK_FULL)
        shown = line[:300] if DISK_FULL in line[:300] else f"{before[-200:]}{DISK_FULL}"
        line = f"{_describe_full_disk()}: {shown}"
    elif not isinstance(error, EagleError) and (quota := QUOTA.search(page)):
        line = (
            f"an HDFS quota is reached; make room or have it raised, run this job again: {quota[0]}"
        )
    line = add_dashes(" ".join(line.split()) or type(error).__name__, kind)[:2000]
    with suppress(OSError):
        print(f"error: {line}", file=sys.stderr, flush=True)
    figures = error.figures if isinstance(error, EagleError) else {}
    return {**figures, "error": line, "kind": type(error).__name__, "exit_code": code}, code


def _last_raised(text: str) -> str:
    """Return what a Python worker raised, without the traceback that Spark hands on."""
    trace = text.rpartition("Traceback (most recent call last):\n")[2]
    raised = (line for line in trace.splitlines() if line[:1].strip())
    return next(raised, text) if trace != text else text


def _describe_full_disk() -> str:
    # Not `tempfile`: it writes a file to find its folder.
    folder = os.environ.get("TMPDIR", "/tmp")  # noqa: S108
    free = f", {shutil.disk_usage(folder).free:,} bytes free" if os.path.isdir(folder) else ""
    return (
        f"a disk is full, here or of an executor: of TMPDIR ({folder} here{free}), "
        "of SPARK_LOCAL_DIRS or spark.local.dir, or of the warehouse; make room, run this job again"
    )


def _silence_stdio() -> None:
    """Point both outputs at nothing, so that no line of an exit handler follows the result."""
    with suppress(OSError):
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _raise_stopped(signum: int, _frame: object) -> None:
    raise EagleError(f"stopped by {signal.Signals(signum).name}")
