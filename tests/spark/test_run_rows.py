"""Rows of `runs` that the driver writes and reads itself, and Spark where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.spark.session import open_session
from eagle_spark.tables import RUNS, RunRecord, Warehouse, run_rows
from eagle_spark.tables.iceberg import IcebergTable

pytestmark = pytest.mark.spark

START = datetime(2026, 11, 1, 12, 30, 0, 123456, tzinfo=timezone.utc)
OF_M = {"job": "score", "model_id": "m"}
UNREADABLE = {
    "rows of delete files": {"write.merge.mode": "merge-on-read"},
    "another format": {"write.format.default": "orc"},
}


def create_record(number: int, model: str | None = "m", **changes: Any) -> RunRecord:
    columns: dict[str, Any] = {
        "run_id": f"score-20261101T123000-{number:08x}",
        "job": "score",
        "started_at": START + timedelta(minutes=number),
        "seconds": float(number),
        "settings": '{"images": "/ward"}',
        "result": f'{{"scored": {number}}}',
        "model_id": model,
        "versions": {"python": "3", "pyspark": "4"},
        "distribution": None,
    }
    return RunRecord(**{**columns, **changes})


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "a warehouse")) as session:
        yield Warehouse(session)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that the driver opens."""
    files: list[str] = []
    original = run_rows.read_batches

    def read(file: Any, *arguments: Any) -> Any:
        files.append(file.uri)
        return original(file, *arguments)

    monkeypatch.setattr(run_rows, "read_batches", read)
    return files


