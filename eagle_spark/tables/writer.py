"""Who writes the data files of a table: the workers themselves, or Spark."""

from __future__ import annotations

import logging
from typing import Literal
from uuid import uuid4

from eagle_spark.errors import EagleError, SettingsError, redact_credentials
from eagle_spark.io import join, resolve
from eagle_spark.tables.data_files import SCHEMES, FileLayout, parse_schema
from eagle_spark.tables.iceberg import IcebergTable, TableDescription
from eagle_spark.tables.schema import Table

Writer = Literal["files", "spark"]

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


def choose_writer(
    setting: Literal["auto"] | Writer, table: IcebergTable, definition: Table
) -> Writer:
    """Return who writes the data files of a table.

    Args:
        setting: `auto` takes the workers where they can write the files, else Spark.
        table: exists.
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


def choose_layout(
    setting: Literal["auto"] | Writer, table: IcebergTable, definition: Table
) -> FileLayout | None:
    """Return the layout of the data files that workers write; None where Spark writes them.

    Args:
        setting: see `choose_writer`, as the others.
        table: exists.
        definition: of the table.

    Raises:
        SettingsError: when the setting is `files` and workers cannot write the files.
    """
    if choose_writer(setting, table, definition) == "spark":
        return None
    return read_layout(table.describe())


def find_obstacle(table: IcebergTable, definition: Table) -> str | None:
    """Return why workers cannot write the data files of a table; None if they can.

    Args:
        table: exists.
        definition: of the table.
    """
    description = table.describe()
    return _find_obstacle(description, definition) or _probe(table, read_layout(description).folder)


def _find_obstacle(table: TableDescription, definition: Table) -> str | None:
    folder = table.data_location
    if folder is not None and not folder.startswith(SCHEMES):
        return f"its data files are neither file:/ nor hdfs:// URIs: {redact_credentials(folder)}"
    if folder is None or not folder.startswith(f"{table.location}/"):
        return f"its data files are not in one folder below {table.location}: {folder}"
    wanted = tuple((column, "identity") for column in definition.partitioned_by)
    if table.partition != wanted:
        return f"it is partitioned by {table.partition}; wanted {wanted}"
    if table.is_sorted:
        return "it has a sort order"
    if table.is_encrypted or table.properties.get("encryption.key-id"):
        return "it is encrypted"
    file_format = table.properties.get("write.format.default", "parquet").lower()
    if file_format != "parquet":
        return f"write.format.default is {file_format}; wanted parquet"
    if (codec := _codec(table)) not in _CODECS:
        return f"write.parquet.compression-codec is {codec}; wanted one of {', '.join(_CODECS)}"
    try:
        read_layout(table)
    except ValueError as error:
        return str(error)
    return None


def read_layout(table: TableDescription) -> FileLayout:
    """Return what workers need to write the data files of a table.

    Args:
        table: one for which `find_obstacle` names nothing.

    Raises:
        ValueError: when a column has a type that no table of this package has, or a property is
            not a number.
    """
    codec, level = _CODECS[_codec(table)]
    if level is not None:
        level = _number(table, "write.parquet.compression-level", level)
    return FileLayout(
        folder=(table.data_location or "").removesuffix("/"),
        schema=parse_schema(table.schema),
        partition=tuple(column for column, _ in table.partition),
        codec=codec,
        level=level,
        row_group_bytes=_number(table, "write.parquet.row-group-size-bytes", 128 * 2**20),
    )


def _probe(table: IcebergTable, folder: str) -> str | None:
    """Return why Java does not read a file that Python writes to a folder; None if it does."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    uri = join(folder, f"probe-{uuid4().hex}")
    try:
        storage, path = resolve(uri)
        storage.create(path, _PROBE)
        try:
            data = table.read_bytes(uri)
        finally:
            storage.delete(path)
    except (EagleError, OSError) as error:
        return f"Python cannot write to {folder}: {error}"
    except (Py4JJavaError, PySparkException) as error:
        cause = str(getattr(error, "java_exception", error)).partition("\n")[0]
        return f"Java cannot read what Python writes to {folder}: {cause}"
    return None if data == _PROBE else f"Java reads other bytes than Python writes to {folder}"


def _codec(table: TableDescription) -> str:
    return table.properties.get("write.parquet.compression-codec", "zstd").lower()


def _number(table: TableDescription, key: str, default: int) -> int:
    text = table.properties.get(key, str(default))
    if not text.isdecimal():
        raise ValueError(f"{key} is {text}; wanted a whole number")
    return int(text)
