"""Who writes the data files of a table: the workers themselves, or Spark."""

from __future__ import annotations

import logging
from typing import Any, Literal
from uuid import uuid4

from eagle_spark.errors import EagleError, SettingsError, redact_credentials
from eagle_spark.io import join, resolve
from eagle_spark.tables.data_files import FileLayout, parse_schema
from eagle_spark.tables.schema import Table

Writer = Literal["files", "spark"]

_SCHEMES = ("file:/", "hdfs://")
# Iceberg's name of a codec -> pyarrow's, and the level where the table's properties have none:
# that of the Java writer.
_CODECS: dict[str, tuple[str, int | None]] = {
    "uncompressed": ("none", None),
    "snappy": ("snappy", None),
    "gzip": ("gzip", 6),
    "zstd": ("zstd", 3),
    "lz4_raw": ("lz4", None),
}
_PROBE = b"written by Python"

_log = logging.getLogger(__name__)


def choose_writer(setting: Literal["auto"] | Writer, table: Any, definition: Table) -> Writer:
    """Return who writes the data files of a table.

    Args:
        setting: `auto` takes the workers where they can write the files, else Spark.
        table: Java handle of the table.
        definition: of the table.

    Raises:
        SettingsError: when the setting is `files` and workers cannot write the files.
    """
    if setting == "spark":
        return "spark"
    obstacle = find_obstacle(table, definition)
    if obstacle is None:
        return "files"
    if setting == "files":
        raise SettingsError(
            f"`writer` must be auto or spark for {definition.full_name}; got files: {obstacle}"
        )
    _log.info("%s: Spark writes the data files: %s", definition.full_name, obstacle)
    return "spark"


def find_obstacle(table: Any, definition: Table) -> str | None:
    """Return why workers cannot write the data files of a table; None if they can.

    Args:
        table: Java handle of the table.
        definition: of the table.
    """
    location = _locate(table, "a")
    if not location.startswith(_SCHEMES):
        return f"its data files are neither file:/ nor hdfs:// URIs: {redact_credentials(location)}"
    wanted = [(column, "identity") for column in _partition_columns(definition)]
    if (partition := _read_partition(table)) != wanted:
        return f"it is partitioned by {partition}; wanted {wanted}"
    if table.sortOrder().isSorted():
        return f"it has a sort order: {table.sortOrder().toString()}"
    manager = table.encryption().getClass().getSimpleName()
    if manager != "PlaintextEncryptionManager" or _property(table, "encryption.key-id"):
        return f"it is encrypted: encryption.key-id is set, or {manager} encrypts its files"
    if (file_format := _property(table, "write.format.default", "parquet").lower()) != "parquet":
        return f"write.format.default is {file_format}; wanted parquet"
    if (codec := _read_codec(table)) not in _CODECS:
        return f"write.parquet.compression-codec is {codec}; wanted one of {', '.join(_CODECS)}"
    folder = location.removesuffix("/a")
    if _locate(table, "b") != f"{folder}/b" or not folder.startswith(f"{table.location()}/"):
        return f"its data files are not in one folder below {table.location()}: {location}"
    try:
        read_layout(table)
    except ValueError as error:
        return str(error)
    return _probe(table, folder)


def read_layout(table: Any) -> FileLayout:
    """Return what workers need to write the data files of a table.

    Args:
        table: Java handle of a table for which `find_obstacle` names nothing.

    Raises:
        ValueError: when a column has a type that no table of this package has, or a property is
            not a number.
    """
    codec, level = _CODECS[_read_codec(table)]
    if level is not None:
        level = _number(table, "write.parquet.compression-level", level)
    return FileLayout(
        folder=_locate(table, "a").removesuffix("/a"),
        schema=parse_schema(_iceberg().SchemaParser.toJson(table.schema())),
        partition=tuple(column for column, _ in _read_partition(table)),
        codec=codec,
        level=level,
        row_group_bytes=_number(table, "write.parquet.row-group-size-bytes", 128 * 2**20),
    )


def _probe(table: Any, folder: str) -> str | None:
    """Return why Java does not read a file that Python writes to a folder; None if it does."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    uri = join(folder, f"probe-{uuid4().hex}")
    try:
        storage, path = resolve(uri)
        storage.create(path, _PROBE)
        try:
            data = _read_by_java(table, uri)
        finally:
            storage.delete(path)
    except (EagleError, OSError) as error:
        return f"Python cannot write to {folder}: {error}"
    except (Py4JJavaError, PySparkException) as error:
        cause = str(getattr(error, "java_exception", error)).partition("\n")[0]
        return f"Java cannot read what Python writes to {folder}: {cause}"
    return None if data == _PROBE else f"Java reads other bytes than Python writes to {folder}"


def _read_by_java(table: Any, uri: str) -> bytes:
    stream = table.io().newInputFile(uri).newStream()
    try:
        return bytes(stream.readAllBytes())
    finally:
        stream.close()


def _locate(table: Any, name: str) -> str:
    return str(table.locationProvider().newDataLocation(name))


def _read_partition(table: Any) -> list[tuple[str, str]]:
    """Return column and transform of each field of the table's partition."""
    schema = table.schema()
    return [
        (str(schema.findColumnName(field.sourceId())), str(field.transform().toString()))
        for field in table.spec().fields()
    ]


def _partition_columns(definition: Table) -> list[str]:
    return definition.partitioned_by.split(", ") if definition.partitioned_by else []


def _read_codec(table: Any) -> str:
    return _property(table, "write.parquet.compression-codec", "zstd").lower()


def _property(table: Any, key: str, default: str = "") -> str:
    value = table.properties().get(key)
    return default if value is None else str(value)


def _number(table: Any, key: str, default: int) -> int:
    text = _property(table, key, str(default))
    if not text.isdecimal():
        raise ValueError(f"{key} is {text}; wanted a whole number")
    return int(text)


def _iceberg() -> Any:
    from pyspark import SparkContext

    assert SparkContext._jvm is not None
    return SparkContext._jvm.org.apache.iceberg
