"""Write, audit, publish: what readers of main see, and when."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import AuditError, CommitConflictError, EagleError, OutputError
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import RUNS, TABLES, Run, Warehouse, versions
from eagle_spark.tables.branch import Branch
from eagle_spark.tables.schema import Column, Table

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)
NOTES = Table(
    "notes",
    "a table of these tests",
    (
        *(
            Column(name, "STRING", name)
            for name in ("path", "label", "source", "reason", "detail", "run_id")
        ),
        Column("noted_at", "TIMESTAMP", "time, UTC"),
    ),
)


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "a warehouse")) as session:
        yield Warehouse(session)


def notes(warehouse: Warehouse, *paths: str, run: str = "run") -> Any:
    rows = [(path, "COVID", "here", "truncated", "", run, NOW) for path in paths]
    return warehouse.spark.createDataFrame(rows, NOTES.schema())


def publish(warehouse: Warehouse, branch: str, table: Table = NOTES) -> int | None:
    return Branch(warehouse, table, branch, None).publish(lambda _: None, lambda _: None)[1]


def paths(warehouse: Warehouse, branch: str = "main") -> list[str]:
    return sorted(row.path for row in warehouse.read(NOTES, branch).collect())


@pytest.mark.spark
def test_readers_of_main_see_nothing_of_a_branch_until_it_is_published(
    warehouse: Warehouse,
) -> None:
    warehouse.create_or_migrate(NOTES)
    warehouse.append(NOTES, notes(warehouse, "a"))
    warehouse.create_branch(NOTES, "run")
    warehouse.append(NOTES, notes(warehouse, "b"), "run")
    warehouse.delete(NOTES, "path = 'a'", "run")
    assert paths(warehouse) == ["a"]
    assert paths(warehouse, "run") == ["b"]
    snapshot = publish(warehouse, "run")
    assert paths(warehouse) == ["b"]
    assert warehouse.branches(NOTES) == {"main"}
    assert warehouse.snapshot(NOTES) == snapshot


@pytest.mark.spark
def test_metadata_of_old_commits_does_not_pile_up(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.create_or_migrate(NOTES)
    warehouse.spark.sql(
        f"ALTER TABLE {NOTES.full_name} "
        "SET TBLPROPERTIES ('write.metadata.previous-versions-max'='2')"
    )
    for path in "abcdef":
        warehouse.append(NOTES, notes(warehouse, path))
    assert len(list(tmp_path.rglob("v*.metadata.json"))) == 3
    assert paths(warehouse) == list("abcdef")


@pytest.mark.spark
def test_an_older_table_gets_the_columns_that_it_lacks(warehouse: Warehouse) -> None:
    new = Column("why", "ARRAY<STRING>", "why, it's new", nullable=True)
    first, *others = NOTES.columns
    warehouse.create_or_migrate(NOTES)
    warehouse.append(NOTES, notes(warehouse, "a"))
    warehouse.create_branch(NOTES, "run")
    warehouse.append(NOTES, notes(warehouse, "b"), "run")
    later = replace(NOTES, columns=(first, new, *others))
    warehouse.create_or_migrate(later)
    for branch in ("main", "run"):
        assert {row.why for row in warehouse.read(later, branch).collect()} == {None}
    (row,) = warehouse.read(later).collect()
    warehouse.append(later, warehouse.spark.createDataFrame([row], later.schema()), "run")
    publish(warehouse, "run", later)
    assert paths(warehouse) == ["a", "a", "b"]
    with pytest.raises(OutputError, match="other columns"):
        warehouse.create_or_migrate(
            replace(NOTES, columns=(*NOTES.columns, replace(new, nullable=False)))
        )


@pytest.mark.spark
def test_a_column_that_another_run_adds_at_the_same_moment_is_no_error(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.create_or_migrate(NOTES)
    later = replace(NOTES, columns=(*NOTES.columns, Column("extra", "STRING", "new", True)))
    add = warehouse.spark.sql

    def add_late(text: str) -> Any:
        add(text)  # by the other run
        return add(text)

    monkeypatch.setattr(warehouse.spark, "sql", add_late)
    warehouse.create_or_migrate(later)
    monkeypatch.undo()
    assert warehouse.read(later).columns == [column.name for column in later.columns]


@pytest.mark.spark
def test_an_older_struct_gets_the_fields_that_it_lacks(warehouse: Warehouse) -> None:
    def with_tags(fields: str) -> Table:
        tags = Column("tags", f"STRUCT<{fields}>", "of the file", nullable=True)
        return replace(NOTES, columns=(*NOTES.columns, tags))

    older, later = with_tags("a: STRING"), with_tags("a: STRING, b: STRING")
    warehouse.create_or_migrate(older)
    rows = warehouse.spark.sql(
        "SELECT 'p' AS path, 'l' AS label, 's' AS source, 'r' AS reason, 'd' AS detail,"
        " 'i' AS run_id, TIMESTAMP '2026-01-01' AS noted_at, named_struct('a', 'x') AS tags"
    )
    warehouse.append(older, rows)
    warehouse.create_or_migrate(later)
    (row,) = warehouse.read(later).collect()
    assert row.tags.asDict() == {"a": "x", "b": None}
    warehouse.append(later, warehouse.spark.createDataFrame([row], later.schema()))


@pytest.mark.spark
def test_a_branch_is_not_published_over_what_another_run_published(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    for branch in ("one", "two"):
        warehouse.create_branch(NOTES, branch)
        warehouse.append(NOTES, notes(warehouse, branch), branch)
    publish(warehouse, "one")
    with pytest.raises(CommitConflictError, match=r"eagle\.cxr\.notes"):
        publish(warehouse, "two")
    assert paths(warehouse) == ["one"]


@pytest.mark.spark
def test_a_resumed_branch_keeps_its_rows_after_a_commit_to_main(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    for branch in ("one", "two"):
        warehouse.create_branch(NOTES, branch)
        warehouse.append(NOTES, notes(warehouse, branch, "both", run=branch), branch)
    publish(warehouse, "one")
    assert warehouse.resume_branch(NOTES, "two", "label = 'COVID'")
    assert paths(warehouse, "two") == ["both", "one", "two"]
    publish(warehouse, "two")
    assert paths(warehouse) == ["both", "one", "two"]
    (both,) = warehouse.read(NOTES).where("path = 'both'").collect()
    assert both.run_id == "two"
    assert warehouse.branches(NOTES) == {"main"}


@pytest.mark.spark
def test_rows_that_a_resumed_branch_began_with_are_not_brought_back(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    warehouse.append(NOTES, notes(warehouse, "old", "kept", run="first"))
    warehouse.create_branch(NOTES, "run")
    warehouse.append(NOTES, notes(warehouse, "new", run="second"), "run")
    warehouse.delete(NOTES, "path = 'old'")
    warehouse.delete(NOTES, "path = 'kept'")
    assert warehouse.resume_branch(NOTES, "run", "true")
    assert paths(warehouse, "run") == ["new"]


@pytest.mark.spark
def test_a_resumed_branch_is_unchanged_if_main_is(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    assert not warehouse.resume_branch(NOTES, "run", "true")
    warehouse.append(NOTES, notes(warehouse, "a"), "run")
    before = warehouse.snapshot(NOTES, "run")
    assert not warehouse.resume_branch(NOTES, "run", "true")
    assert warehouse.snapshot(NOTES, "run") == before


@dataclass(frozen=True)
class Figures:
    rows: int


@pytest.mark.spark
def test_a_published_run_is_recorded_even_if_it_dies_before_its_own_row(
    warehouse: Warehouse,
) -> None:
    warehouse.create_or_migrate(NOTES)
    run = Run.begin("score", ScoreSettings(images="i", model="m", warehouse="w"))
    with warehouse.branch(NOTES, "run") as branch:
        branch.append(notes(warehouse, "a"))
        figures, snapshot = branch.publish(
            lambda rows: Figures(rows.count()), partial(run.record, model_id="m")
        )
    assert (figures, paths(warehouse)) == (Figures(1), ["a"])
    assert not warehouse.exists(RUNS)  # the run was killed here
    for _ in range(2):
        warehouse.record_published_run(NOTES)
        (row,) = warehouse.read(RUNS).collect()
        assert (row.run_id, row.job, row.model_id) == (run.run_id, "score", "m")
        assert (row.result, row.snapshot_id) == ('{"rows": 1}', snapshot)
        assert json.loads(row.settings)["images"] == "i"
        assert row.versions["python"]
    warehouse.record_run(run.record(Figures(2)), snapshot)  # the run was not killed, and ends
    (row,) = warehouse.read(RUNS).collect()
    assert row.result == '{"rows": 2}'


@pytest.mark.spark
def test_a_branch_without_new_rows_publishes_nothing(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    warehouse.append(NOTES, notes(warehouse, "a"))
    before = warehouse.snapshot(NOTES)
    run = Run.begin("score", ScoreSettings(images="i", model="m", warehouse="w"))
    with warehouse.branch(NOTES, "run") as branch:
        assert branch.publish(lambda _: Figures(0), run.record)[1] == before
    assert warehouse.branches(NOTES) == {"main"}


@pytest.mark.spark
def test_a_failed_audit_publishes_nothing(warehouse: Warehouse) -> None:
    def audit(_: Any) -> Figures:
        raise AuditError("no")

    warehouse.create_or_migrate(NOTES)
    warehouse.append(NOTES, notes(warehouse, "a"))
    run = Run.begin("score", None)

    def publish_b(carry: str | None) -> None:
        with warehouse.branch(NOTES, "run", carry=carry) as branch:
            branch.append(notes(warehouse, "b"))
            branch.publish(audit, run.record)

    for carry in (None, "true"):
        with pytest.raises(AuditError, match="no"):
            publish_b(carry)
        assert paths(warehouse) == ["a"]
        assert warehouse.branches(NOTES) == {"main"} | ({"run"} if carry else set())


@pytest.mark.spark
def test_a_branch_that_changes_after_its_audit_is_not_published(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    warehouse.append(NOTES, notes(warehouse, "a"))
    run = Run.begin("score", ScoreSettings(images="i", model="m", warehouse="w"))
    with warehouse.branch(NOTES, "run") as branch:
        branch.append(notes(warehouse, "b"))
        with pytest.raises(AuditError, match="has changed since it was audited"):
            branch.publish(
                lambda _: Figures(1), run.record, lambda: branch.append(notes(warehouse, "c"))
            )
    assert paths(warehouse) == ["a"]


@pytest.mark.spark
def test_a_column_that_may_be_null_now_is_relaxed_in_an_older_table(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    first, *others = NOTES.columns
    later = replace(NOTES, columns=(first, replace(others[0], nullable=True), *others[1:]))
    warehouse.create_or_migrate(later)
    row = ("a", None, "here", "truncated", "", "run", NOW)
    warehouse.append(later, warehouse.spark.createDataFrame([row], later.schema()))
    assert paths(warehouse) == ["a"]


@pytest.mark.spark
def test_rows_of_another_shape_are_refused(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(NOTES)
    with pytest.raises(EagleError, match=r"rows for eagle\.cxr\.notes: wanted"):
        warehouse.append(NOTES, notes(warehouse, "a").drop("detail"))


@pytest.mark.spark
def test_a_table_of_another_shape_is_named(warehouse: Warehouse) -> None:
    warehouse.spark.sql(f"CREATE TABLE {NOTES.full_name} (path INT) USING iceberg")
    with pytest.raises(OutputError, match=r"eagle\.cxr\.notes in this warehouse has other"):
        warehouse.create_or_migrate(NOTES)


@pytest.mark.spark
def test_every_column_of_every_table_has_a_comment(warehouse: Warehouse) -> None:
    for table in TABLES:
        warehouse.create_or_migrate(table)
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


def test_a_missing_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_open_sh_names_a_missing_warehouse(options: list[str], code: int, tmp_path: Path) -> None:
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
