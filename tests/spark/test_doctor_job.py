"""The doctor on one machine, as a user runs it."""

from __future__ import annotations

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
    """Run spark-submit with settings and the job's options; return exit code and output."""
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
def test_a_suitable_machine_passes_every_check(tmp_path: Path) -> None:
    code, output = examine("--warehouse", tmp_path, "--weights", "none")
    assert code == 0, output
    assert "FAILED" not in output
    assert '"failed": 0' in output
    assert not list(tmp_path.glob("**/*doctor*"))


@pytest.mark.extended("one more job by its spark-submit", seconds=12)
def test_harmful_settings_are_named_with_their_fixes(tmp_path: Path) -> None:
    code, output = examine(
        *("--conf", "spark.sql.execution.arrow.maxRecordsPerBatch=10000"),
        *("--conf", "spark.speculation=true", "--master", "local[2]"),
        *("--warehouse", tmp_path, "--weights", tmp_path / "none.h5", "--ranks", 5),
    )
    assert code == 2
    assert "--conf spark.sql.execution.arrow.maxRecordsPerBatch=64" in output
    assert "--conf spark.speculation=false" in output
    assert "--master local[5]" in output
    assert "none.h5: no such file" in output
    assert '"failed_checks": ["weights", "ranks", "arrow batch", "speculation"]' in output
    assert '"exit_code": 2' in output


@pytest.mark.extended("one more job by its spark-submit", seconds=12)
def test_dynamic_allocation_is_named(tmp_path: Path) -> None:
    conf = ("--conf", "spark.dynamicAllocation.enabled=true")
    code, output = examine(*conf, "--warehouse", tmp_path, "--weights", "none")
    assert code == 2
    assert "--conf spark.dynamicAllocation.enabled=false" in output


@pytest.mark.extended("one more job by its spark-submit", seconds=10)
def test_an_unwritable_warehouse_skips_the_other_checks(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, output = examine("--warehouse", tmp_path / "file" / "warehouse", "--weights", "none")
    assert code == 2
    assert "storage on driver" in output
    assert "not run" in output
    assert '"failed_checks": ["storage on driver", "spark"]' in output


def test_a_hanging_check_fails_after_its_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = Event()

    def hang(*_: object) -> None:
        released.wait(60)
        raise EagleError("released")

    monkeypatch.setattr(doctor, "open_session", hang)
    monkeypatch.setattr(doctor, "start_without_executors", lambda: None)
    monkeypatch.setattr(doctor, "TIMEOUT", 5.0)
    with pytest.raises(ChecksFailedError) as failed:
        doctor.run_doctor(DoctorSettings(warehouse=str(tmp_path), weights="none"))
    released.set()
    assert failed.value.figures["failed_checks"] == ["spark"]
    output = caplog.text
    assert "does not start within 5 s" in output
    assert "yarn node -list" in output
