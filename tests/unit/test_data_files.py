"""Data files of a table, written and read without a JVM."""

from __future__ import annotations

import io
import json
import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.errors import EagleError, InputError, OutputError
from eagle_spark.io import LocalStorage
from eagle_spark.tables.data_files import (
    DataFileRef,
    FileLayout,
    WrittenFile,
    parse_schema,
    read_batches,
    split_partitions,
    write_data_file,
)

NOW = datetime(2026, 11, 1, 12, 30, 0, 123456, tzinfo=timezone.utc)


def field(number: int, name: str, kind: object, required: bool = False) -> dict[str, Any]:
    return {"id": number, "name": name, "required": required, "type": kind}


def schema_json(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "struct", "schema-id": 0, "fields": list(fields)})


CHANCES = {
    "type": "map",
    "key-id": 20,
    "key": "string",
    "value-id": 21,
    "value-required": False,
    "value": "double",
}
FLAGS = {"type": "list", "element-id": 22, "element": "string", "element-required": False}
TAGS = {"type": "struct", "fields": [field(23, "view", "string"), field(24, "device", "string")]}
SCHEMA = parse_schema(
    schema_json(
        field(1, "path", "string", True),
        field(2, "split", "string"),
        field(3, "masked", "boolean", True),
        field(4, "bucket", "int", True),
        field(5, "length", "long", True),
        field(6, "novelty", "double"),
        field(7, "mask", "binary"),
        field(8, "scored_at", "timestamptz", True),
        field(9, "chances", CHANCES),
        field(10, "flags", FLAGS),
        field(11, "tags", TAGS),
    )
)


@pytest.fixture
def layout(tmp_path: Path) -> FileLayout:
    return FileLayout(f"file:{tmp_path}/data", SCHEMA, (), "zstd", 3, 2**27)


def make_rows(count: int = 3, **changes: list[object]) -> pa.Table:
    """Return rows without field ids; every third one has nulls where it may."""
    full = [number % 3 < 2 for number in range(count)]
    columns: dict[str, list[Any]] = {
        "scored_at": [NOW] * count,  # not the order of the schema
        "path": [f"file:///images/{number}.png" for number in range(count)],
        "split": ["train" if one else None for one in full],
        "masked": full,
        "bucket": [7] * count,
        "length": [2**40 + number for number in range(count)],
        "novelty": [0.5 if one else None for one in full],
        "mask": [b"\x89PNG" * 100 if one else None for one in full],
        "chances": [[("COVID", 0.25), ("Normal", 0.75)] if one else None for one in full],
        "flags": [["small", None] if one else [] for one in full],
        "tags": [{"view": "PA", "device": None} if one else None for one in full],
    }
    plain = {one.name: strip(one.type) for one in SCHEMA}
    schema = pa.schema([(name, plain[name]) for name in columns])
    return pa.Table.from_pydict(columns | changes, schema=schema)


def strip(kind: pa.DataType) -> pa.DataType:
    """Return a type without the names and ids that Iceberg's fields have."""
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, kind.item_type)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([(one.name, one.type) for one in kind])
    return kind


def write(rows: pa.Table, layout: FileLayout) -> WrittenFile:
    return write_data_file(rows, layout, "run-00001")[0]


def open_file(file: WrittenFile) -> pq.ParquetFile:
    return pq.ParquetFile(file.uri.removeprefix("file:"))


def read(file: WrittenFile, *columns: str, schema: pa.Schema = SCHEMA) -> pa.Table:
    reference = DataFileRef(file.uri, file.length, file.rows)
    return pa.Table.from_batches(list(read_batches(reference, columns, schema)))


def test_every_field_has_its_id_and_its_nullability() -> None:
    assert SCHEMA.field("path").metadata == {b"PARQUET:field_id": b"1"}
    assert not SCHEMA.field("path").nullable
    assert SCHEMA.field("split").nullable
    assert SCHEMA.field("scored_at").type == pa.timestamp("us", tz="UTC")
    chances, flags, tags = (SCHEMA.field(name).type for name in ("chances", "flags", "tags"))
    inner = [chances.key_field, chances.item_field, flags.value_field, *tags]
    assert [one.metadata[b"PARQUET:field_id"] for one in inner] == [
        b"20",
        b"21",
        b"22",
        b"23",
        b"24",
    ]
    assert [one.nullable for one in inner] == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("decimal(5, 2)", r"decimal\(5, 2\)"),
        ("variant", "variant"),
        ({**FLAGS, "element": "uuid"}, "uuid"),
    ],
)
def test_a_type_without_an_arrow_form_names_its_column(kind: object, name: str) -> None:
    with pytest.raises(ValueError, match=f"column price: no Arrow type for Iceberg's type {name}$"):
        parse_schema(schema_json(field(1, "path", "string"), field(2, "price", kind)))


