"""The night shift: quiet nights end with 0, those that a person must look at with 3."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from eagle_spark.dataset.sample import write_unlabelled

ROOT = Path(__file__).resolve().parent.parent


def night(*given: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(ROOT / "submit" / "night.sh"), *map(str, given)],
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
        env={**os.environ, **environment},
    )


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.slow
def test_a_night_of_broken_files_is_to_be_looked_at_and_the_next_is_quiet(
    model_folder: Path, tmp_path: Path
) -> None:
    write_unlabelled(tmp_path / "images", 12, 5)  # and four broken ones
    given = (tmp_path / "images", model_folder, tmp_path / "warehouse")
    first = night(*given)
    assert first.returncode == 3, first.stderr[-3000:]
    assert "look: 25% of 16 new files were rejected" in first.stderr
    assert json.loads(first.stdout.splitlines()[-1])["scored"] == 12
    second = night(*given)
    assert second.returncode == 0, second.stderr[-3000:]
    assert json.loads(second.stdout.splitlines()[-1])["already_scored"] == 12


@pytest.mark.spark
def test_a_night_that_fails_has_the_code_of_the_job(tmp_path: Path) -> None:
    done = night(tmp_path / "gone", tmp_path / "model", tmp_path / "warehouse")
    assert done.returncode == 2
    assert night(tmp_path).returncode == 2


@pytest.mark.parametrize(("code", "scored"), [(3, 100), (0, 100), (1, 0)])
def test_the_night_ends_as_its_score_did(tmp_path: Path, code: int, scored: int) -> None:
    """Jobs are stood in for by a program that prints what score would."""
    line = {"scored": scored, "rejected": 0, "already_rejected": 0, "exit_code": code}
    told = json.dumps(line | {"shift_by": {"training": {"novelty": 9.0}}, "flagged": {"any": 7}})
    submit = tmp_path / "submit"
    program = f"[ $1 = submit/score.py ] || exit 0\necho '{told}'\nexit {code}\n"
    submit.write_text(f"#!/bin/bash\n{program}")
    submit.chmod(0o700)
    done = night("images", "model", tmp_path, SUBMIT=str(submit))
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["scored"] == scored
    assert ("look: shift" in done.stderr) == (code == 3)


def test_the_schedules_name_what_is_there() -> None:
    ast.parse((ROOT / "conf" / "night" / "eagle_spark_dag.py").read_text())
    for name in ("crontab", "eagle_spark_dag.py"):
        assert "submit/night.sh hdfs:///archive" in (ROOT / "conf" / "night" / name).read_text()