@pytest.fixture
def spark_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables that `Warehouse` reads by Spark."""
    tables: list[str] = []
    original = Warehouse.read

    def read(warehouse: Warehouse, table: Any, *arguments: Any) -> Any:
        tables.append(table.name)
        return original(warehouse, table, *arguments)

    monkeypatch.setattr(Warehouse, "read", read)
    return tables


def alter(warehouse: Warehouse, properties: dict[str, str]) -> None:
    listed = ", ".join(f"'{key}'='{value}'" for key, value in properties.items())
    warehouse.spark.sql(f"ALTER TABLE {RUNS.full_name} SET TBLPROPERTIES ({listed})")


def read_ids(warehouse: Warehouse, limit: int = 3, **prefix: str) -> list[int]:
    rows = warehouse.read_newest_runs(("run_id",), OF_M, limit, prefix)
    return [int(row["run_id"].rpartition("-")[2], 16) for row in rows]


def list_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("runs/data/*.parquet"))


def compact(warehouse: Warehouse) -> None:
    warehouse.spark.sql(
        f"CALL eagle.system.rewrite_data_files(table => '{RUNS.full_name}', "
        "options => map('rewrite-all', 'true'))"
    )


def test_a_row_of_the_driver_is_the_row_of_spark(warehouse: Warehouse, tmp_path: Path) -> None:
    first, second = create_record(1, distribution="{}"), create_record(2, model=None)
    warehouse.record_run(first, 7)
    (name,) = list_files(tmp_path)
    assert name.startswith(first.run_id)
    warehouse.spark.sql(f"ALTER TABLE {RUNS.full_name} WRITE ORDERED BY run_id")
    warehouse.record_run(second)
    assert len(list_files(tmp_path)) == 2
    assert not [name for name in list_files(tmp_path) if name.startswith(second.run_id)]
    rows = warehouse.read(RUNS).orderBy("run_id").collect()
    for row, record, snapshot in zip(rows, (first, second), (7, None), strict=True):
        columns = {**row.asDict(), "started_at": record.started_at}
        assert columns == {**asdict(record), "snapshot_id": snapshot}
    micros = warehouse.read(RUNS).selectExpr("unix_micros(started_at) AS at").orderBy("at")
    wanted = [int(record.started_at.timestamp() * 1e6) for record in (first, second)]
    assert [row.at for row in micros.collect()] == wanted
    assert warehouse._has_record(first)
    assert warehouse._has_record(second)


def test_the_file_that_holds_a_run_is_the_only_one_opened(
    warehouse: Warehouse, opened: list[str], spark_reads: list[str]
) -> None:
    assert not warehouse._has_record(create_record(0))
    for number in range(5):
        warehouse.record_run(create_record(number))
    assert opened == []
    assert warehouse._has_record(create_record(3))
    assert len(opened) == 1
    assert not warehouse._has_record(create_record(9))
    assert not warehouse._has_record(create_record(3, run_id="score-another"))
    assert len(opened) <= 2
    assert spark_reads == []


@pytest.mark.parametrize("is_compacted", [False, True])
@pytest.mark.parametrize("properties", [{}, {"write.metadata.metrics.default": "none"}])
def test_the_newest_rows_of_a_model_come_first(
    warehouse: Warehouse, spark_reads: list[str], properties: dict[str, str], is_compacted: bool
) -> None:
    warehouse.create_or_migrate(RUNS)
    alter(warehouse, properties or {"of": "this test"})
    texts = [None, "{}", '{"grid":1}', "{}", '{"grid":1}', "{}", "{}"]
    for number in (4, 1, 6, 0, 3, 5, 2):
        warehouse.record_run(create_record(number, distribution=texts[number]))
    warehouse.record_run(create_record(7, model="another"))
    warehouse.record_run(create_record(8, model=None))
    warehouse.record_run(create_record(9, job="train"))
    if is_compacted:
        compact(warehouse)
    assert read_ids(warehouse) == [6, 5, 4]
    assert read_ids(warehouse, 99) == [6, 5, 4, 3, 2, 1, 0]
    assert read_ids(warehouse, 99, distribution='{"') == [4, 2, 0]
    assert read_ids(warehouse, 1, distribution='{"') == [4]
    (row,) = warehouse.read_newest_runs(("result", "distribution"), OF_M, 1)
    assert row == {"result": '{"scored": 6}', "distribution": "{}"}
    assert warehouse._has_record(create_record(3))
    assert not warehouse._has_record(create_record(3, run_id="score-another"))
    assert spark_reads == []


def test_files_of_older_rows_are_not_opened(warehouse: Warehouse, opened: list[str]) -> None:
    for number in range(3):
        warehouse.record_run(create_record(number, distribution='{"grid":1}'))
    compact(warehouse)
    for number in range(3, 9):
        warehouse.record_run(create_record(number, distribution="{}"))
    assert read_ids(warehouse, 4) == [8, 7, 6, 5]
    assert len(opened) == 4
    opened.clear()
    assert read_ids(warehouse, 2, distribution='{"') == [2, 1]
    assert len(opened) == 1


def test_a_warehouse_without_runs_has_no_newest_run(warehouse: Warehouse) -> None:
    assert read_ids(warehouse) == []
    warehouse.create_or_migrate(RUNS)
    assert read_ids(warehouse) == []
    assert not warehouse._has_record(create_record(0))


@pytest.mark.parametrize("kind", UNREADABLE)
def test_spark_reads_what_files_alone_do_not_give(
    warehouse: Warehouse, spark_reads: list[str], kind: str
) -> None:
    warehouse.create_or_migrate(RUNS)
    alter(warehouse, UNREADABLE[kind])
    for number in range(4):
        warehouse.record_run(create_record(number, distribution="{}" if number % 2 else None))
    warehouse.record_run(create_record(3, result="replaced", distribution="{}"))
    spark_reads.clear()
    assert read_ids(warehouse) == [3, 2, 1]
    assert read_ids(warehouse, distribution='{"') == [2, 0]
    assert warehouse.read_newest_runs(("result",), OF_M, 1) == [{"result": "replaced"}]
    assert warehouse._has_record(create_record(3))
    assert not warehouse._has_record(create_record(4))
    assert set(spark_reads) == {"runs"}


def test_spark_reads_a_file_without_field_ids(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.record_run(create_record(1))
    rows = warehouse.read(RUNS).selectExpr("* EXCEPT (run_id)", "'score-0a' AS run_id")
    rows.coalesce(1).write.parquet(str(tmp_path / "others"))
    warehouse.spark.sql(
        f"CALL eagle.system.add_files(table => '{RUNS.full_name}', "
        f"source_table => '`parquet`.`{tmp_path / 'others'}`')"
    )
    assert sorted(read_ids(warehouse)) == [1, 10]
    assert warehouse._has_record(create_record(1, run_id="score-0a"))


def test_a_table_of_an_earlier_version_is_read(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(RUNS)
    warehouse.spark.sql(f"ALTER TABLE {RUNS.full_name} DROP COLUMN distribution")
    columns = ", ".join(column.name for column in RUNS.columns[:-1])
    warehouse.spark.sql(
        f"INSERT INTO {RUNS.full_name} ({columns}) VALUES ('score-01', 'score', "
        "TIMESTAMP '2026-11-01 12:00:00Z', 1.0, '{}', '{}', 1, 'm', map('python', '3'))"
    )
    assert read_ids(warehouse) == [1]
    assert "distribution" not in warehouse.read(RUNS).columns
    warehouse.create_or_migrate(RUNS)
    columns_read = ("run_id", "distribution")
    rows = warehouse.read_newest_runs(columns_read, OF_M, 9, {"distribution": '{"'})
    assert rows == [{"run_id": "score-01", "distribution": None}]
    warehouse.record_run(create_record(2, distribution="{}"))
    assert read_ids(warehouse) == [2, 1]
    record = create_record(
        1, run_id="score-01", started_at=datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
    )
    assert warehouse._has_record(record)
    warehouse.record_run(record)
    assert read_ids(warehouse) == [2, 1]


def test_a_record_of_an_earlier_version_has_no_distribution() -> None:
    record = create_record(1, distribution='{"grid":1}')
    text = record.dumps()
    assert RunRecord.loads(text) == record
    assert RunRecord.loads(text.replace('"distribution"', '"unknown"')).distribution is None


def test_runs_that_end_at_the_same_time_are_all_recorded(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.create_or_migrate(RUNS)

    def record(numbers: range) -> None:
        with open_session("test", str(tmp_path / "a warehouse")) as session:
            for number in numbers:
                Warehouse(session).record_run(create_record(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, (range(first, 12, 4) for first in range(4))))
    assert read_ids(warehouse, 99) == [*range(11, -1, -1)]
    assert warehouse.read(RUNS).count() == 12
    assert len(list_files(tmp_path)) == 12


def test_another_commit_between_two_tries_is_kept(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.record_run(create_record(1))
    original = IcebergTable._append

    def append_late(*arguments: Any) -> Any:
        monkeypatch.setattr(IcebergTable, "_append", original)
        warehouse.record_run(create_record(2))
        return original(*arguments)

    monkeypatch.setattr(IcebergTable, "_append", append_late)
    warehouse.record_run(create_record(3))
    assert read_ids(warehouse) == [3, 2, 1]
