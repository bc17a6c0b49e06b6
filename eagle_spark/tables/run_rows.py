"""Rows of the table `runs` without Spark: a row is a data file of the driver, and it reads files.

A result of False or None means that only Spark can do it; see `Warehouse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from eagle_spark.errors import InputError, SettingsError
from eagle_spark.tables.data_files import DataFileRef, parse_schema, read_batches, write_data_file
from eagle_spark.tables.definitions import RUNS
from eagle_spark.tables.iceberg import IcebergTable
from eagle_spark.tables.runs import RunRecord
from eagle_spark.tables.writer import find_obstacle, read_layout

TIME = "started_at"
_BATCH_ROWS = 1024  # settings, figures and distribution of a run: about 10 kB
_UNREADABLE = (InputError, SettingsError)  # without field ids, or in a store of Spark alone


def append_row(table: IcebergTable, row: Mapping[str, Any]) -> bool:
    """Append a row to `runs`, in a new data file.

    Args:
        table: `runs`.
        row: column to value.

    Returns:
        False where only Spark can write data files of the table; nothing is written then.
    """
    if find_obstacle(table, RUNS) is not None:
        return False
    rows = pa.Table.from_pylist([dict(row)], schema=RUNS.arrow_schema())
    file, _ = write_data_file(rows, read_layout(table.describe()), row["run_id"])
    table.append_files("main", [file], {})
    return True


def has_row(table: IcebergTable, record: RunRecord) -> bool | None:
    """Return whether `runs` has a row of a run; None where only Spark can read the table."""
    snapshot = table.snapshot_id()
    if snapshot is None:
        return False
    started = record.started_at.isoformat()
    files = table.plan_files(snapshot, {"run_id": record.run_id, TIME: started})
    if not files:
        return None if files is None else False
    schema = parse_schema(table.describe().schema)
    try:
        return any(
            record.run_id in batch["run_id"].to_pylist()
            for file in files
            for batch in read_batches(file, ("run_id",), schema)
        )
    except _UNREADABLE:
        return None


def read_newest_rows(
    table: IcebergTable,
    columns: Sequence[str],
    condition: Mapping[str, str],
    prefix: Mapping[str, str],
    limit: int,
) -> list[dict[str, Any]] | None:
    """Return columns of the newest rows of a condition, the newest first.

    Files are opened from the newest on, until no other one can hold a newer row.

    Args:
        table: `runs`.
        columns: names.
        condition: column to the text that it has to equal.
        prefix: column to the text that it has to begin with where it is not null.
        limit: number of rows, at most.

    Returns:
        None where only Spark can read the table.
    """
    snapshot = table.snapshot_id()
    if snapshot is None:
        return []
    files = table.plan_files(snapshot, condition, prefix, TIME)
    if not files:
        return None if files is None else []
    schema = parse_schema(table.describe().schema)
    names = tuple(dict.fromkeys((TIME, *condition, *prefix, *columns)))
    newest = pa.schema([schema.field(name) for name in names]).empty_table()
    try:
        for file in sorted(files, key=_sort_key, reverse=True):
            if newest.num_rows == limit and not _may_be_newer(file, newest):
                break
            for batch in read_batches(file, names, schema, _BATCH_ROWS):
                rows = pa.Table.from_batches([batch]).filter(_select(batch, condition, prefix))
                newest = pa.concat_tables([newest, rows]).sort_by([(TIME, "descending")])[:limit]
    except _UNREADABLE:
        return None
    selected: list[dict[str, Any]] = newest.select(list(columns)).to_pylist()
    return selected


def _sort_key(file: DataFileRef) -> tuple[bool, int]:
    """Return a key by which a file without a bound, which may hold any row, is the newest."""
    return file.newest is None, file.newest or 0


def _may_be_newer(file: DataFileRef, rows: pa.Table) -> bool:
    oldest = rows[TIME][-1].cast(pa.int64()).as_py()
    return file.newest is None or file.newest > oldest


def _select(
    rows: pa.RecordBatch, condition: Mapping[str, str], prefix: Mapping[str, str]
) -> pa.Array:
    """Return whether each row fulfils the condition."""
    tests = [pc.equal(rows[column], text) for column, text in condition.items()]
    tests += [
        pc.fill_null(pc.starts_with(rows[column], text), True) for column, text in prefix.items()
    ]
    return reduce(pc.and_, tests)