def test_the_file_has_the_schema_of_the_table_and_no_other(layout: FileLayout) -> None:
    rows = make_rows()
    file, written = write_data_file(rows, layout, "run-00001")
    parquet = open_file(file)
    shown = str(parquet.schema)
    for line in (
        "required binary field_id=1 path (String)",
        "required int64 field_id=8 scored_at (Timestamp(isAdjustedToUTC=true, timeUnit=micro",
        "required binary field_id=20 key (String)",
        "optional double field_id=21 value",
        "optional binary field_id=22 element (String)",
        "optional binary field_id=24 device (String)",
    ):
        assert line in shown
    assert parquet.metadata.metadata is None  # no ARROW:schema
    assert parquet.schema_arrow.names == SCHEMA.names
    assert written.schema.equals(SCHEMA, check_metadata=True)
    assert written.to_pylist() == rows.select(SCHEMA.names).to_pylist()
    assert (file.rows, file.partition) == (3, ())
    assert file.length == Path(file.uri.removeprefix("file:")).stat().st_size


def test_binary_columns_have_no_statistics(layout: FileLayout) -> None:
    group = open_file(write(make_rows(), layout)).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(13)}
    assert {path for path, one in columns.items() if not one.is_stats_set} == {"mask"}
    assert columns["path"].statistics.min == "file:///images/0.png"
    assert columns["novelty"].statistics.null_count == 1


@pytest.mark.parametrize(
    ("codec", "level", "name"),
    [
        ("none", None, "UNCOMPRESSED"),
        ("snappy", None, "SNAPPY"),
        ("gzip", 6, "GZIP"),
        ("zstd", 1, "ZSTD"),
        ("lz4", None, "LZ4"),
    ],
)
def test_files_are_compressed_as_the_table_wants(
    layout: FileLayout, codec: str, level: int | None, name: str
) -> None:
    file = write(make_rows(), replace(layout, codec=codec, level=level))
    assert open_file(file).metadata.row_group(0).column(0).compression == name
    assert read(file, "path").num_rows == 3


def test_row_groups_have_the_size_that_the_table_wants(layout: FileLayout) -> None:
    rows = make_rows(100, mask=[bytes(10_000)] * 100)
    metadata = open_file(write(rows, replace(layout, row_group_bytes=200_000))).metadata
    counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(counts) == 100
    assert max(counts) == counts[0]
    assert 150_000 < counts[0] * 10_000 <= 200_000
    tiny = open_file(write(rows, replace(layout, row_group_bytes=1)))
    assert tiny.metadata.num_row_groups == 100


def test_attempts_of_a_task_write_different_files_with_visible_names(layout: FileLayout) -> None:
    first, second = (Path(write(make_rows(), layout).uri) for _ in range(2))
    assert first != second
    assert first.name.startswith("run-00001-")
    assert first.suffix == second.suffix == ".parquet"


def test_a_layout_reaches_a_worker_unchanged(layout: FileLayout) -> None:
    copy = pickle.loads(pickle.dumps(layout))  # noqa: S301
    assert copy == layout
    assert copy.schema.equals(SCHEMA, check_metadata=True)


def cut(data: bytes) -> bytes:
    return data[:-1]


def lengthen(data: bytes) -> bytes:
    return data + b"x"


def flip(data: bytes) -> bytes:
    return data[:20] + bytes([data[20] ^ 1]) + data[21:]


