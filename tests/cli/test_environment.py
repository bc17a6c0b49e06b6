"""The shell that starts a job is set up for another Spark, Python, locale or machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from eagle_spark.errors import PlatformError
from eagle_spark.spark import environment
from eagle_spark.spark.environment import (
    find_java,
    main,
    other_sparks,
    spark_environment,
    spark_home,
    wrap_programs,
)

ROOT = Path(__file__).resolve().parents[2]
JAVA_PATH = {"PATH": os.environ["PATH"]}
# What tutorials put into .bashrc, and cron does not.
TUTORIAL = {
    "SPARK_HOME": "/opt/no-spark",
    "PYSPARK_PYTHON": "/usr/bin/python3",
    "PYSPARK_DRIVER_PYTHON": "jupyter",
    "PYSPARK_DRIVER_PYTHON_OPTS": "notebook",
    "PYTHONPATH": "/opt/no-spark/python:/opt/no-spark/python/lib/py4j-0.10.7-src.zip",
    "PYTHONHOME": "/opt/no-python",
    "LC_ALL": "C",
}


def test_this_environments_spark_and_python_are_used_whatever_the_shell_names() -> None:
    found = spark_environment(JAVA_PATH | TUTORIAL)
    assert found["SPARK_HOME"] == spark_home()
    assert found["PYSPARK_PYTHON"] == sys.executable
    assert not found.keys() & {"PYSPARK_DRIVER_PYTHON", "PYSPARK_DRIVER_PYTHON_OPTS", "PYTHONHOME"}
    assert found["LC_ALL"].upper().endswith("UTF-8")


def test_what_is_the_sites_own_stays() -> None:
    own = {
        "PYSPARK_PYTHON": "./environment/bin/python",  # in a container of YARN
        "PYTHONPATH": "/srv/own",
        "LANG": "es_MX.UTF-8",
        "SPARK_LOCAL_IP": "10.0.0.7",
        "SPARK_SUBMIT_OPTS": "-Dx=y",
        "HADOOP_CONF_DIR": "/etc/hadoop",
    }
    assert own.items() <= spark_environment(JAVA_PATH | own).items()


def test_pyspark_may_have_another_driver() -> None:
    found = spark_environment(JAVA_PATH | TUTORIAL, "pyspark")
    assert found["PYSPARK_DRIVER_PYTHON"] == "jupyter"


@pytest.mark.parametrize("variables", [{}, {"LANG": ""}, {"LANG": "C"}, {"LC_CTYPE": "POSIX"}])
def test_a_locale_without_accents_is_replaced(variables: dict[str, str]) -> None:
    found = spark_environment(JAVA_PATH | variables)
    counts = next(found[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if found.get(name))
    assert counts.upper().endswith("UTF-8")


def test_another_spark_on_the_python_path_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "spark" / "pyspark").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    entries = [
        str(tmp_path / "spark"),
        "/x/py4j-0.10.7-src.zip",
        "/x/pyspark.zip",
        str(tmp_path / "own"),
    ]
    environ = JAVA_PATH | {"PYTHONPATH": os.pathsep.join(entries)}
    assert other_sparks(environ) == entries[:3]
    assert spark_environment(environ)["PYTHONPATH"] == entries[3]


def test_the_wrappers_stand_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "it's a $(b) `c`" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    wrap_programs(str(tmp_path))
    assert {"spark-submit", "spark-sql", "pyspark", "beeline"} <= set(os.listdir(tmp_path))
    shown = subprocess.run(
        [tmp_path / "spark-submit", "a b", "$x"], capture_output=True, text=True, timeout=20
    )
    assert shown.stdout == "-I -m eagle_spark.spark.environment spark-submit a b $x\n"


@pytest.mark.parametrize("home", ["/nowhere", "/usr/bin/java", "/etc/passwd"])
def test_a_java_home_without_java_is_named(home: str) -> None:
    with pytest.raises(PlatformError, match=rf"JAVA_HOME is {home}, where there is no bin/java"):
        find_java({"JAVA_HOME": home})


def test_no_java_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"Java 17 or 21 is needed.*JAVA_HOME is not set"):
        find_java({"PATH": str(tmp_path)})


def test_what_cannot_be_mended_is_one_line_and_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert main(["spark-submit", "x.py"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    found = json.loads(shown.out)
    assert (found["exit_code"], found["kind"]) == (2, "PlatformError")
    assert shown.err == f"error: {found['error']}\n"


def test_native_libraries_are_unpacked_where_they_may_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(environment, "JAVA_TMP", "/usual")
    monkeypatch.setattr(environment, "runs_programs", lambda folder: folder != "/usual")
    options = spark_environment(JAVA_PATH | {"SPARK_SUBMIT_OPTS": "-Dx=y"})["SPARK_SUBMIT_OPTS"]
    assert options == f'-Dx=y "-Djava.io.tmpdir={tmp_path / "tmp"}"'
    own = JAVA_PATH | {"TMPDIR": str(tmp_path / "own")}
    assert str(tmp_path / "own") in spark_environment(own)["SPARK_SUBMIT_OPTS"]
    given = JAVA_PATH | {"JAVA_TOOL_OPTIONS": "-Djava.io.tmpdir=/srv"}
    assert "SPARK_SUBMIT_OPTS" not in spark_environment(given)
    monkeypatch.setattr(environment, "runs_programs", lambda _: False)
    with pytest.raises(PlatformError, match=r"/usual is mounted noexec.*set TMPDIR"):
        spark_environment(JAVA_PATH)


def test_a_host_name_without_an_address_becomes_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert spark_environment(JAVA_PATH)["SPARK_LOCAL_IP"] == "127.0.0.1"


@pytest.mark.spark
@pytest.mark.slow(reason="a job by its spark-submit, in a shell that is set up for another Spark")
def test_a_job_runs_in_the_shell_of_a_tutorial(tmp_path: Path) -> None:
    warehouse = tmp_path / "tórax"
    done = subprocess.run(
        [
            *(ROOT / ".venv/bin/spark-submit", ROOT / "submit/maintain.py"),
            *("--warehouse", warehouse),
        ],
        env=TUTORIAL | {"PATH": "/usr/bin:/bin", "JAVA_HOME": os.environ.get("JAVA_HOME", "")},
        cwd=tmp_path,
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["run_id"]
    assert (warehouse / "cxr").is_dir()
