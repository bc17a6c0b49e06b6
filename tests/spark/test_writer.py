"""Who writes the data files of a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import SettingsError
from eagle_spark.spark.session import open_session
from eagle_spark.tables import TABLES, Table, Warehouse
from eagle_spark.tables.iceberg import IcebergTable
from eagle_spark.tables.schema import Column
from eagle_spark.tables.writer import choose_writer, find_obstacle, read_layout

pytestmark = pytest.mark.spark

NOTES = Table(
    "notes",
    "a table of these tests",
    (Column("path", "STRING", "path"), Column("label", "STRING", "label")),
    partitioned_by=("label",),
)


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "a warehouse")) as session:
        yield Warehouse(session)


def alter(warehouse: Warehouse, change: str) -> IcebergTable:
    """Change the table, and return it."""
    warehouse.spark.sql(f"ALTER TABLE {NOTES.full_name} {change}")
    return warehouse.iceberg(NOTES)


def data_folder(tmp_path: Path) -> Path:
    return tmp_path / "a warehouse" / "cxr" / "notes" / "data"


def test_workers_write_every_table_of_this_package(warehouse: Warehouse, tmp_path: Path) -> None:
    for definition in TABLES:
        warehouse.create_or_migrate(definition)
        table = warehouse.iceberg(definition)
        assert find_obstacle(table, definition) is None
        layout = read_layout(table.describe())
        assert layout.folder == f"file://{tmp_path}/a warehouse/cxr/{definition.name}/data"
        assert layout.schema.names == [column.name for column in definition.columns]
        wanted = [column.nullable for column in definition.columns]
        assert [field.nullable for field in layout.schema] == wanted
    assert not list((tmp_path / "a warehouse").rglob("probe-*"))


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ("SET TBLPROPERTIES ('write.data.path'='s3://k:secret@bucket/x')", "nor hdfs://.*s3://…@b"),
        ("ADD PARTITION FIELD bucket(4, path)", r"\('path', 'bucket\[4\]'\)\); wanted"),
        ("DROP PARTITION FIELD label", r"partitioned by \(\); wanted"),
        ("WRITE ORDERED BY path", "it has a sort order"),
        ("SET TBLPROPERTIES ('write.format.default'='orc')", "is orc; wanted parquet"),
        ("SET TBLPROPERTIES ('write.parquet.compression-codec'='lz4')", "codec is lz4; wanted one"),
        ("SET TBLPROPERTIES ('write.object-storage.enabled'='true')", "not in one folder"),
        ("SET TBLPROPERTIES ('write.data.path'='file:/elsewhere')", "not in one folder"),
        (
            "SET TBLPROPERTIES ('write.data.path'='/relative/to/default')",
            "neither file:/ nor",
        ),
        ("ADD COLUMN price DECIMAL(5, 2)", "column price: no Arrow type"),
        ("SET TBLPROPERTIES ('write.parquet.compression-level'='high')", "is high; wanted a whole"),
        ("SET TBLPROPERTIES ('encryption.key-id'='key')", "it is encrypted"),
    ],
)
def test_an_obstacle_is_named(warehouse: Warehouse, change: str, obstacle: str) -> None:
    warehouse.create_or_migrate(NOTES)
    text = find_obstacle(alter(warehouse, change), NOTES)
    assert text is not None
    assert re.search(obstacle, text), text
    assert "secret" not in text


def test_a_folder_in_which_python_cannot_write_is_an_obstacle(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.create_or_migrate(NOTES)
    data_folder(tmp_path).write_text("a file")
    text = find_obstacle(warehouse.iceberg(NOTES), NOTES)
    assert text is not None
    assert text.startswith(f"Python cannot write to file://{data_folder(tmp_path)}: ")


def test_a_folder_that_java_sees_elsewhere_is_an_obstacle(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagle_spark.tables import writer

    resolve = writer.resolve
    warehouse.create_or_migrate(NOTES)
    # As on a machine whose disk Java mounts under another path.
    monkeypatch.setattr(writer, "resolve", lambda uri: resolve(f"{tmp_path}/x{uri[7:]}"))
    text = find_obstacle(warehouse.iceberg(NOTES), NOTES)
    assert text is not None
    assert text.startswith(
        f"Java cannot read what Python writes to file://{data_folder(tmp_path)}: "
    )


def test_spark_writes_where_workers_cannot(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse.create_or_migrate(NOTES)
    table = warehouse.iceberg(NOTES)
    assert choose_writer("auto", table, NOTES) == "files"
    assert choose_writer("files", table, NOTES) == "files"
    assert choose_writer("spark", table, NOTES) == "spark"
    table = alter(warehouse, "WRITE ORDERED BY path")
    assert choose_writer("auto", table, NOTES) == "spark"
    assert "eagle.cxr.notes: Spark writes the data files: it has a sort order" in caplog.text
    message = r"`writer` must be auto or spark for eagle\.cxr\.notes; got files: it has a sort"
    with pytest.raises(SettingsError, match=message):
        choose_writer("files", table, NOTES)
