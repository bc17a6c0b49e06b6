"""Steps at which a job stands still if somebody asks for it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from eagle_spark.errors import EagleError
from eagle_spark.testing import failpoints as steps
from eagle_spark.testing.failpoints import STEPS, VARIABLE, reached


def test_nothing_stands_still_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    reached("written")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "audited").touch()
    reached("written")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    reached("written")
    assert [path.name for path in tmp_path.iterdir()] == ["audited"]


@pytest.mark.parametrize("step", STEPS)
def test_a_job_stands_where_it_was_asked_to_until_it_is_let_go(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / step).touch()
    job = threading.Thread(target=reached, args=(step,), daemon=True)
    job.start()
    deadline = time.monotonic() + 10
    while (tmp_path / step).read_text() != str(os.getpid()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert job.is_alive()
    (tmp_path / step).unlink()
    job.join(10)
    assert not job.is_alive()
    reached(step)


def test_a_job_that_nobody_lets_go_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(steps, "PATIENCE", 0.1)
    (tmp_path / "written").touch()
    with pytest.raises(EagleError, match=r"stood at .*written for"):
        reached("written")
    assert not (tmp_path / "written").exists()
