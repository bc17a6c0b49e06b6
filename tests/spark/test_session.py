"""The Spark session: errors at its start, and its default settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eagle_spark.errors import OutputError
from eagle_spark.io import LocalStorage
from eagle_spark.spark.session import DEFAULT_CONF, GLOB_CHARACTERS, LOCAL_CONF, check_warehouse

DEFAULTS = Path(__file__).resolve().parents[2] / "conf" / "spark-defaults.conf"

MISSPELT = """
import os, sys
os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[x pyspark-shell"
from eagle_spark.cli.runner import run_job as main
from eagle_spark.spark.session import open_session
from eagle_spark.settings import ScoreSettings
def run(settings):
    with open_session("score", settings.warehouse):
        return {}
sys.exit(main(ScoreSettings, run, ["--images", "i", "--model", "m", "--warehouse", sys.argv[1]]))
"""


@pytest.mark.spark
def test_a_spark_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSPELT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: Spark did not start: ")
    assert "local[x" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("character", GLOB_CHARACTERS)
def test_a_warehouse_that_spark_takes_for_a_pattern_is_refused(
    character: str, tmp_path: Path
) -> None:
    place = tmp_path / f"ware{character}house"
    with pytest.raises(OutputError) as caught:
        check_warehouse(str(place))
    assert "`warehouse`" in str(caught.value)
    assert str(caught.value).endswith(f"got {character}")
    assert not place.exists()


def test_two_probes_of_a_warehouse_have_two_names_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = LocalStorage.write

    def watched(self: LocalStorage, path: str, data: bytes) -> None:
        written.append(path)
        write(self, path, data)

    monkeypatch.setattr(LocalStorage, "write", watched)
    for _ in range(2):
        check_warehouse(str(tmp_path))
    assert len(set(written)) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_defaults_file_and_the_rules_do_not_differ() -> None:
    lines = [line.split(maxsplit=1) for line in DEFAULTS.read_text().splitlines()]
    defaults = {line[0]: line[1].strip() for line in lines if line and not line[0].startswith("#")}
    rules = DEFAULT_CONF | LOCAL_CONF
    shared = defaults.keys() & rules.keys()
    assert len(shared) >= 5
    assert {key: defaults[key] for key in shared} == {key: rules[key] for key in shared}
