"""Write, audit, publish: what readers of main see, and when."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from py4j.protocol import Py4JJavaError

from eagle_spark.errors import EagleError, MainMoved, OutputError
from eagle_spark.spark.session import open_session
from eagle_spark.tables import REJECTS, TABLES, Run, Warehouse, versions
from eagle_spark.tables.schema import Column, Table, change_branch

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "a warehouse")) as session:
        yield Warehouse(session)


def rejects(warehouse: Warehouse, *paths: str, run: str = "run") -> Any:
    rows = [(path, "COVID", "here", "truncated", "", run, NOW) for path in paths]
    return warehouse.spark.createDataFrame(rows, REJECTS.schema())


def paths(warehouse: Warehouse, branch: str = "main") -> list[str]:
    return sorted(row.path for row in warehouse.read(REJECTS, branch).collect())


@pytest.mark.spark
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


@pytest.mark.spark
def test_metadata_of_old_commits_does_not_pile_up(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.ensure(REJECTS)
    warehouse.spark.sql(
        f"ALTER TABLE {REJECTS.full_name} "
        "SET TBLPROPERTIES ('write.metadata.previous-versions-max'='2')"
    )
    for path in "abcdef":
        warehouse.append(REJECTS, rejects(warehouse, path))
    assert len(list(tmp_path.rglob("v*.metadata.json"))) == 3
    assert paths(warehouse) == list("abcdef")


@pytest.mark.spark
def test_an_older_table_gets_the_columns_that_it_lacks(warehouse: Warehouse) -> None:
    new = Column("why", "ARRAY<STRING>", "why, it's new", nullable=True)
    first, *others = REJECTS.columns
    warehouse.ensure(REJECTS)
    warehouse.append(REJECTS, rejects(warehouse, "a"))
    warehouse.open_branch(REJECTS, "run")
    warehouse.append(REJECTS, rejects(warehouse, "b"), "run")
    later = replace(REJECTS, columns=(first, new, *others))
    warehouse.ensure(later)
    for branch in ("main", "run"):
        assert {row.why for row in warehouse.read(later, branch).collect()} == {None}
    (row,) = warehouse.read(later).collect()
    warehouse.append(later, warehouse.spark.createDataFrame([row], later.schema()), "run")
    warehouse.publish(later, "run")
    assert paths(warehouse) == ["a", "a", "b"]
    with pytest.raises(OutputError, match="other columns"):
        warehouse.ensure(replace(REJECTS, columns=(*REJECTS.columns, replace(new, nullable=False))))


@pytest.mark.spark
def test_an_older_struct_gets_the_fields_that_it_lacks(warehouse: Warehouse) -> None:
    def with_tags(fields: str) -> Table:
        tags = Column("tags", f"STRUCT<{fields}>", "of the file", nullable=True)
        return replace(REJECTS, columns=(*REJECTS.columns, tags))

    older, later = with_tags("a: STRING"), with_tags("a: STRING, b: STRING")
    warehouse.ensure(older)
    rows = warehouse.spark.sql(
        "SELECT 'p' AS path, 'l' AS label, 's' AS source, 'r' AS reason, 'd' AS detail,"
        " 'i' AS run_id, TIMESTAMP '2026-01-01' AS rejected_at, named_struct('a', 'x') AS tags"
    )
    warehouse.append(older, rows)
    warehouse.ensure(later)
    (row,) = warehouse.read(later).collect()
    assert row.tags.asDict() == {"a": "x", "b": None}
    warehouse.append(later, warehouse.spark.createDataFrame([row], later.schema()))


@pytest.mark.spark
def test_a_branch_is_not_published_over_what_another_run_published(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    for branch in ("one", "two"):
        warehouse.open_branch(REJECTS, branch)
        warehouse.append(REJECTS, rejects(warehouse, branch), branch)
    warehouse.publish(REJECTS, "one")
    with pytest.raises(MainMoved, match=r"eagle\.cxr\.rejects"):
        warehouse.publish(REJECTS, "two")
    assert paths(warehouse) == ["one"]


class Thrown(SimpleNamespace):
    """An exception of Java."""

    _target_id = "o1"

    def __str__(self) -> str:
        return str(self.text)


@pytest.mark.parametrize(
    ("text", "times", "asked"),
    [
        ("org.apache.iceberg.exceptions.CommitFailedException: refresh is required", 4, 5),
        ("org.apache.iceberg.exceptions.CommitFailedException: refresh is required", 5, 5),
        ("java.io.IOException: no space", 1, 1),
    ],
)
def test_a_branch_is_changed_again_where_another_commit_was_first(
    text: str, times: int, asked: int
) -> None:
    statements = []

    def sql(statement: str) -> None:
        statements.append(statement)
        if len(statements) <= times:
            raise Py4JJavaError("", Thrown(text=text))

    expected = nullcontext() if times < asked else pytest.raises(Py4JJavaError)
    with expected:
        change_branch(cast(Any, SimpleNamespace(sql=sql)), "DROP BRANCH")
    assert statements == ["DROP BRANCH"] * asked


@pytest.mark.spark
def test_a_resumed_branch_brings_its_rows_along_when_main_has_moved(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    for branch in ("one", "two"):
        warehouse.open_branch(REJECTS, branch)
        warehouse.append(REJECTS, rejects(warehouse, branch, "both", run=branch), branch)
    warehouse.publish(REJECTS, "one")
    assert warehouse.resume_branch(REJECTS, "two", "label = 'COVID'")
    assert paths(warehouse, "two") == ["both", "one", "two"]
    warehouse.publish(REJECTS, "two")
    assert paths(warehouse) == ["both", "one", "two"]
    (both,) = warehouse.read(REJECTS).where("path = 'both'").collect()
    assert both.run_id == "two"
    assert warehouse.branches(REJECTS) == {"main"}


@pytest.mark.spark
def test_rows_that_a_resumed_branch_began_with_are_not_brought_back(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    warehouse.append(REJECTS, rejects(warehouse, "old", "kept", run="first"))
    warehouse.open_branch(REJECTS, "run")
    warehouse.append(REJECTS, rejects(warehouse, "new", run="second"), "run")
    warehouse.remove(REJECTS, "path = 'old'", "main")
    warehouse.remove(REJECTS, "path = 'kept'", "main")
    assert warehouse.resume_branch(REJECTS, "run", "true")
    assert paths(warehouse, "run") == ["new"]


@pytest.mark.spark
def test_a_resumed_branch_of_an_unmoved_main_is_left_as_it_is(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    assert not warehouse.resume_branch(REJECTS, "run", "true")
    warehouse.append(REJECTS, rejects(warehouse, "a"), "run")
    before = warehouse.snapshot(REJECTS, "run")
    assert not warehouse.resume_branch(REJECTS, "run", "true")
    assert warehouse.snapshot(REJECTS, "run") == before


@pytest.mark.spark
def test_rows_of_another_shape_are_refused(warehouse: Warehouse) -> None:
    warehouse.ensure(REJECTS)
    with pytest.raises(EagleError, match=r"rows for eagle\.cxr\.rejects: wanted"):
        warehouse.append(REJECTS, rejects(warehouse, "a").drop("detail"))


@pytest.mark.spark
def test_a_table_of_another_shape_is_named(warehouse: Warehouse) -> None:
    warehouse.spark.sql(f"CREATE TABLE {REJECTS.full_name} (path INT) USING iceberg")
    with pytest.raises(OutputError, match=r"eagle\.cxr\.rejects in this warehouse has other"):
        warehouse.ensure(REJECTS)


@pytest.mark.spark
def test_every_column_of_every_table_has_a_comment(warehouse: Warehouse) -> None:
    for table in TABLES:
        warehouse.ensure(table)
        for field in warehouse.spark.table(table.full_name).schema.fields:
            assert field.metadata["comment"], (table.name, field.name)


@pytest.mark.spark
def test_a_warehouse_that_cannot_be_written_is_named(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    place = str(tmp_path / "file" / "warehouse")
    with pytest.raises(OutputError, match="is not writable"), open_session("test", place):
        pass


def test_run_ids_differ() -> None:
    assert Run.begin("score", None).run_id != Run.begin("score", None).run_id


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name == "tensorflow":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    assert "tensorflow" in versions()
    monkeypatch.setattr(metadata, "version", version)
    found = versions()
    assert "tensorflow" not in found
    assert {"eagle_spark", "python", "pyspark", "pyarrow"} <= found.keys()


@pytest.mark.parametrize(("options", "code"), [([], 1), ([""], 1), (["{tmp}/none"], 2)])
def test_sql_says_what_is_wrong_with_its_warehouse(
    options: list[str], code: int, tmp_path: Path
) -> None:
    given = [option.format(tmp=tmp_path) for option in options]
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "conf" / "sql" / "open.sh"), *given],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    wanted = "usage: open.sh WAREHOUSE" if code == 1 else f"error: no tables in file://{given[0]}"
    assert wanted in done.stderr
