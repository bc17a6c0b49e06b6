"""Processes that outlive the command that starts them, known by pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One running process.

    Attributes:
        pid: process id.
        ticks: when it started, in the kernel's clock ticks since boot. Another process that gets
            the same pid later has another one.
    """

    pid: int
    ticks: int

    @property
    def alive(self) -> bool:
        return start_ticks(self.pid) == self.ticks

    @property
    def since(self) -> datetime:
        """When it started, to the second."""
        stat = Path("/proc/stat").read_text().split()
        seconds = int(stat[stat.index("btime") + 1]) + self.ticks / os.sysconf("SC_CLK_TCK")
        return datetime.fromtimestamp(int(seconds), timezone.utc).astimezone()

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)


def start_ticks(pid: int) -> int | None:
    """Return when process `pid` started, None when there is none or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may hold anything; state is the first field behind it, start the 20th.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def recorded(pid_file: Path) -> Process | None:
    """Return the process that a pid file stands for, None when it does not run any more."""
    try:
        pid, ticks = map(int, pid_file.read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    process = Process(pid, ticks)
    return process if process.alive else None


def start(
    command: Sequence[str], log: Path, pid_file: Path, environment: Mapping[str, str]
) -> Process:
    """Start `command` in a session of its own, its output at the end of `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
            env=environment,
        )
    child.returncode = 0  # it is not waited for; Popen need not complain
    process = Process(child.pid, start_ticks(child.pid) or 0)
    pid_file.write_text(f"{process.pid} {process.ticks}\n")
    return process


def stop(processes: Sequence[Process], patience: float) -> None:
    """Ask processes to end, and kill those that have not after `patience` seconds."""
    for process in processes:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(process.alive for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        process.send(signal.SIGKILL)


def with_environment(entry: str) -> list[Process]:
    """Return every process whose environment has an entry that begins with `entry`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended, or of another user
            continue
        ticks = start_ticks(int(folder.name))
        if ticks is not None and any(one.startswith(entry.encode()) for one in environment):
            found.append(Process(int(folder.name), ticks))
    return found