@pytest.mark.parametrize("damage", [cut, lengthen, flip])
def test_bytes_that_differ_when_read_back_are_an_error(
    layout: FileLayout, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    intact = LocalStorage.read
    monkeypatch.setattr(LocalStorage, "read", lambda *call: damage(intact(*call)))
    with pytest.raises(OutputError, match=r"run-00001-\w+\.parquet: wanted the .* bytes that were"):
        write(make_rows(), layout)
    assert list(Path(layout.folder.removeprefix("file:")).iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_and_not_left(layout: FileLayout) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match=r"parquet cannot be written: .*File too large"):
            write(make_rows(), layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(Path(layout.folder.removeprefix("file:")).iterdir()) == []


MILLISECONDS = pa.timestamp("ms", "UTC")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: make_rows(3, path=["a", None, "c"]), "rows for .*'path' with null values"),
        (lambda rows: rows.drop_columns(["mask"]), "wanted path string, .*; got scored_at"),
        (lambda rows: rows.append_column("more", rows["path"]), "got scored_at .*more string$"),
        (
            lambda rows: rows.set_column(0, "scored_at", rows[0].cast(MILLISECONDS, False)),
            r"got scored_at timestamp\[ms, tz=UTC\]",
        ),
        (lambda rows: rows.set_column(5, "length", rows[5].cast(pa.int32())), "got .*"),
    ],
    ids=["null", "missing", "additional", "milliseconds", "width"],
)
def test_rows_of_another_schema_are_refused(
    layout: FileLayout, change: Callable[[pa.Table], pa.Table], message: str, tmp_path: Path
) -> None:
    rows = make_rows(3, length=[1, 2, 3])
    with pytest.raises(EagleError, match=message):
        write(change(rows), layout)
    assert list(tmp_path.iterdir()) == []


def test_each_partition_gets_its_file(layout: FileLayout) -> None:
    layout = replace(layout, partition=("split", "masked", "bucket"))
    rows = make_rows(7, bucket=[7, 7, 7, 8, 7, 7, 7])
    parts = list(split_partitions(rows, layout))
    files = [write(part, layout) for part in parts]
    assert [file.partition for file in files] == [
        ("train", "true", "7"),
        (None, "false", "7"),
        ("train", "true", "8"),
    ]
    assert [[path[-5] for path in part["path"].to_pylist()] for part in parts] == [
        ["0", "1", "4", "6"],
        ["2", "5"],
        ["3"],
    ]
    assert read(files[0], "split", "masked", "bucket").num_rows == 4  # the columns remain
    with pytest.raises(EagleError, match="wanted one value of split; got 2"):
        write(rows, layout)


def test_rows_without_a_partition_stay_together(layout: FileLayout) -> None:
    rows = make_rows()
    (part,) = split_partitions(rows, layout)
    assert part is rows


OLDER = parse_schema(
    schema_json(
        field(5, "length", "int", True),  # a wider type since
        field(11, "labels", {"type": "struct", "fields": [field(24, "machine", "string")]}),
        field(1, "uri", "string", True),  # renamed since
        field(30, "split", "string"),  # dropped since, and added again under the same name
    )
)


def test_columns_of_an_older_file_are_matched_by_their_ids(layout: FileLayout) -> None:
    older = {
        "length": [1, 2],
        "labels": [{"machine": "AXR"}, None],
        "uri": ["a", "b"],
        "split": ["val", "val"],
    }
    plain = pa.schema([(one.name, strip(one.type)) for one in OLDER])
    file = write(pa.Table.from_pydict(older, schema=plain), replace(layout, schema=OLDER))
    columns = ("path", "tags", "split", "chances", "flags", "length")
    table = read(file, *columns)
    assert table.schema.equals(pa.schema([SCHEMA.field(name) for name in columns]))
    assert table.to_pydict() == {
        "path": ["a", "b"],
        "tags": [{"view": None, "device": "AXR"}, None],
        "split": [None, None],
        "chances": [None, None],
        "flags": [None, None],
        "length": [1, 2],
    }
    assert read(file, "novelty").to_pydict() == {"novelty": [None, None]}


def test_batches_are_as_large_as_row_groups_at_most(layout: FileLayout) -> None:
    rows = make_rows(10)
    file = write(rows, replace(layout, row_group_bytes=rows.nbytes // 2))
    reference = DataFileRef(file.uri, file.length, file.rows)
    batches = list(read_batches(reference, ["length", "path"], SCHEMA))
    metadata = open_file(file).metadata
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert len(groups) > 1
    assert [batch.num_rows for batch in batches] == groups
    table = pa.Table.from_batches(batches)
    assert table.to_pylist() == rows.select(["length", "path"]).to_pylist()


def test_a_file_without_field_ids_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(make_rows(), sink)
    (tmp_path / "x.parquet").write_bytes(sink.getvalue())
    file = WrittenFile(f"file://{tmp_path}/x.parquet", len(sink.getvalue()), 3)
    with pytest.raises(InputError, match=r"x\.parquet: wanted columns with field ids"):
        read(file, "path")


@pytest.mark.parametrize("content", [None, b"", b"PAR1" * 10])
def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.parquet cannot be read"):
        read(WrittenFile(f"file://{tmp_path}/x.parquet", 40, 3), "path")
