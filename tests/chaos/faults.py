"""Jobs that tests kill: a spark-submit and its descendants."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from eagle_spark.errors import EXIT_NEEDS_ATTENTION
from tests.helpers.processes import ROOT

TIMEOUT = 900.0  # seconds of a job, by default


class Job:
    """A job as a process; its output goes to a file in `folder`."""

    timeout = TIMEOUT

    def __init__(
        self, folder: Path, words: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None and self.seconds < self.timeout

    def end(self) -> int:
        """Wait for the end; return the exit code, 0 for `EXIT_NEEDS_ATTENTION`."""
        code = self.process.wait(max(1.0, self.timeout - self.seconds))
        return 0 if code == EXIT_NEEDS_ATTENTION else code

    def result(self) -> dict[str, Any]:
        """Wait for the end; return the content of the last line of output."""
        if self.end():
            raise self.failure("the job failed")
        result: dict[str, Any] = json.loads(self.output.read_text().splitlines()[-1])
        return result

    def failure(self, what: str) -> SystemExit:
        return SystemExit(f"error: {what}:\n{self.output.read_text()[-3000:]}")

    def processes(self) -> list[psutil.Process]:
        """Return the driver and its descendants."""
        driver = psutil.Process(self.process.pid)
        return [driver, *driver.children(recursive=True)]

    def kill(self) -> None:
        """Kill the driver and its descendants, like a power failure."""
        driver, *others = self.processes()
        for process in (driver, *others):
            process.kill()
        self.process.wait()  # first: its exit code can be read once
        psutil.wait_procs(others, 10)


AnyJob = TypeVar("AnyJob", bound=Job)


@contextmanager
def kill_at_end(job: AnyJob) -> Iterator[AnyJob]:
    """Kill the job at the end of the block if it still runs."""
    try:
        yield job
    finally:
        if job.process.poll() is None:
            job.kill()


def print_record(record: dict[str, Any]) -> None:
    print(json.dumps(record), file=sys.stderr, flush=True)


def is_worker(process: psutil.Process) -> bool:
    """Whether the process is a Python worker: a child of the daemon that forks them."""
    try:
        pair = [process, process.parent()]
    except psutil.NoSuchProcess:
        return False
    return all("spark.daemon" in command_line(member) for member in pair)  # Spark's or ours


def command_line(process: psutil.Process | None) -> str:
    """Return the command line; empty for a process that has ended."""
    try:
        return " ".join(process.cmdline()) if process else ""
    except psutil.Error:
        return ""
