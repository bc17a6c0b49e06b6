"""The scheduled run: it ends with 0, or with 3 if a person must check the result."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from eagle_spark.datasets.synthetic.sample import write_unlabelled

ROOT = Path(__file__).resolve().parents[2]
SUNDAY = 7


def run_script(
    *words: object, script: Path = ROOT / "submit" / "scheduled_run.sh", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(script), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def program(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o700)
    return str(path)


def path_with_date(folder: Path, day: int) -> str:
    """Return a PATH with a `date` whose `+%u` is the given day of the week."""
    program(folder / "date", f'[ "$1" = +%u ] && echo {day} || exec /bin/date "$@"')
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.extended("two runs by spark-submit", seconds=60)
@pytest.mark.spark
@pytest.mark.train
def test_a_run_with_many_rejected_files_ends_with_3_and_the_next_with_0(
    model_folder: Path, tmp_path: Path
) -> None:
    write_unlabelled(tmp_path / "images", 12, 5)  # and four broken ones
    words = (tmp_path / "images", model_folder, tmp_path / "warehouse")
    cluster = program(
        tmp_path / "submit", '"$PWD/.venv/bin/spark-submit" "$@" > /dev/null || exit 1'
    )
    path = path_with_date(tmp_path / "bin", SUNDAY)
    first = run_script(*words, SUBMIT=cluster, PATH=path)
    assert first.returncode == 3, first.stderr[-3000:]
    assert "attention: 25% of 16 new files were rejected" in first.stderr
    assert json.loads(first.stdout.splitlines()[-1])["scored"] == 12
    second = run_script(*words, PATH=path)
    assert second.returncode == 0, second.stderr[-3000:]
    assert json.loads(second.stdout.splitlines()[-1])["already_scored"] == 12


@pytest.mark.extended("a run by spark-submit", seconds=10)
@pytest.mark.spark
def test_a_failed_run_ends_with_the_exit_code_of_the_job(tmp_path: Path) -> None:
    done = run_script(tmp_path / "gone", tmp_path / "model", tmp_path / "warehouse")
    assert done.returncode == 2
    assert run_script(tmp_path).returncode == 2


class Site:
    """A folder with `scheduled_run.sh` and stubs of the jobs."""

    def __init__(self, place: Path, day: int) -> None:
        self.place = place
        python, script = place / ".venv/bin/python", place / "submit/scheduled_run.sh"
        for link, target in ((python, sys.executable), (script, ROOT / "submit/scheduled_run.sh")):
            link.parent.mkdir(parents=True)
            link.symlink_to(target)
        self.path = path_with_date(place / "bin", day)
        self.set_runs("exit 1")

    def set_runs(self, text: str) -> None:
        """Set the shell command that replaces the query of the table `runs`."""
        program(self.place / "conf/sql/open.sh", text)

    def run(self, **jobs: str) -> subprocess.CompletedProcess[str]:
        cases = "".join(f"submit/{job}.py) {text} ;;\n" for job, text in jobs.items())
        submit = program(self.place / "spark-submit", f"case $1 in\n{cases}esac")
        script = self.place / "submit/scheduled_run.sh"
        words = ("images", "model", "warehouse")
        return run_script(*words, script=script, PATH=self.path, SUBMIT=submit)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, SUNDAY)


def figures(code: int, **others: object) -> str:
    line = {"scored": 100, "rejected": 0, "already_rejected": 0, "exit_code": code}
    drift = {"drift_by": {"training": {"novelty": 9.0}}, "flagged": {"any": 7}}
    return f"echo '{json.dumps({**line, **drift, **others})}'"


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("code", [3, 0, 2])
def test_the_exit_code_is_that_of_score(site: Site, code: int) -> None:
    """Exit code 2 if masks could not be written: rows are published."""
    done = site.run(score=f"{figures(code)}; exit {code}", maintain="echo maintained")
    assert done.returncode == code, done.stderr
    assert [line["scored"] for line in lines(done)] == [100]
    assert ("attention: drift" in done.stderr) == (code == 3)
    assert "maintained" in done.stderr


@pytest.mark.parametrize(
    ("score", "code"),
    [
        (f"{figures(3)}; exit 3", 3),
        (figures(0, rejected=20), 3),
        (f"{figures(2, rejected=20, error='--masks-out')}; exit 2", 3),  # published by then
        (figures(0), 1),
    ],
)
def test_a_failure_after_score_keeps_exit_code_3(site: Site, score: str, code: int) -> None:
    done = site.run(score=score, maintain="echo no room >&2; exit 1")
    assert done.returncode == code
    assert [line["scored"] for line in lines(done)] == [100]
    assert ("attention: " in done.stderr) == (code == 3)
    assert "no room" in done.stderr


def test_the_error_of_score_is_on_both_outputs(site: Site) -> None:
    done = site.run(
        score="""echo 'error: no such folder'; echo '{"error": "no such folder"}'; exit 2""",
        maintain="echo maintained",
    )
    assert done.returncode == 2
    assert lines(done) == [{"error": "no such folder"}]
    assert 'error: no such folder\n{"error": "no such folder"}' in done.stderr
    assert "maintained" not in done.stderr


@pytest.mark.parametrize(
    ("ended", "runs", "code"),
    [
        ("exit 0", figures(0), 0),
        ("exit 0", figures(0, rejected=20), 3),
        ("exit 1", figures(3), 3),
        ("exit 1", f"{figures(3)}; {figures(0)}", 3),  # a second attempt of YARN's
        ("exit 1", figures(0), 1),
        ("exit 1", "exit 1", 1),
        ("exit 0", "exit 1", 3),  # the result is unknown
    ],
)
def test_in_cluster_mode_the_result_is_read_from_the_table_runs(
    site: Site, ended: str, runs: str, code: int
) -> None:
    """There score prints nothing, and `spark-submit` turns exit code 3 into 1."""
    site.set_runs(runs)
    done = site.run(score=ended)
    assert done.returncode == code, done.stderr
    assert len(lines(done)) == runs.count("echo")
    assert ("attention: " in done.stderr) == (code == 3)


def test_schedules_call_the_script() -> None:
    for name in ("crontab", "eagle_spark_dag.py"):
        text = (ROOT / "conf" / "schedule" / name).read_text()
        assert "submit/scheduled_run.sh hdfs:///archive" in text


def test_the_dag_fails_without_a_retry_on_exit_code_3(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a stub of Airflow, which is not installed."""

    class Skip(Exception):
        pass

    class Fail(Exception):
        pass

    class BashOperator:
        def __init__(self, **given: Any) -> None:
            made.append(self)
            self.given = given

        def execute(self, context: int) -> None:
            if context == self.given["skip_on_exit_code"]:
                raise Skip

    made: list[BashOperator] = []
    modules: dict[str, dict[str, object]] = {
        "airflow": {"DAG": lambda *_, **__: nullcontext()},
        "airflow.providers.common.compat.sdk": {
            "AirflowFailException": Fail,
            "AirflowSkipException": Skip,
        },
        "airflow.providers.standard.operators.bash": {"BashOperator": BashOperator},
    }
    for name, inside in modules.items():
        monkeypatch.setitem(sys.modules, name, cast(ModuleType, SimpleNamespace(**inside)))
    runpy.run_path(str(ROOT / "conf/schedule/eagle_spark_dag.py"))
    (task,) = made
    task.execute(0)
    with pytest.raises(Fail, match="needs attention"):
        task.execute(3)
