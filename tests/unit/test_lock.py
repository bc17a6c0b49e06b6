"""Who holds the lease, told by a file that changes or does not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from eagle_spark.io.lock import AlreadyRunning, lease

HOLDER = """
import sys, time
from eagle_spark.io.lock import lease
with lease(sys.argv[1], "first", dead=2.0):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lease_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a" / "lease"
    for _ in range(2):
        with lease(str(path), "one"):
            assert json.loads(path.read_text())["run_id"] == "one"
        assert not path.exists()


def test_a_running_holder_is_named_and_a_killed_one_is_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lease"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        named = pytest.raises(AlreadyRunning, match=f"first on .*, process {holder.pid}")
        with named, lease(str(path), "second", dead=4.0):
            pass
        holder.kill()
    left = json.loads(path.read_text())
    assert left["run_id"] == "first"
    capsys.readouterr()
    with lease(str(path), "third", dead=20.0):  # its process is known to be gone
        assert capsys.readouterr().err == ""
    path.write_text(json.dumps(left | {"pids": "of another machine"}))
    with lease(str(path), "third", dead=1.0):
        assert json.loads(path.read_text())["run_id"] == "third"
    assert "whether first on" in capsys.readouterr().err
    assert not path.exists()


def test_a_holder_that_ends_in_the_meantime_is_followed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_text(json.dumps({"run_id": "first", "host": "h", "pid": 1, "beat": 0}))
    removed = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(1); os.unlink({str(path)!r})"]
    )
    started = time.monotonic()
    with lease(str(path), "second", dead=30.0):
        assert time.monotonic() - started < 20
    assert removed.wait(10) == 0


@pytest.mark.parametrize("unreadable", ["{", "[]", "{}"])
def test_a_look_that_fails_says_nothing_of_the_holder(tmp_path: Path, unreadable: str) -> None:
    path = tmp_path / "lease"
    path.write_text(unreadable)
    left = json.dumps({"run_id": "killed", "host": "h", "pid": 1, "beat": 0})
    for seconds, text in ((0.6, left), (1.2, unreadable), (1.8, left)):
        Timer(seconds, path.write_text, [text]).start()
    started = time.monotonic()
    with lease(str(path), "second", dead=2.0):  # the killed one's text never changed
        assert time.monotonic() - started >= 2.5  # only looks that were answered count
        assert json.loads(path.read_text())["run_id"] == "second"


def test_a_holder_on_a_machine_of_the_same_start_under_another_name_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lease"
    with lease(str(path), "first"):
        left = json.loads(path.read_text())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    path.write_text(json.dumps(left | {"pid": gone.pid}))
    with lease(str(path), "second", dead=0.5):
        assert capsys.readouterr().err == ""
    path.write_text(json.dumps(left | {"pid": gone.pid, "host": "a clone"}))
    with lease(str(path), "second", dead=0.5):
        assert "on a clone" in capsys.readouterr().err
