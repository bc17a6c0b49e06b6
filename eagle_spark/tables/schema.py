"""Tables as values: columns, types and comments; Spark, Arrow and DDL schemas come from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from eagle_spark.spark.session import CATALOG

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

NAMESPACE = f"{CATALOG}.cxr"
_PARTS = re.compile(r"[^,<]+(?:<[^>]*>)?")
_ARROW = {
    "STRING": pa.string(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "BINARY": pa.binary(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
}


def sql_time(moment: datetime) -> str:
    """Return a UTC moment as a SQL literal."""
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'"


def arrow_type(ddl: str) -> pa.DataType:
    """Return the Arrow type of a Spark SQL type, as Spark itself exchanges it.

    Raises:
        KeyError: for a type that no table has.

    Example:
        >>> arrow_type("ARRAY<STRING>")
        ListType(list<item: string>)
    """
    kind, parts = _split_type(ddl)
    if kind == "ARRAY":
        return pa.list_(arrow_type(parts[0]))
    if kind == "MAP":
        return pa.map_(arrow_type(parts[0]), arrow_type(parts[1]))
    if kind == "STRUCT":
        return pa.struct([(name, arrow_type(type)) for name, type in _struct_fields(parts)])
    return _ARROW[kind]


def _split_type(ddl: str) -> tuple[str, list[str]]:
    """Return a type's name and the parts between its angle brackets."""
    kind, _, inner = ddl.partition("<")
    return kind, [part.strip() for part in _PARTS.findall(inner[:-1])]


def _struct_fields(parts: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, type) for name, _, type in (part.partition(": ") for part in parts)]


@dataclass(frozen=True)
class Column:
    """One column: name, Spark SQL type, comment, and whether it may be null."""

    name: str
    type: str
    comment: str
    nullable: bool = False

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Name and type of each field of a struct; none of another type."""
        kind, parts = _split_type(self.type)
        return _struct_fields(parts) if kind == "STRUCT" else []

    @property
    def ddl(self) -> str:
        null = "" if self.nullable else " NOT NULL"
        comment = self.comment.replace("'", "\\'")
        return f"{self.name} {self.type}{null} COMMENT '{comment}'"


@dataclass(frozen=True)
class Table:
    """One table of the namespace `eagle.cxr`.

    Attributes:
        name: in the namespace.
        comment: of the table.
        columns: in their order.
        partitioned_by: columns whose values are the partition.
        properties: of Iceberg; `table_properties` has those of all tables too.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    partitioned_by: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def full_name(self) -> str:
        return f"{NAMESPACE}.{self.name}"

    def branch_name(self, branch: str) -> str:
        """Return the name of a branch in SQL; `main` is the table."""
        return self.full_name if branch == "main" else f"{self.full_name}.`branch_{branch}`"

    def changes(self, present: StructType) -> list[str]:
        """Return the SQL that brings an older table to these columns.

        Columns that may be null are added, each after its predecessor here; fields are added to
        structs, at the end; NOT NULL is dropped where it no longer holds.

        Args:
            present: schema of the table.
        """
        from pyspark.sql.types import StructType

        columns = {column.name: column for column in present.fields}
        fields = {
            f"{column.name}.{name}"
            for column in present.fields
            if isinstance(column.dataType, StructType)
            for name in column.dataType.names
        }
        added = [
            f"ADD COLUMN {column.ddl} AFTER {before.name}"
            for before, column in pairwise(self.columns)
            if column.name not in columns and column.nullable
        ]
        added += [
            f"ADD COLUMN {column.name}.{field} {kind}"
            for column in self.columns
            if column.name in columns
            for field, kind in column.fields
            if f"{column.name}.{field}" not in fields
        ]
        relaxed = [
            f"ALTER COLUMN {column.name} DROP NOT NULL"
            for column in self.columns
            if column.nullable and column.name in columns and not columns[column.name].nullable
        ]
        return [f"ALTER TABLE {self.full_name} {change}" for change in (*added, *relaxed)]

    def schema(self, *columns: str) -> StructType:
        """Return the Spark schema of these columns, of all where none is named, in their order.

        As written, and as asserted before each write.
        """
        from pyspark.sql.types import StructType

        # Nullability is left to the table: Spark marks computed columns nullable as it pleases.
        types = {column.name: column.type for column in self.columns}
        ddl = ", ".join(f"{name} {types[name]}" for name in columns or types)
        schema = StructType.fromDDL(ddl)
        assert isinstance(schema, StructType)
        return schema

    def arrow_schema(self, *columns: str) -> pa.Schema:
        """Return the Arrow schema of these columns, of all where none is named, in their order."""
        types = {column.name: arrow_type(column.type) for column in self.columns}
        return pa.schema([(name, types[name]) for name in columns or types])

    @property
    def table_properties(self) -> dict[str, str]:
        """The Iceberg properties of a new table."""
        return {
            # Every task writes to all partitions at once; no shuffle of pixels before the write.
            "write.distribution-mode": "none",
            "write.spark.fanout.enabled": "true",
            # Every commit writes all snapshots anew: left to lie, that grows as their square.
            "write.metadata.delete-after-commit.enabled": "true",
            **dict(self.properties),
        }


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table: its URI and the values of its partition."""

    uri: str
    partition: Mapping[str, Any]
