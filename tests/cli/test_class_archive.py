"""The class-data archive: for which Java, jars and settings a driver takes it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eagle_spark.spark.archive import CONF_FILES, add_archive, find_no_conf, name_archive
from eagle_spark.spark.environment import (
    build_spark_environment,
    find_java,
    find_java_release,
    find_spark_home,
)
from tests.helpers.prerequisites import skip_without


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a Spark with two jars and the files of `make install`."""
    home = tmp_path / "it's a spark"
    for name in ("jars/a.jar", "jars/b.jar", *(f"conf/{name}" for name in CONF_FILES)):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    return home


@pytest.fixture
def release(tmp_path: Path) -> Path:
    (tmp_path / "release").write_text('JAVA_VERSION="17.0.15"')
    return tmp_path / "release"


@pytest.fixture
def archive(home: Path, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an archive for this Java and these jars."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    archive = name_archive(release, str(home))
    assert archive is not None
    archive.parent.mkdir(parents=True)
    archive.touch()
    return archive


def test_a_driver_takes_the_archive_and_the_settings_of_make_install(
    archive: Path, home: Path, release: Path
) -> None:
    given = {"SPARK_HOME": str(home), "SPARK_SUBMIT_OPTS": "-Dx=y"}
    variables, arguments = add_archive(release, given, ["--conf", "a=b", "job.py", "--x"])
    defaults = str(home / "conf" / "spark-defaults.conf")
    assert arguments == ["--properties-file", defaults, "--conf", "a=b", "job.py", "--x"]
    options = shlex.split(variables["SPARK_SUBMIT_OPTS"])
    assert options[0] == "-Dx=y"
    assert f"-XX:SharedArchiveFile={archive}" in options
    assert f"-Dlog4j2.configurationFile=file:{home}/conf/log4j2.properties" in options
    assert not Path(variables["SPARK_CONF_DIR"]).exists()


def test_a_program_that_a_job_starts_has_each_option_once(
    archive: Path, home: Path, release: Path
) -> None:
    job, _ = add_archive(release, {"SPARK_HOME": str(home)}, ["job.py"])
    inherited = {name: value for name, value in job.items() if name != "SPARK_CONF_DIR"}
    assert add_archive(release, inherited, ["job.py"])[0] == job


def test_a_program_that_a_job_starts_finds_its_own_conf_folder() -> None:
    inherited = {"PATH": os.environ["PATH"], "SPARK_CONF_DIR": find_no_conf()}
    assert "SPARK_CONF_DIR" not in build_spark_environment(inherited)


@pytest.mark.parametrize("change", ["other Java", "other jar", "new jar", "touched jar", "moved"])
def test_an_archive_of_another_java_or_of_other_jars_is_not_taken(
    archive: Path, home: Path, release: Path, change: str
) -> None:
    if change == "other Java":
        release.write_text('JAVA_VERSION="17.0.16"')
    elif change == "other jar":
        (home / "jars" / "a.jar").write_text("longer than before")
    elif change == "new jar":
        (home / "jars" / "c.jar").touch()
    elif change == "touched jar":
        os.utime(home / "jars" / "a.jar", (0, 0))
    else:
        home = home.rename(home.with_name("spark"))
    given = {"SPARK_HOME": str(home)}
    assert add_archive(release, given, ["job.py"]) == (given, ["job.py"])
    assert add_archive(None, given, ["job.py"]) == (given, ["job.py"])


@pytest.mark.parametrize(
    "arguments",
    [
        "--properties-file conf/yarn-score.conf",
        "--properties-file=conf/yarn-score.conf",
        "--master yarn",
        "--master=spark://host:7077",
        "--conf spark.master=yarn",
        "--deploy-mode cluster",
    ],
)
def test_other_settings_of_the_command_line_leave_the_archive_aside(
    archive: Path, home: Path, release: Path, arguments: str
) -> None:
    given, words = {"SPARK_HOME": str(home)}, [*arguments.split(), "job.py"]
    assert add_archive(release, given, words) == (given, words)


@pytest.mark.parametrize("arguments", ["--master local[2]", "--conf spark.master=local[2,4]"])
def test_another_number_of_cores_is_no_other_place(
    archive: Path, home: Path, release: Path, arguments: str
) -> None:
    words = [*arguments.split(), "job.py"]
    assert add_archive(release, {"SPARK_HOME": str(home)}, words)[1][2:] == words


def test_a_conf_folder_of_the_site_leaves_the_archive_aside(
    archive: Path, home: Path, release: Path
) -> None:
    site = {"SPARK_HOME": str(home), "SPARK_CONF_DIR": "/etc/spark"}
    assert add_archive(release, site, []) == (site, [])
    (home / "conf" / "hive-site.xml").touch()
    given = {"SPARK_HOME": str(home)}
    assert add_archive(release, given, []) == (given, [])


@pytest.mark.spark
def test_the_jvm_of_spark_submit_maps_the_archive_of_make_install() -> None:
    release, home = find_java_release(find_java(os.environ)), find_spark_home()
    archive = name_archive(release, home) if home else None
    if archive is None or not archive.is_file():
        skip_without("no archive for this Java and these jars: make install")
    # With `-Xshare:on` a JVM that cannot map its archive ends.
    environ = {name: value for name, value in os.environ.items() if name != "SPARK_CONF_DIR"}
    done = subprocess.run(
        [Path(sys.executable).with_name("spark-submit"), "--version"],
        env=environ | {"SPARK_SUBMIT_OPTS": "-Xshare:on -Xlog:class+load:file=/dev/stderr"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "org.apache.spark.deploy.SparkSubmit source: shared objects file (top)" in done.stderr
