"""Rows grouped anew between two rounds of tasks, through files: a shuffle without a JVM.

Each task of the first round writes one file that holds its rows group by group; a task of the
second round reads its group from all of these files. Arrow IPC files: their footer holds 24 bytes
for a group, that of Parquet about 100 for each column of a group, and each reader reads the footer
of every file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eagle_spark.errors import InputError
from eagle_spark.io import resolve


def write_groups(rows: pa.Table, numbers: NDArray[np.intp], groups: int, uri: str) -> None:
    """Write a file of rows by group; it replaces one of that name, which a failed task may leave.

    Args:
        rows: n rows, at most 2 GiB in a column.
        numbers: n group numbers from 0.
        groups: number of groups.
        uri: of the file.
    """
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(groups), side="right").tolist()
    ordered = _to_batch(rows).take(pa.array(order))
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, rows.schema, options=options) as file:
        for start, end in pairwise([0, *ends]):
            file.write_batch(ordered.slice(start, end - start))
    storage, path = resolve(uri)
    storage.write(path, sink.getvalue())


def read_group(uris: Iterable[str], number: int, schema: pa.Schema) -> pa.Table:
    """Return the rows of a group in files of `write_groups`, file by file.

    Args:
        uris: of the files.
        number: of the group.
        schema: of the rows.

    Raises:
        InputError: when a file cannot be read.
    """
    return pa.Table.from_batches([_read_batch(uri, number) for uri in uris], schema)


def _read_batch(uri: str, number: int) -> pa.RecordBatch:
    storage, path = resolve(uri)
    try:
        with storage.open(path) as stream, pa.ipc.open_file(stream) as file:
            return file.get_batch(number)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{uri} cannot be read: {error}") from error


def _to_batch(rows: pa.Table) -> pa.RecordBatch:
    """Return the rows as one batch."""
    columns = [column.combine_chunks() for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)
