"""The maintain job: the same rows in fewer files, and nothing left of killed runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.io.lock import AlreadyRunningError, lease
from eagle_spark.settings import MaintainSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import RUNS, Warehouse
from eagle_spark.tables.maintenance import maintain
from eagle_spark.tables.runs import Run

pytestmark = pytest.mark.spark


@dataclass(frozen=True)
class Figures:
    number: int


def record(warehouse: Warehouse, number: int) -> None:
    run = Run(
        "score", f"score-{number}", datetime.now(timezone.utc), MaintainSettings(warehouse="w")
    )
    warehouse.record_run(replace(run.record(Figures(number)), seconds=float(number)))


@pytest.fixture
def folder(spark: Any, tmp_path: Path) -> Path:
    """A warehouse of many small commits, with files of a killed run."""
    with open_session("test", str(tmp_path)) as session:
        warehouse = Warehouse(session)
        for number in range(6):
            record(warehouse, number)
    for name, age in (
        ("_staging/killed", 30),
        ("_staging/running", 0),
        ("_checkpoints/killed", 30),
    ):
        part = tmp_path / "cxr" / name / "part.parquet"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"pixels")
        os.utime(part, (time.time() - age * 86400,) * 2)
    return tmp_path


def runs_of(folder: Path) -> dict[str, float]:
    with open_session("test", str(folder)) as session:
        return {row.run_id: row.seconds for row in Warehouse(session).read(RUNS).collect()}


def test_compaction_keeps_the_rows_and_deletes_leftovers(folder: Path) -> None:
    before = runs_of(folder)
    stray = folder / "cxr" / "runs" / "data" / "stray.parquet"
    shutil.copy(next(stray.parent.glob("*.parquet")), stray)
    os.utime(stray, (time.time() - 30 * 86400,) * 2)
    result = maintain(MaintainSettings(warehouse=str(folder)))
    assert result.files["runs"] == (6, 1)
    assert (result.staging_removed, result.orphans_removed) == (2, 1)
    assert result.branches_dropped == 0
    assert not stray.exists()
    assert os.listdir(folder / "cxr" / "_staging") == ["running"]
    assert os.listdir(folder / "cxr" / "_checkpoints") == []
    after = runs_of(folder)
    assert after.pop(result.run_id) > 0
    assert after == before


def test_old_branches_and_files_are_deleted(folder: Path) -> None:
    with open_session("test", str(folder)) as session:
        warehouse = Warehouse(session)
        warehouse.create_branch(RUNS, "score_killed")
        kept = maintain(MaintainSettings(warehouse=str(folder)))
        assert kept.files["runs"] == (6, 6)  # a run may be active
        warehouse.create_branch(RUNS, "score_begins")
    before = runs_of(folder)
    result = maintain(
        MaintainSettings.model_construct(warehouse=str(folder), keep_days=-1)
    )  # tomorrow
    assert (result.branches_dropped, result.staging_removed) == (1, 1)  # the one that ran
    assert set(runs_of(folder)) == {*before, result.run_id}
    with open_session("test", str(folder)) as session:
        assert Warehouse(session).branches(RUNS) == {"main", "score_begins"}


def test_old_metadata_files_are_deleted(folder: Path) -> None:
    older = {"delete-after-commit.enabled": "false", "previous-versions-max": "1"}
    with open_session("test", str(folder)) as session:
        for name, value in older.items():
            session.sql(
                f"ALTER TABLE {RUNS.full_name} "
                f"SET TBLPROPERTIES ('write.metadata.{name}'='{value}')"
            )
        for number in range(3):
            record(Warehouse(session), number)
    left = sorted((folder / "cxr" / "runs" / "metadata").glob("v*.metadata.json"))
    for path in left:
        os.utime(path, (time.time() - 30 * 86400,) * 2)
    before = runs_of(folder)
    maintain(MaintainSettings(warehouse=str(folder)))
    assert sum(path.exists() for path in left) < len(left) / 2
    assert before.items() <= runs_of(folder).items()


def test_a_second_run_at_the_same_time_fails_and_names_the_first(folder: Path) -> None:
    with (
        lease(str(folder / "cxr" / "_maintain.lease"), "maintain-1", stale_seconds=2.0),
        pytest.raises(AlreadyRunningError, match="already running: maintain-1 on"),
    ):
        maintain(MaintainSettings(warehouse=str(folder)))
    assert maintain(MaintainSettings(warehouse=str(folder))).files_after == 1


def test_a_tag_does_not_prevent_the_compaction(folder: Path) -> None:
    with open_session("test", str(folder)) as session:
        session.sql(f"ALTER TABLE {RUNS.full_name} CREATE TAG audit_2026")
    before = runs_of(folder)
    assert maintain(MaintainSettings(warehouse=str(folder))).files["runs"] == (6, 1)
    assert before.items() <= runs_of(folder).items()


def test_a_warehouse_without_tables_is_left_as_it_is(spark: Any, tmp_path: Path) -> None:
    result = maintain(MaintainSettings(warehouse=str(tmp_path)))
    assert (result.files_before, result.files_after, result.files) == (0, 0, {})


@pytest.mark.slow("a job by its spark-submit")
def test_the_job_ends_with_its_figures(folder: Path, run_job: Callable[..., Any]) -> None:
    done = run_job("maintain", "--warehouse", folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.result["files_after"] == 1
