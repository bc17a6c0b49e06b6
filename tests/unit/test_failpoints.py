"""Failpoints: a job pauses at a named point if a test activates it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from eagle_spark.errors import EagleError
from eagle_spark.testing import failpoints as steps
from eagle_spark.testing.failpoints import ENV_VARIABLE, FAILPOINTS, failpoint


def test_an_inactive_failpoint_does_not_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENV_VARIABLE, raising=False)
    failpoint("written")
    monkeypatch.setenv(ENV_VARIABLE, str(tmp_path))
    (tmp_path / "audited").touch()
    failpoint("written")
    monkeypatch.setenv(ENV_VARIABLE, str(tmp_path / "nowhere"))
    failpoint("written")
    assert [path.name for path in tmp_path.iterdir()] == ["audited"]


@pytest.mark.parametrize("step", FAILPOINTS)
def test_a_failpoint_pauses_until_its_file_is_deleted(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_VARIABLE, str(tmp_path))
    (tmp_path / step).touch()
    job = threading.Thread(target=failpoint, args=(step,), daemon=True)
    job.start()
    deadline = time.monotonic() + 10
    while (tmp_path / step).read_text() != str(os.getpid()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert job.is_alive()
    (tmp_path / step).unlink()
    job.join(10)
    assert not job.is_alive()
    failpoint(step)


def test_a_failpoint_raises_after_its_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_VARIABLE, str(tmp_path))
    monkeypatch.setattr(steps, "MAX_WAIT_SECONDS", 0.1)
    (tmp_path / "written").touch()
    with pytest.raises(EagleError, match=r"failpoint .*written: "):
        failpoint("written")
    assert not (tmp_path / "written").exists()
