"""What a program and all that it starts take: sampled, as Spark's workers are nobody's children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from eagle_spark.errors import LOOK_FIRST

ROOT = Path(__file__).resolve().parents[2]
BEAT_SECONDS = 0.25


@dataclass
class Load:
    """Of all descendants of this process that began since.

    Attributes:
        seconds: from beginning to end.
        peak_gb: largest sum of resident memory, GB; pages that several share count for each.
        process_gb: largest of a single process, by the name of its program.
    """

    seconds: float = 0.0
    peak_gb: float = 0.0
    process_gb: dict[str, float] = field(default_factory=dict)
    _cpu: dict[tuple[int, float], float] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all cores; the last beat of each process is lost."""
        return round(sum(self._cpu.values()), 1)

    def look(self, known: set[int]) -> None:
        """Take in what runs now, but for the processes that are known."""
        used = 0
        for process in psutil.Process().children(recursive=True):
            if process.pid in known:
                continue
            try:
                times, key = process.cpu_times(), (process.pid, process.create_time())
                name, own = process.name(), process.memory_info().rss
            except psutil.Error:  # it has ended
                continue
            used += own
            self._cpu[key] = times.user + times.system
            self.process_gb[name] = max(self.process_gb.get(name, 0.0), round(own / 1e9, 2))
        self.peak_gb = max(self.peak_gb, round(used / 1e9, 2))


def submit_words(job: str, *options: str, conf: Sequence[str] = ()) -> list[str]:
    """Return the command line of a job; `conf` are options of spark-submit itself."""
    submit = str(Path(sys.executable).with_name("spark-submit"))
    return [submit, *conf, str(ROOT / "submit" / f"{job}.py"), *options]


def images_in(folder: Path) -> list[Path]:
    """Return the images below a folder, ordered by path."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    )


def run_watched(words: list[str], seconds: float, **environment: str) -> tuple[str, Load]:
    """Run a program from the checkout; return its standard output, and what it took."""
    with watch_load() as load:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    if done.returncode not in (0, LOOK_FIRST):
        raise SystemExit(f"error: {words[1:4]}:\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    return done.stdout, load


@contextmanager
def watch_load() -> Iterator[Load]:
    """Watch what is started within the block; the figures are whole after it."""
    load, ended, started = Load(), threading.Event(), time.perf_counter()
    known = {process.pid for process in psutil.Process().children(recursive=True)}

    def watch() -> None:
        while not ended.wait(BEAT_SECONDS):
            load.look(known)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield load
    finally:
        ended.set()
        thread.join()
        load.seconds = round(time.perf_counter() - started, 1)
