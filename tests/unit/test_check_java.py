"""The check of Java's version, and where none is needed."""

from __future__ import annotations

import subprocess
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
    monkeypatch.setattr(session, "find_java", lambda _: "/usr/bin/java")
    return programs


def test_an_old_java_is_named(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    with pytest.raises(PlatformError, match=r"Java 17 or 21 is needed.*11\.0\.22"):
        check_java()
    assert started == [["/usr/bin/java", "-version"]]


def test_under_spark_submit_no_java_is_started(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "25333")
    check_java()
    assert started == []
