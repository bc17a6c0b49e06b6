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
    build_spark_environment,
    find_java,
    find_spark_home,
    list_foreign_sparks,
    main,
    write_wrappers,
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


def test_spark_and_python_of_this_environment_override_the_shell() -> None:
    variables = build_spark_environment(JAVA_PATH | TUTORIAL)
    assert variables["SPARK_HOME"] == find_spark_home()
    assert variables["PYSPARK_PYTHON"] == sys.executable
    assert not variables.keys() & {
        "PYSPARK_DRIVER_PYTHON",
        "PYSPARK_DRIVER_PYTHON_OPTS",
        "PYTHONHOME",
    }
    assert variables["LC_ALL"].upper().endswith("UTF-8")


def test_variables_of_the_site_are_kept() -> None:
    site = {
        "PYSPARK_PYTHON": "./environment/bin/python",  # in a container of YARN
        "PYTHONPATH": "/srv/own",
        "LANG": "es_MX.UTF-8",
        "SPARK_LOCAL_IP": "10.0.0.7",
        "SPARK_SUBMIT_OPTS": "-Dx=y",
        "HADOOP_CONF_DIR": "/etc/hadoop",
    }
    assert site.items() <= build_spark_environment(JAVA_PATH | site).items()


def test_pyspark_may_have_another_driver() -> None:
    variables = build_spark_environment(JAVA_PATH | TUTORIAL, "pyspark")
    assert variables["PYSPARK_DRIVER_PYTHON"] == "jupyter"


@pytest.mark.parametrize("variables", [{}, {"LANG": ""}, {"LANG": "C"}, {"LC_CTYPE": "POSIX"}])
def test_a_locale_without_accents_is_replaced(variables: dict[str, str]) -> None:
    environ = build_spark_environment(JAVA_PATH | variables)
    counts = next(environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name))
    assert counts.upper().endswith("UTF-8")


def test_another_spark_is_removed_from_the_python_path(tmp_path: Path) -> None:
    (tmp_path / "spark" / "pyspark").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    entries = [
        str(tmp_path / "spark"),
        "/x/py4j-0.10.7-src.zip",
        "/x/pyspark.zip",
        str(tmp_path / "own"),
    ]
    environ = JAVA_PATH | {"PYTHONPATH": os.pathsep.join(entries)}
    assert list_foreign_sparks(environ) == entries[:3]
    assert build_spark_environment(environ)["PYTHONPATH"] == entries[3]


def test_wrappers_quote_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "it's a $(b) `c`" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    write_wrappers(str(tmp_path))
    assert {"spark-submit", "spark-sql", "pyspark", "beeline"} <= set(os.listdir(tmp_path))
    shown = subprocess.run(
        [tmp_path / "spark-submit", "a b", "$x"], capture_output=True, text=True, timeout=20
    )
    assert shown.stdout == "-I -m eagle_spark.spark.environment spark-submit a b $x\n"


@pytest.mark.parametrize("home", ["/nowhere", "/usr/bin/java", "/etc/passwd"])
def test_a_java_home_without_java_is_named(home: str) -> None:
    with pytest.raises(PlatformError, match=rf"JAVA_HOME: wanted .*bin/java; got {home}"):
        find_java({"JAVA_HOME": home})


def test_a_missing_java_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"Java 17 or 21 is needed.*JAVA_HOME is not set"):
        find_java({"PATH": str(tmp_path)})


def test_an_environment_error_is_one_line_and_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert main(["spark-submit", "x.py"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    result = json.loads(shown.out)
    assert (result["exit_code"], result["kind"]) == (2, "PlatformError")
    assert shown.err == f"error: {result['error']}\n"


def test_native_libraries_are_unpacked_where_execution_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(environment, "JAVA_TMP", "/usual")
    monkeypatch.setattr(environment, "allows_execution", lambda folder: folder != "/usual")
    options = build_spark_environment(JAVA_PATH | {"SPARK_SUBMIT_OPTS": "-Dx=y"})[
        "SPARK_SUBMIT_OPTS"
    ]
    assert options == f'-Dx=y "-Djava.io.tmpdir={tmp_path / "tmp"}"'
    with_tmpdir = JAVA_PATH | {"TMPDIR": str(tmp_path / "own")}
    assert str(tmp_path / "own") in build_spark_environment(with_tmpdir)["SPARK_SUBMIT_OPTS"]
    with_java_options = JAVA_PATH | {"JAVA_TOOL_OPTIONS": "-Djava.io.tmpdir=/srv"}
    assert "SPARK_SUBMIT_OPTS" not in build_spark_environment(with_java_options)
    monkeypatch.setattr(environment, "allows_execution", lambda _: False)
    with pytest.raises(PlatformError, match=r"/usual is mounted noexec.*set TMPDIR"):
        build_spark_environment(JAVA_PATH)


def test_a_host_name_without_an_address_is_replaced_by_localhost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert build_spark_environment(JAVA_PATH)["SPARK_LOCAL_IP"] == "127.0.0.1"


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
