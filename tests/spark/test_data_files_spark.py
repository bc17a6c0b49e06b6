"""Data files that Python writes, as Spark and Iceberg read and change them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from eagle_spark.spark.session import open_session
from eagle_spark.tables import FEATURES, PREDICTIONS, Table, Warehouse
from eagle_spark.tables.data_files import (
    DataFileRef,
    FileLayout,
    WrittenFile,
    read_batches,
    split_partitions,
    write_data_file,
)
from eagle_spark.tables.writer import read_layout

pytestmark = pytest.mark.spark

NOW = datetime(2026, 11, 1, 12, 30, 0, 123456, tzinfo=timezone.utc)


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "a warehouse")) as session:
        yield Warehouse(session)


def append(warehouse: Warehouse, table: Table, files: Sequence[WrittenFile]) -> None:
    warehouse.iceberg(table).append_files("main", files, {})


def predictions(first: int, count: int) -> pa.Table:
    """Return rows as a worker computes them; the last one is rejected."""
    numbers = range(first, first + count)
    rows: list[dict[str, object]] = []
    for number in numbers:
        is_scored = number < first + count - 1
        rows.append(
            {
                "image_id": f"{number:064x}",
                "path": f"file:///images/{number:05d}.png",
                "file_length": 2**40 + number,
                "file_modified": NOW,
                "status": "scored" if is_scored else "rejected",
                "reason": None if is_scored else "truncated",
                "label": "COVID" if is_scored else None,
                "confidence": number / 100 if is_scored else None,
                "probabilities": [("COVID", 0.25), ("Normal", 0.75)] if is_scored else None,
                "needs_review": number % 2 == 0 if is_scored else None,
                "review_reasons": ["small"] if is_scored else None,
                "mask": b"\x89PNG" * 100 if is_scored else None,
                "model_id": "m",
                "run_id": "r",
                "scored_at": NOW,
                "dicom": {"view": "PA"} if number % 2 else None,
            }
        )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS.arrow_schema())


def write_part(layout: FileLayout, first: int) -> WrittenFile:
    """Write five rows: a task."""
    return write_data_file(predictions(first, 5), layout, f"run-{first:05d}")[0]


def write_in_workers(warehouse: Warehouse, *firsts: int) -> list[WrittenFile]:
    layout = read_layout(warehouse.iceberg(PREDICTIONS).describe())
    context = warehouse.spark.sparkContext
    files = context.parallelize(firsts, len(firsts)).map(partial(write_part, layout)).collect()
    append(warehouse, PREDICTIONS, files)
    return files


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    """A table of ten rows in two files."""
    warehouse.create_or_migrate(PREDICTIONS)
    write_in_workers(warehouse, 0, 5)
    return warehouse


def paths(warehouse: Warehouse, condition: str = "true") -> list[int]:
    rows = warehouse.read(PREDICTIONS).where(condition).select("path").collect()
    return sorted(int(row.path[-9:-4]) for row in rows)


def test_spark_reads_every_value(filled: Warehouse) -> None:
    table = filled.read(PREDICTIONS).orderBy("path").toArrow()
    wanted = pa.concat_tables([predictions(0, 5), predictions(5, 5)])
    assert table.to_pylist() == wanted.to_pylist()


def test_the_manifest_has_bounds_of_each_file(filled: Warehouse) -> None:
    name = PREDICTIONS.full_name
    rows = filled.spark.sql(
        f"SELECT file_path, record_count, readable_metrics.* FROM {name}.files ORDER BY file_path"
    ).collect()
    assert [row.record_count for row in rows] == [5, 5]
    assert [row.file_path.rsplit("/", 1)[1][:10] for row in rows] == ["run-00000-", "run-00005-"]
    first, second = rows
    assert first.confidence.lower_bound == 0.0
    assert second.confidence.upper_bound == 0.08
    assert first.scored_at.lower_bound.timestamp() == pytest.approx(NOW.timestamp())
    assert first.reason.null_value_count == 4
    assert first.mask.lower_bound is None
    assert first.path.lower_bound.startswith("file:///images/")


def test_conditions_select_the_rows(filled: Warehouse) -> None:
    assert paths(filled, "confidence > 0.055") == [6, 7, 8]
    assert paths(filled, "path = 'file:///images/00003.png'") == [3]
    assert paths(filled, "reason IS NOT NULL") == [4, 9]
    assert paths(filled, "mask IS NULL") == [4, 9]
    assert paths(filled, "scored_at < TIMESTAMP '2026-11-01 12:30:00'") == []
    assert paths(filled, "dicom.view = 'PA'") == [1, 3, 5, 7, 9]
    assert paths(filled, "probabilities['Normal'] = 0.75") == [0, 1, 2, 3, 5, 6, 7, 8]


def test_rows_are_deleted_merged_and_compacted(filled: Warehouse) -> None:
    name, spark = PREDICTIONS.full_name, filled.spark
    filled.delete(PREDICTIONS, "path = 'file:///images/00003.png'")
    assert paths(filled) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    spark.sql(
        f"MERGE INTO {name} AS target USING (SELECT 'file:///images/00006.png' AS path) AS source"
        " ON target.path = source.path WHEN MATCHED THEN UPDATE SET label = 'Normal'"
    )
    assert paths(filled, "label = 'Normal'") == [6]
    before = filled.read(PREDICTIONS).orderBy("path").toArrow()
    spark.sql(
        f"CALL eagle.system.rewrite_data_files(table => '{name}',"
        " options => map('rewrite-all', 'true'))"
    )
    assert filled.read(PREDICTIONS).orderBy("path").toArrow() == before
    (file,) = spark.sql(f"SELECT * FROM {name}.files").collect()
    # Spark wrote this one.
    reference = DataFileRef(file.file_path, file.file_size_in_bytes, file.record_count)
    schema = read_layout(filled.iceberg(PREDICTIONS).describe()).schema
    table = pa.Table.from_batches(list(read_batches(reference, schema.names, schema)))
    assert table.sort_by("path").to_pylist() == before.to_pylist()


def test_files_before_and_after_a_new_column_are_read(filled: Warehouse) -> None:
    spark, name = filled.spark, PREDICTIONS.full_name
    spark.sql(f"ALTER TABLE {name} ADD COLUMN (more STRING AFTER path, dicom.kvp DOUBLE)")
    old, _ = spark.sql(f"SELECT * FROM {name}.files ORDER BY file_path").collect()
    layout = read_layout(filled.iceberg(PREDICTIONS).describe())
    assert layout.schema.names[:3] == ["image_id", "path", "more"]
    reference = DataFileRef(old.file_path, old.file_size_in_bytes, old.record_count)
    columns = ["path", "more", "dicom"]
    table = pa.Table.from_batches(list(read_batches(reference, columns, layout.schema)))
    assert table["more"].null_count == 5
    assert table["dicom"][1].as_py()["view"] == "PA"
    assert table["dicom"][1].as_py()["kvp"] is None
    # As `create_or_migrate` leaves an older table: the rows of new files have the column.
    types = {field.name: field.type for field in layout.schema}
    rows = table.to_pylist()[:1]
    rows[0] |= {"path": "file:///images/00010.png", "more": "x", "dicom": {"kvp": 80.0}}
    required = predictions(0, 1).to_pylist()[0]
    schema = pa.schema(list(types.items()))
    file, _ = write_data_file(pa.Table.from_pylist([required | rows[0]], schema), layout, "run")
    append(filled, PREDICTIONS, [file])
    assert paths(filled, "more = 'x' AND dicom.kvp = 80") == [10]
    assert paths(filled, "more IS NULL") == list(range(10))


def features(count: int) -> pa.Table:
    rows = [
        {
            "path": f"file:///images/{number}.png",
            "image_id": f"{number:064x}",
            "label": "COVID",
            "source": "here",
            "split": "train" if number % 2 else "val",
            "copy": 0,
            "masked": number % 3 == 0,
            "backbone": "b=1/2 %",
            "bucket": 1,
            "statistics": bytes(8),
            "computed_at": NOW,
        }
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema())


def test_files_are_in_their_partitions(warehouse: Warehouse) -> None:
    warehouse.create_or_migrate(FEATURES)
    layout = read_layout(warehouse.iceberg(FEATURES).describe())
    assert layout.partition == ("backbone", "split", "masked", "bucket")
    assert (layout.codec, layout.level, layout.row_group_bytes) == ("none", None, 16 * 2**20)
    parts = split_partitions(features(12), layout)
    append(warehouse, FEATURES, [write_data_file(part, layout, "run")[0] for part in parts])
    table = warehouse.read(FEATURES).toArrow()
    assert table.sort_by("image_id").to_pylist() == features(12).to_pylist()
    query = f"SELECT partition.*, record_count FROM {FEATURES.full_name}.files"
    assert {tuple(row) for row in warehouse.spark.sql(query).collect()} == {
        ("b=1/2 %", split, masked, 1, 2 if masked else 4)
        for split in ("train", "val")
        for masked in (True, False)
    }
    warehouse.delete(FEATURES, "split = 'val' AND masked")
    assert warehouse.read(FEATURES).count() == 10
