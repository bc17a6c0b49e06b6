"""The check of Java's version, and where none is needed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from eagle_spark.errors import PlatformError
from eagle_spark.spark import session
from eagle_spark.spark.session import check_java


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the programs that are started; each is a Java 11."""
    programs: list[list[str]] = []

    def run(words: list[str], **_: object) -> SimpleNamespace:
        programs.append(words)
        return SimpleNamespace(stderr='openjdk version "11.0.22" 2024-01-16')

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(session, "find_java", lambda _: "/opt/no-java/bin/java")
    return programs


def test_an_old_java_is_named(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    with pytest.raises(PlatformError, match=r"Java 17 or 21 is needed.*11\.0\.22"):
        check_java()
    assert started == [["/opt/no-java/bin/java", "-version"]]


def test_under_spark_submit_no_java_is_started(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "25333")
    check_java()
    assert started == []


@pytest.mark.parametrize(
    ("version", "fits"), [("17.0.15", True), ("25", True), ("1.8.0_402", False)]
)
def test_the_file_of_an_installation_names_its_version(
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    version: str,
    fits: bool,
) -> None:
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.touch()
    (tmp_path / "jdk" / "release").write_text(f'SOURCE=""\nJAVA_VERSION="{version}"\n')
    (tmp_path / "java").symlink_to(java)
    monkeypatch.setattr(session, "find_java", lambda _: str(tmp_path / "java"))
    if fits:
        check_java()
    else:
        with pytest.raises(PlatformError, match=rf"Java 17 or 21 is needed.*{version}"):
            check_java()
    assert started == []
