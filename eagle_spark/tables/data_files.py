"""Data files of a table, written and read by workers: Parquet with Iceberg's field ids, no JVM."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.errors import EagleError, InputError, OutputError
from eagle_spark.io import join, resolve

SCHEMES = ("file:/", "hdfs://")
"""Of the URIs of data files that workers write and read."""
_FIELD_ID = b"PARQUET:field_id"
_TYPES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "string": pa.string(),
    "binary": pa.binary(),
}
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class FileLayout:
    """What a worker needs to write data files of a table. Picklable.

    Attributes:
        folder: URI of the folder of the data files, as the table's manifests have it.
        schema: of the table, with field ids.
        partition: columns by whose values the table is partitioned, in the order of its spec.
        codec: compression, by pyarrow's name.
        level: of the compression; None for a codec without levels.
        row_group_bytes: size of a row group in memory.
    """

    folder: str
    schema: pa.Schema
    partition: tuple[str, ...]
    codec: str
    level: int | None
    row_group_bytes: int


@dataclass(frozen=True)
class DataFileRef:
    """A data file to read: a Parquet file of a table, of which no row is deleted.

    Attributes:
        uri: of the file.
        length: bytes.
        rows: number of rows.
        newest: greatest value of a timestamp column, µs since 1970; None where the plan has none.
    """

    uri: str
    length: int
    rows: int
    newest: int | None = None


@dataclass(frozen=True)
class WrittenFile:
    """A data file that a worker wrote and read back; no snapshot names it yet.

    Attributes:
        uri: of the file.
        length: bytes.
        rows: number of rows.
        partition: values of the partition columns as Iceberg reads them from text; None is null.
    """

    uri: str
    length: int
    rows: int
    partition: tuple[str | None, ...] = ()


def parse_schema(text: str) -> pa.Schema:
    """Return the Arrow schema, with field ids, of an Iceberg schema.

    Args:
        text: JSON of Iceberg's `SchemaParser`.

    Raises:
        ValueError: for a type that no table of this package has; names the column and the type.
    """
    fields = []
    for column in json.loads(text)["fields"]:
        try:
            fields.append(_parse_field(column))
        except KeyError as error:
            raise ValueError(
                f"column {column['name']}: no Arrow type for Iceberg's type {error.args[0]}"
            ) from error
    return pa.schema(fields)


def _parse_field(field: dict[str, Any]) -> pa.Field:
    return _create_field(field["name"], field["type"], field["id"], field["required"])


def _create_field(name: str, kind: str | dict[str, Any], number: int, required: bool) -> pa.Field:
    return pa.field(name, _parse_type(kind), not required, {_FIELD_ID: str(number).encode()})


def _parse_type(kind: str | dict[str, Any]) -> pa.DataType:
    if isinstance(kind, str):
        return _TYPES[kind]
    if kind["type"] == "struct":
        return pa.struct([_parse_field(field) for field in kind["fields"]])
    if kind["type"] == "list":
        element, number = kind["element"], kind["element-id"]
        return pa.list_(_create_field("element", element, number, kind["element-required"]))
    return pa.map_(
        _create_field("key", kind["key"], kind["key-id"], True),
        _create_field("value", kind["value"], kind["value-id"], kind["value-required"]),
    )


def write_data_file(rows: pa.Table, layout: FileLayout, name: str) -> tuple[WrittenFile, pa.Table]:
    """Write rows of one partition to a new file, and read it back.

    Args:
        rows: the columns of the table, in any order.
        layout: of the table.
        name: first part of the file's name; a random part follows, so that no two attempts of a
            task write the same file.

    Returns:
        The file, and its rows, decoded from the bytes that were read back.

    Raises:
        EagleError: when the rows are not rows of one partition of the table.
        OutputError: when the file cannot be written, or its bytes are not those that were written.
    """
    uri = join(layout.folder, f"{name}-{uuid4().hex}.parquet")
    rows = _conform_rows(rows, layout.schema, uri)
    partition = _read_partition(rows, layout.partition, uri)
    data = _encode(rows, layout)
    storage, path = resolve(uri)
    try:
        storage.create(path, data)
        copy = storage.read(path, len(data) + 1)
    except OSError as error:
        raise OutputError(f"{uri} cannot be written: {error}") from error
    if copy != data:
        with suppress(OSError):
            storage.delete(path)
        raise OutputError(
            f"{uri}: wanted the {len(data)} bytes that were written;"
            f" got {len(copy)} bytes that differ from them"
        )
    with pq.ParquetFile(pa.BufferReader(copy)) as file:
        written = file.read(use_threads=False).cast(layout.schema)
    return WrittenFile(uri, len(copy), written.num_rows, partition), written


def split_partitions(rows: pa.Table, layout: FileLayout) -> Iterator[pa.Table]:
    """Yield the rows of each partition, in their order; the partitions by their first row."""
    if not layout.partition:
        yield rows
        return
    columns = (rows[column].to_pylist() for column in layout.partition)
    numbers: dict[tuple[object, ...], int] = {}
    row_numbers = [numbers.setdefault(key, len(numbers)) for key in zip(*columns, strict=True)]
    for number in range(len(numbers)):
        yield rows.filter(pa.array(np.equal(row_numbers, number)))


def read_batches(
    file: DataFileRef, columns: Sequence[str], schema: pa.Schema, batch_rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield batches of columns of a data file, in its order; no batch spans two row groups.

    Args:
        file: of any schema that the table has had.
        columns: names in `schema`. Fields are matched by their ids, also those of a struct; one
            that is not in the file is null.
        schema: of the table, with field ids.
        batch_rows: number of rows of a batch, at most.

    Raises:
        InputError: when the file cannot be read, or has no field ids.
    """
    targets = [schema.field(name) for name in columns]
    storage, path = resolve(file.uri)
    try:
        with storage.open(path) as stream, pq.ParquetFile(stream) as parquet:
            present = {_field_id(field): field for field in parquet.schema_arrow}
            if None in present:
                raise InputError(f"{file.uri}: wanted columns with field ids; got one without")
            names = [present[key].name for key in map(_field_id, targets) if key in present]
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(
                    batch_rows, row_groups=[group], columns=names, use_threads=False
                ):
                    arrays = _select(batch.schema, batch.columns, targets, len(batch))
                    yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(targets))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file.uri} cannot be read: {error}") from error


