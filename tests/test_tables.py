"""Write, audit, publish: what readers of main see, and when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import EagleError, MainMoved, OutputError
from eagle_spark.session import open_session
from eagle_spark.tables import REJECTS, TABLES, Run, Warehouse

pytestmark = pytest.mark.spark

NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "a warehouse")) as session:
        yield Warehouse(session)


def rejects(warehouse: Warehouse, *paths: str) -> Any:
    rows = [(path, "COVID", "here", "truncated", "", "run", NOW) for path in paths]
    return warehouse.spark.createDataFrame(rows, REJECTS.schema())


def paths(warehouse: Warehouse, branch: str = "main") -> list[str]:
    return sorted(row.path for row in warehouse.read(REJECTS, branch).collect())


def test_readers_of_main_see_nothing_of_a_branch_until_it_is_published(
    warehouse: Warehouse,
) -> None:
    warehouse.ensure(REJECTS)
    warehouse.append(REJECTS, rejects(warehouse, "a"))
    warehouse.open_branch(REJECTS, "run")
    warehouse.append(REJECTS, rejects(warehouse, "b"), "run")
    warehouse.remove_paths(REJECTS, ["a"], "run")
    assert paths(warehouse) == ["a"]
    assert paths(warehouse, "run") == ["b"]
    snapshot = warehouse.publish(REJECTS, "run")
    assert paths(warehouse) == ["b"]
    assert warehouse.branches(REJECTS) == {"main"}
    assert warehouse.snapshot(REJECTS) == snapshot


def test_a_branch_is_not_published_over_what_another_run_published(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    for branch in ("one", "two"):
        warehouse.open_branch(REJECTS, branch)
        warehouse.append(REJECTS, rejects(warehouse, branch), branch)
    warehouse.publish(REJECTS, "one")
    with pytest.raises(MainMoved, match=r"eagle\.cxr\.rejects"):
        warehouse.publish(REJECTS, "two")
    assert paths(warehouse) == ["one"]


def test_a_resumed_branch_brings_its_rows_along_when_main_has_moved(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    for branch in ("one", "two"):
        warehouse.open_branch(REJECTS, branch)
        warehouse.append(REJECTS, rejects(warehouse, branch, "both"), branch)
    warehouse.publish(REJECTS, "one")
    warehouse.resume_branch(REJECTS, "two", "label = 'COVID'", ["path"])
    assert paths(warehouse, "two") == ["both", "one", "two"]
    warehouse.publish(REJECTS, "two")
    assert paths(warehouse) == ["both", "one", "two"]
    assert warehouse.branches(REJECTS) == {"main"}


def test_a_resumed_branch_of_an_unmoved_main_is_left_as_it_is(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    warehouse.resume_branch(REJECTS, "run", "true", ["path"])
    warehouse.append(REJECTS, rejects(warehouse, "a"), "run")
    before = warehouse.snapshot(REJECTS, "run")
    warehouse.resume_branch(REJECTS, "run", "true", ["path"])
    assert warehouse.snapshot(REJECTS, "run") == before


def test_rows_of_another_shape_are_refused(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    with pytest.raises(EagleError, match=r"rows for eagle\.cxr\.rejects: wanted"):
        warehouse.append(REJECTS, rejects(warehouse, "a").drop("detail"))


def test_a_table_of_another_shape_is_named(warehouse: Warehouse) -> None:
    warehouse.spark.sql(f"CREATE TABLE {REJECTS.full_name} (path INT) USING iceberg")
    with pytest.raises(OutputError, match=r"eagle\.cxr\.rejects in this warehouse has other"):
        warehouse.ensure(REJECTS)


def test_every_column_of_every_table_has_a_comment(warehouse: Warehouse) -> None:
    for table in TABLES:
        warehouse.ensure(table)
        for field in warehouse.spark.table(table.full_name).schema.fields:
            assert field.metadata["comment"], (table.name, field.name)


def test_a_warehouse_that_cannot_be_written_is_named(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    place = str(tmp_path / "file" / "warehouse")
    with pytest.raises(OutputError, match="is not writable"), open_session("test", place):
        pass


def test_run_ids_differ() -> None:
    assert Run.begin("score", None).run_id != Run.begin("score", None).run_id
