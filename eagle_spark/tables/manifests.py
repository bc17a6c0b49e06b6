"""Entries of data files in Iceberg's manifests: built from the footers of files, read by a scan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from eagle_spark.errors import AuditError
from eagle_spark.tables.data_files import SCHEMES, DataFileRef, WrittenFile

FOOTER_THREADS = 16


def build_entries(iceberg: Any, table: Any, files: Sequence[WrittenFile]) -> list[Any]:
    """Return Iceberg's `DataFile` of each file, with bounds and counts from its footer.

    Args:
        iceberg: Java package.
        table: Java handle.
        files: Parquet files with the field ids of the table.

    Raises:
        AuditError: when a file is missing, cannot be read, or has another length or number of rows.
    """
    metrics = iceberg.MetricsConfig.forTable(table)
    # A footer is a read of the storage: on HDFS most of its time is waiting.
    with ThreadPoolExecutor(min(FOOTER_THREADS, max(1, len(files)))) as pool:
        return list(pool.map(lambda file: _build_entry(iceberg, table, metrics, file), files))


def _build_entry(iceberg: Any, table: Any, metrics: Any, file: WrittenFile) -> Any:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        source = table.io().newInputFile(file.uri)
        length = int(source.getLength())
        footer = iceberg.parquet.ParquetUtil.fileMetrics(source, metrics)
        rows = int(footer.recordCount())
    except (Py4JJavaError, PySparkException) as error:
        cause = str(getattr(error, "java_exception", error)).partition("\n")[0]
        raise AuditError(f"data file {file.uri} cannot be read: {cause}") from error
    if (length, rows) != (file.length, file.rows):
        raise AuditError(
            f"data file {file.uri}: wanted {file.length} bytes and {file.rows} rows; "
            f"got {length} bytes and {rows} rows"
        )
    return (
        iceberg.DataFiles.builder(table.spec())
        .withPath(file.uri)
        .withFileSizeInBytes(length)
        .withFormat("parquet")
        .withMetrics(footer)
        .withPartitionValues(list(file.partition))
        .build()
    )


def plan_entries(
    iceberg: Any,
    table: Any,
    snapshot: int,
    condition: Mapping[str, str],
    prefix: Mapping[str, str],
    newest: str | None,
) -> list[DataFileRef] | None:
    """Return the data files of a snapshot that may hold rows of a condition, ordered by URI.

    None if some are not Parquet or have delete files.

    Args:
        iceberg: Java package.
        table: Java handle.
        snapshot: id.
        condition: column to the text that it has to equal.
        prefix: column to the text that it has to begin with where it is not null.
        newest: timestamp column of `DataFileRef.newest`.
    """
    expressions, scan = iceberg.expressions.Expressions, table.newScan().useSnapshot(snapshot)
    either = getattr(expressions, "or")  # a keyword of Python
    for column, text in condition.items():
        scan = scan.filter(expressions.equal(column, text))
    for column, text in prefix.items():
        test = either(expressions.isNull(column), expressions.startsWith(column, text))
        scan = scan.filter(test)
    if newest is None:
        return read_entries(iceberg, scan)
    bound = table.schema().findField(newest).fieldId()
    return read_entries(iceberg, scan.includeColumnStats([newest]), bound)


def read_entries(iceberg: Any, scan: Any, bound: int | None = None) -> list[DataFileRef] | None:
    """Return the data files of a scan, ordered by URI.

    None if some are not Parquet, have delete files, or have a URI that workers cannot read.

    Args:
        iceberg: Java package.
        scan: Iceberg's `TableScan`.
        bound: field id of the timestamp column of `DataFileRef.newest`; the scan includes its
            bounds.
    """
    files = []
    tasks = scan.planFiles()
    try:
        iterator = tasks.iterator()
        while iterator.hasNext():
            task = json.loads(iceberg.ScanTaskParser.toJson(iterator.next()))
            file = task["data-file"]
            if task.get("delete-files") or file["file-format"].lower() != "parquet":
                return None
            if not file["file-path"].startswith(SCHEMES):
                return None
            newest = None if bound is None else _read_upper_bound(file, bound)
            files.append(
                DataFileRef(
                    file["file-path"], file["file-size-in-bytes"], file["record-count"], newest
                )
            )
    finally:
        tasks.close()
    return sorted(files, key=lambda file: file.uri)


def _read_upper_bound(file: Mapping[str, Any], column: int) -> int | None:
    """Return the greatest value of a timestamp column, µs since 1970; None without one."""
    bounds = file.get("upper-bounds") or {"keys": [], "values": []}
    values = dict(zip(bounds["keys"], bounds["values"], strict=True))
    text = values.get(column)
    return None if text is None else int.from_bytes(bytes.fromhex(text), "little", signed=True)
