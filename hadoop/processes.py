"""Processes that outlive their start command, identified by pid and start time."""

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
    """One process.

    Attributes:
        pid: process id.
        start_ticks: start time in clock ticks of the kernel since boot; differs when another
            process gets the same pid later.
    """

    pid: int
    start_ticks: int

    @property
    def is_alive(self) -> bool:
        return read_start_ticks(self.pid) == self.start_ticks

    @property
    def started_at(self) -> datetime:
        """Start time, to the second."""
        stat = Path("/proc/stat").read_text().split()
        seconds = int(stat[stat.index("btime") + 1]) + self.start_ticks / os.sysconf("SC_CLK_TCK")
        return datetime.fromtimestamp(int(seconds), timezone.utc).astimezone()

    def send_signal(self, number: signal.Signals) -> None:
        if self.is_alive:
            os.kill(self.pid, number)


def read_start_ticks(pid: int) -> int | None:
    """Return the start time of a process in clock ticks, None when it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may contain any character; then the state is field 1, the start 20.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def read_pid_file(pid_file: Path) -> Process | None:
    """Return the process of a pid file, None when it does not run."""
    try:
        pid, ticks = map(int, pid_file.read_text().split())
    except (FileNotFoundError, ValueError):
        return None
    process = Process(pid, ticks)
    return process if process.is_alive else None


def start(
    command: Sequence[str], log: Path, pid_file: Path, environment: Mapping[str, str]
) -> Process:
    """Start `command` in a new session and append its output to `log`."""
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
    child.returncode = 0  # suppresses the warning of Popen about a running child
    process = Process(child.pid, read_start_ticks(child.pid) or 0)
    pid_file.write_text(f"{process.pid} {process.start_ticks}\n")
    return process


def stop(processes: Sequence[Process], timeout: float) -> None:
    """Send SIGTERM to processes, and SIGKILL to those alive after `timeout` seconds."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while any(process.is_alive for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        process.send_signal(signal.SIGKILL)


def find_by_environment(prefix: str) -> list[Process]:
    """Return every process with an environment entry that begins with `prefix`."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            entries = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended, or of another user
            continue
        ticks = read_start_ticks(int(folder.name))
        if ticks is not None and any(entry.startswith(prefix.encode()) for entry in entries):
            processes.append(Process(int(folder.name), ticks))
    return processes
