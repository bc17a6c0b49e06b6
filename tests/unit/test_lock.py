"""The lock: a file whose heartbeat shows whether its holder runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from eagle_spark.io.lock import AlreadyRunningError, lease

HOLDER = """
import sys, time
from eagle_spark.io.lock import lease
with lease(sys.argv[1], "first", stale_seconds=2.0):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_released_lock_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "lease"
    for _ in range(2):
        with lease(str(path), "one"):
            assert json.loads(path.read_text())["run_id"] == "one"
        assert not path.exists()


def test_a_running_holder_is_named_and_the_lock_of_a_killed_one_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lease"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        named = pytest.raises(AlreadyRunningError, match=f"first on .*, process {holder.pid}")
        with named, lease(str(path), "second", stale_seconds=4.0):
            pass
        holder.kill()
    heartbeat = json.loads(path.read_text())
    assert heartbeat["run_id"] == "first"
    caplog.clear()
    with lease(str(path), "third", stale_seconds=20.0):  # its process has ended
        assert caplog.text == ""
    path.write_text(json.dumps(heartbeat | {"pids": "of another machine"}))
    with lease(str(path), "third", stale_seconds=1.0):
        assert json.loads(path.read_text())["run_id"] == "third"
    assert "whether first on" in caplog.text
    assert not path.exists()


def test_the_lock_of_a_holder_that_ends_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_text(json.dumps({"run_id": "first", "host": "h", "pid": 1, "beat": 0}))
    removed = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(1); os.unlink({str(path)!r})"]
    )
    started = time.monotonic()
    with lease(str(path), "second", stale_seconds=30.0):
        assert time.monotonic() - started < 20
    assert removed.wait(10) == 0


@pytest.mark.parametrize("unreadable", ["{", "[]", "{}"])
def test_a_failed_read_is_no_evidence_about_the_holder(tmp_path: Path, unreadable: str) -> None:
    path = tmp_path / "lease"
    path.write_text(unreadable)
    heartbeat = json.dumps({"run_id": "killed", "host": "h", "pid": 1, "beat": 0})
    for seconds, text in ((0.6, heartbeat), (1.2, unreadable), (1.8, heartbeat)):
        Timer(seconds, path.write_text, [text]).start()
    started = time.monotonic()
    with lease(str(path), "second", stale_seconds=2.0):  # the heartbeat does not change
        assert time.monotonic() - started >= 2.5  # only successful reads count
        assert json.loads(path.read_text())["run_id"] == "second"


def test_a_holder_on_a_clone_of_this_machine_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lease"
    with lease(str(path), "first"):
        heartbeat = json.loads(path.read_text())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    path.write_text(json.dumps(heartbeat | {"pid": gone.pid}))
    with lease(str(path), "second", stale_seconds=0.5):
        assert caplog.text == ""
    path.write_text(json.dumps(heartbeat | {"pid": gone.pid, "host": "a clone"}))
    with lease(str(path), "second", stale_seconds=0.5):
        assert "on a clone" in caplog.text
