"""Spark's daemon of Python workers with imports before the fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import zipimport
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from pathlib import Path
from zipfile import ZipFile

import pytest

from eagle_spark.spark.daemon import IMPORTS_VARIABLE, SPARK_DAEMON, shorten_tasks
from eagle_spark.spark.session import DAEMON_MODULE

SECONDS = 30.0
MODULES = {
    "loud": "import os; print('noise'); os.write(1, b'noise')",
    "broken": "raise ValueError('no such library')",
    "threaded": "from threading import *; Thread(target=Event().wait, daemon=True).start()",
    "marker": "import os; open(os.environ['MARK'], 'a').write(f'{os.getpid()} ')",
}


@contextmanager
def start_daemon(folder: Path, imports: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the daemon as Spark does, with `MODULES`; end it as Spark does."""
    for name, text in MODULES.items():
        (folder / f"{name}.py").write_text(text)
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-m", DAEMON_MODULE, "pyspark.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # As Spark sets it for one core a task: OpenBLAS starts no threads.
        env=os.environ
        | {"OMP_NUM_THREADS": "1"}
        | {IMPORTS_VARIABLE: imports, "MARK": str(folder / "mark"), "PYTHONPATH": path},
    ) as daemon:
        yield daemon
        assert daemon.stdin
        daemon.stdin.close()
        daemon.wait(SECONDS)


def read_port(daemon: subprocess.Popen[bytes]) -> int:
    assert daemon.stdout
    return int.from_bytes(daemon.stdout.read(4), "big")


def command_line(daemon: subprocess.Popen[bytes]) -> list[str]:
    return Path(f"/proc/{daemon.pid}/cmdline").read_text().split("\0")


@pytest.mark.parametrize("imports", ["", "marker", "loud,broken,no_such_module,marker"])
def test_modules_are_imported_in_the_daemon_and_nothing_else_is_printed(
    tmp_path: Path, imports: str
) -> None:
    with start_daemon(tmp_path, imports) as daemon:
        assert 1024 <= read_port(daemon) < 65536
        assert DAEMON_MODULE in command_line(daemon)
        if imports:
            assert (tmp_path / "mark").read_text().split() == [str(daemon.pid)]


def test_the_libraries_of_score_start_no_thread(tmp_path: Path) -> None:
    imports = "eagle_spark.scoring.predict,openvino,scipy.ndimage,pandas"
    with start_daemon(tmp_path, f"{imports},marker") as daemon:
        assert 1024 <= read_port(daemon) < 65536
        assert DAEMON_MODULE in command_line(daemon)
        assert len(os.listdir(f"/proc/{daemon.pid}/task")) == 1


def test_imported_modules_and_archives_cost_a_task_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("packed/__init__.py", "")
        archive.writestr("packed/inner.py", "value = 1")
    monkeypatch.syspath_prepend(str(tmp_path / "archive.zip"))
    import_module("packed")
    reads: list[str] = []
    original = zipimport._read_directory  # type: ignore[attr-defined]

    def read(path: str) -> object:
        reads.append(path)
        return original(path)

    monkeypatch.setattr(zipimport, "_read_directory", read)
    shorten_tasks()
    try:
        invalidate_caches()
        assert reads == []
        assert gc.get_freeze_count() > 10_000
        assert import_module("packed.inner").value == 1
    finally:
        gc.unfreeze()


def test_a_module_that_starts_a_thread_leaves_sparks_own_daemon(tmp_path: Path) -> None:
    with start_daemon(tmp_path, "marker,threaded") as daemon:
        assert 1024 <= read_port(daemon) < 65536
        assert command_line(daemon)[1:4] == ["-m", SPARK_DAEMON, "pyspark.worker"]
        assert (tmp_path / "mark").read_text().split() == [str(daemon.pid)]  # one import