def _select(
    fields: Iterable[pa.Field], arrays: Sequence[pa.Array], targets: Iterable[pa.Field], rows: int
) -> list[pa.Array]:
    """Return the array of each target, as its type: that of the field of its id, or nulls."""
    present = {_field_id(field): array for field, array in zip(fields, arrays, strict=True)}
    return [
        _convert(present[_field_id(target)], target.type)
        if _field_id(target) in present
        else pa.nulls(rows, target.type)
        for target in targets
    ]


def _convert(array: pa.Array, type: pa.DataType) -> pa.Array:
    if not pa.types.is_struct(type):
        return array.cast(type)
    # `flatten` gives the fields the nulls of the struct.
    children = _select(array.type, array.flatten(), type, len(array))
    return pa.StructArray.from_arrays(children, fields=list(type), mask=array.is_null())


def _field_id(field: pa.Field) -> int | None:
    number = (field.metadata or {}).get(_FIELD_ID)
    return None if number is None else int(number)


def _conform_rows(rows: pa.Table, schema: pa.Schema, uri: str) -> pa.Table:
    """Return the columns in the order of the schema, with its field ids and nullability."""
    types = dict(zip(schema.names, schema.types, strict=True))
    if dict(zip(rows.schema.names, rows.schema.types, strict=True)) != types:
        raise EagleError(
            f"rows for {uri}: wanted {_describe(schema)}; got {_describe(rows.schema)}"
        )
    try:
        return rows.select(schema.names).cast(schema)
    except ValueError as error:  # a null in a required column
        raise EagleError(f"rows for {uri}: {error}") from error


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _read_partition(rows: pa.Table, columns: Sequence[str], uri: str) -> tuple[str | None, ...]:
    """Return the values of the partition columns as text, as Iceberg reads them."""
    values = []
    for column in columns:
        distinct = rows[column].unique().to_pylist()
        if len(distinct) != 1:
            raise EagleError(f"rows for {uri}: wanted one value of {column}; got {len(distinct)}")
        (value,) = distinct
        text = str(value).lower() if isinstance(value, bool) else str(value)
        values.append(None if value is None else text)
    return tuple(values)


def _encode(rows: pa.Table, layout: FileLayout) -> bytes:
    leaves = [leaf for field in layout.schema for leaf in _leaves(field, field.name)]
    sink = io.BytesIO()
    pq.write_table(
        rows,
        sink,
        # Rows of the average size.
        row_group_size=max(1, layout.row_group_bytes * rows.num_rows // max(1, rows.nbytes)),
        compression=layout.codec,
        compression_level=layout.level,
        use_dictionary=[path for path, type in leaves if pa.types.is_string(type)],
        # The least and the greatest value would put whole masks and images into the footer.
        write_statistics=[path for path, type in leaves if not pa.types.is_binary(type)],
        # Iceberg's schema is the only one.
        store_schema=False,
    )
    return sink.getvalue()


def _leaves(field: pa.Field, path: str) -> Iterator[tuple[str, pa.DataType]]:
    """Yield path and type of each column that Parquet stores for a field."""
    type = field.type
    if pa.types.is_struct(type):
        for child in type:
            yield from _leaves(child, f"{path}.{child.name}")
    elif pa.types.is_list(type):
        yield from _leaves(type.value_field, f"{path}.list.element")
    elif pa.types.is_map(type):
        yield from _leaves(type.key_field, f"{path}.key_value.key")
        yield from _leaves(type.item_field, f"{path}.key_value.value")
    else:
        yield path, type
