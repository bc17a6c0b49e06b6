"""Programs and their load: sampled, as Spark's workers are not children of the driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import psutil

from eagle_spark.errors import EXIT_NEEDS_ATTENTION

ROOT = Path(__file__).resolve().parents[2]
BEAT_SECONDS = 0.25
JAVA, DRIVER, WORKER, OTHER = "java", "driver", "worker", "other"  # kinds of processes


def process_kind(name: str, words: Sequence[str], ancestors: Collection[str]) -> str:
    """Return the kind of a process of a job or of a rival.

    A worker is a Python process that another Python process started, or Spark's daemon of workers,
    which Java starts.

    Args:
        name: of its program.
        words: its command line.
        ancestors: names of the programs that started it, up to the job itself.
    """
    if name == "java":
        return JAVA
    if name.startswith("ray::"):
        return WORKER
    if not _is_python(name):
        return OTHER
    is_daemon = any(word.endswith(".daemon") for word in words)
    return WORKER if is_daemon or any(map(_is_python, ancestors)) else DRIVER


def _is_python(name: str) -> bool:
    return name.startswith("python")


@dataclass
class Load:
    """Load of the descendants that this process started since.

    Attributes:
        seconds: from beginning to end.
        peak_gb: largest sum of resident memory, GB; pages that several share count for each.
        process_gb: largest of a single process, by the name of its program.
    """

    seconds: float = 0.0
    peak_gb: float = 0.0
    process_gb: dict[str, float] = field(default_factory=dict)
    _cpu: dict[tuple[int, float], float] = field(default_factory=dict)
    _kinds: dict[tuple[int, float], str] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all cores; the last beat of each process is lost."""
        return round(sum(self._cpu.values()), 1)

    @property
    def cpu_by_kind(self) -> dict[str, float]:
        """`cpu_seconds` by `process_kind`."""
        return {
            kind: round(sum(self._cpu[key] for key in self._cpu if self._kinds[key] == kind), 1)
            for kind in sorted(set(self._kinds.values()))
        }

    def look(self, excluded: set[int]) -> None:
        """Sample the running descendants, except the excluded ones."""
        used = 0
        ancestors: dict[int, list[str]] = {}
        for process in psutil.Process().children(recursive=True):  # parents before their children
            if process.pid in excluded:
                continue
            try:
                times, key = process.cpu_times(), (process.pid, process.create_time())
                name, resident = process.name(), process.memory_info().rss
                started_by = ancestors.get(process.ppid(), [])
            except psutil.Error:  # it has ended
                continue
            ancestors[process.pid] = [*started_by, name]
            used += resident
            self._cpu[key] = times.user + times.system
            kind = process_kind(name, _read_words(process), started_by)
            if (self._kinds.get(key), kind) != (WORKER, DRIVER):  # its parent has ended
                self._kinds[key] = kind
            self.process_gb[name] = max(self.process_gb.get(name, 0.0), round(resident / 1e9, 2))
        self.peak_gb = max(self.peak_gb, round(used / 1e9, 2))


def _read_words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def submit_words(job: str, *options: str, conf: Sequence[str] = ()) -> list[str]:
    """Return the command line of a job; `conf` are options of spark-submit itself."""
    submit = str(Path(sys.executable).with_name("spark-submit"))
    return [submit, *conf, str(ROOT / "submit" / f"{job}.py"), *options]


def run_eagle(*words: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the command `eagle` in a new process, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "eagle_spark.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        start_new_session=True,
    )


def images_in(folder: Path) -> list[Path]:
    """Return the images below a folder, ordered by path."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg")
    )


def link_images(folder: Path, count: int, target: Path) -> Path:
    """Link `count` images of a folder, chosen by a hash of their paths, into a new folder.

    Raises:
        ValueError: the folder has fewer images.
    """
    files = sorted(
        images_in(folder),
        key=lambda path: sha256(str(path.relative_to(folder)).encode()).digest(),
    )
    if len(files) < count:
        raise ValueError(f"`{folder}`: wanted {count} images; got {len(files)}")
    target.mkdir()
    for number, path in enumerate(files[:count]):
        (target / f"{number:06d}{path.suffix.lower()}").symlink_to(path.resolve())
    return target


def copy_image_table(source: Path, target: Path) -> Path:
    """Make a warehouse whose table `images` reads the files of another warehouse.

    Only other tables may be written: a table keeps the address it was made at.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "cxr" / "images" / "metadata", target / "cxr" / "images" / "metadata")
    return target


def run_watched(words: list[str], seconds: float, **environment: str) -> tuple[str, Load]:
    """Run a program from the checkout; return its standard output and its load."""
    with watch_load() as load:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    if done.returncode not in (0, EXIT_NEEDS_ATTENTION):
        raise SystemExit(f"error: {words[1:4]}:\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    return done.stdout, load


@contextmanager
def watch_load() -> Iterator[Load]:
    """Measure the processes that the block starts; the figures are complete after it."""
    load, ended, started = Load(), threading.Event(), time.perf_counter()
    excluded = {process.pid for process in psutil.Process().children(recursive=True)}

    def watch() -> None:
        while not ended.wait(BEAT_SECONDS):
            load.look(excluded)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield load
    finally:
        ended.set()
        thread.join()
        load.seconds = round(time.perf_counter() - started, 1)
