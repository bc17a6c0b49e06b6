"""Rows of Parquet files by their position, which a task reads itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.io import list_folder, resolve

ROWS_PER_GROUP = 512  # a task reads the row groups of its slice


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a Parquet file.

    Attributes:
        uri: of the file.
        first: position of the first of these rows.
        rows: number of rows.
    """

    uri: str
    first: int
    rows: int


Slice = tuple[Piece, ...]


def count_slice(whole: Slice) -> int:
    """Return the number of rows of a slice."""
    return sum(piece.rows for piece in whole)


def cut(whole: Slice, sizes: Iterable[int]) -> Iterator[Slice]:
    """Yield consecutive slices of these numbers of rows; at the end of the rows a shorter one.

    Args:
        whole: the rows.
        sizes: from 1 up.
    """
    pieces = [piece for piece in reversed(whole) if piece.rows]
    for size in sizes:
        taken: list[Piece] = []
        while size and pieces:
            piece = pieces.pop()
            rows = min(size, piece.rows)
            taken.append(Piece(piece.uri, piece.first, rows))
            if rows < piece.rows:
                pieces.append(Piece(piece.uri, piece.first + rows, piece.rows - rows))
            size -= rows
        if not taken:
            return
        yield tuple(taken)


def share_out(whole: Slice, tasks: int) -> list[Slice]:
    """Return one slice for each task; their numbers of rows differ by at most one.

    Fewer slices where there are fewer rows than tasks.
    """
    rows = count_slice(whole)
    tasks = min(tasks, rows)
    ends = [-(-rows * task // tasks) for task in range(tasks + 1)] if tasks else []
    return list(cut(whole, (end - start for start, end in pairwise(ends))))


def read_slice(whole: Slice, schema: pa.Schema) -> pa.Table:
    """Return the rows of a slice, cast to the schema, in one chunk."""
    tables = [_read_piece(piece).cast(schema) for piece in whole]
    return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()


def _read_piece(piece: Piece) -> pa.Table:
    storage, path = resolve(piece.uri)
    with storage.open(path) as stream, pq.ParquetFile(stream) as file:
        groups = range(file.num_row_groups)
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in groups])
        last_row = piece.first + piece.rows - 1
        first, last = np.searchsorted(ends, [piece.first, last_row], side="right").tolist()
        rows = file.read_row_groups(list(range(first, last + 1)))
        start = int(ends[first - 1]) if first else 0
        return rows.slice(piece.first - start, piece.rows)


def write_piece(rows: pa.Table, uri: str) -> Piece:
    """Write rows to a Parquet file in small row groups; return all its rows.

    It replaces a file of that name, which a failed task may leave.
    """
    stream = pa.BufferOutputStream()
    pq.write_table(rows, stream, row_group_size=ROWS_PER_GROUP, write_statistics=False)
    storage, path = resolve(uri)
    storage.write(path, stream.getvalue().to_pybytes())
    return Piece(uri, 0, rows.num_rows)


def list_pieces(folder: str) -> Slice:
    """Return the rows of the Parquet files of a folder, in the order of their names."""
    return tuple(map(_measure, sorted(entry.uri for entry in list_folder(folder))))


def _measure(uri: str) -> Piece:
    storage, path = resolve(uri)
    with storage.open(path) as stream:
        return Piece(uri, 0, pq.read_metadata(stream).num_rows)
