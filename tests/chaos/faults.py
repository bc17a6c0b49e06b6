"""Jobs that are to be killed: a spark-submit, with all that it starts."""

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

from eagle_spark.errors import LOOK_FIRST
from tests.helpers.processes import ROOT

TIMEOUT = 900.0  # seconds of one job, where it says nothing else


class Job:
    """A job as a process; its output goes into a file in `folder`."""

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
    def runs(self) -> bool:
        return self.process.poll() is None and self.seconds < self.timeout

    def end(self) -> int:
        """Wait for the end, and return the exit code; 0 of one that is done and to be looked at."""
        code = self.process.wait(max(1.0, self.timeout - self.seconds))
        return 0 if code == LOOK_FIRST else code

    def result(self) -> dict[str, Any]:
        """Wait for the end, and return the job's last line."""
        if self.end():
            raise self.failure("the job failed")
        found: dict[str, Any] = json.loads(self.output.read_text().splitlines()[-1])
        return found

    def failure(self, what: str) -> SystemExit:
        return SystemExit(f"error: {what}:\n{self.output.read_text()[-3000:]}")

    def processes(self) -> list[psutil.Process]:
        """Return the driver and all that it started."""
        driver = psutil.Process(self.process.pid)
        return [driver, *driver.children(recursive=True)]

    def kill(self) -> None:
        """End the driver and all that it started, as a machine that loses its power does."""
        driver, *others = self.processes()
        for process in (driver, *others):
            process.kill()
        self.process.wait()  # first: its exit code is told once
        psutil.wait_procs(others, 10)


AnyJob = TypeVar("AnyJob", bound=Job)


@contextmanager
def killed_at_last(job: AnyJob) -> Iterator[AnyJob]:
    """Let nothing of the job stay behind."""
    try:
        yield job
    finally:
        if job.process.poll() is None:
            job.kill()


def tell(found: dict[str, Any]) -> None:
    print(json.dumps(found), file=sys.stderr, flush=True)


def is_worker(process: psutil.Process) -> bool:
    """Whether it is a Python worker: a child of the daemon that forks them."""
    try:
        pair = [process, process.parent()]
    except psutil.NoSuchProcess:
        return False
    return all("pyspark.daemon" in line_of(one) for one in pair)


def line_of(process: psutil.Process | None) -> str:
    """Return the command line; nothing of a process that has ended."""
    try:
        return " ".join(process.cmdline()) if process else ""
    except psutil.Error:
        return ""
