"""The doctor on one machine, as a user runs it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from eagle_spark.doctor import doctor
from eagle_spark.doctor.doctor import ChecksFailedError
from eagle_spark.errors import EagleError
from eagle_spark.settings import DoctorSettings

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]


def examine(*words: object) -> tuple[int, str]:
    """Run spark-submit with settings and the job's options; return exit code and all it said."""
    at = next((i for i, word in enumerate(words) if str(word).startswith("--w")), len(words))
    command = [
        str(Path(sys.executable).with_name("spark-submit")),
        *map(str, words[:at]),
        str(ROOT / "submit" / "doctor.py"),
        *map(str, words[at:]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow("a job by its spark-submit")
def test_a_machine_that_is_fit(tmp_path: Path) -> None:
    code, said = examine("--warehouse", tmp_path, "--weights", "none")
    assert code == 0, said
    assert "FAILED" not in said
    assert '"failed": 0' in said
    assert not list(tmp_path.glob("**/*doctor*"))


@pytest.mark.extended("one more job by its spark-submit", seconds=12)
def test_settings_that_do_harm_are_named_with_what_mends_them(tmp_path: Path) -> None:
    code, said = examine(
        *("--conf", "spark.sql.execution.arrow.maxRecordsPerBatch=10000"),
        *("--conf", "spark.speculation=true", "--master", "local[2]"),
        *("--warehouse", tmp_path, "--weights", tmp_path / "none.h5", "--ranks", 5),
    )
    assert code == 2
    assert "--conf spark.sql.execution.arrow.maxRecordsPerBatch=64" in said
    assert "--conf spark.speculation=false" in said
    assert "--master local[5]" in said
    assert "none.h5: no such file" in said
    assert '"failed_checks": ["weights", "ranks", "arrow batch", "speculation"]' in said
    assert '"exit_code": 2' in said


@pytest.mark.extended("one more job by its spark-submit", seconds=12)
def test_dynamic_allocation_is_named(tmp_path: Path) -> None:
    conf = ("--conf", "spark.dynamicAllocation.enabled=true")
    code, said = examine(*conf, "--warehouse", tmp_path, "--weights", "none")
    assert code == 2
    assert "--conf spark.dynamicAllocation.enabled=false" in said


@pytest.mark.extended("one more job by its spark-submit", seconds=10)
def test_a_warehouse_that_cannot_be_written_leaves_the_rest_untried(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = examine("--warehouse", tmp_path / "file" / "warehouse", "--weights", "none")
    assert code == 2
    assert "storage on driver" in said
    assert "not run" in said
    assert '"failed_checks": ["storage on driver", "spark"]' in said


def test_what_hangs_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = Event()

    def hang(*_: object) -> None:
        released.wait(60)
        raise EagleError("released")

    monkeypatch.setattr(doctor, "open_session", hang)
    monkeypatch.setattr(doctor, "start_without_executors", lambda: None)
    monkeypatch.setattr(doctor, "TIMEOUT", 5.0)
    caplog.set_level(logging.INFO)
    with pytest.raises(ChecksFailedError) as failed:
        doctor.run_doctor(DoctorSettings(warehouse=str(tmp_path), weights="none"))
    released.set()
    assert failed.value.figures["failed_checks"] == ["spark"]
    said = caplog.text
    assert "does not start within 5 s" in said
    assert "yarn node -list" in said
