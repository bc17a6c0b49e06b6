"""Slices of listed files: what each task of a chunk reads."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.io import FileEntry
from eagle_spark.scoring import listing
from eagle_spark.scoring.slices import (
    Piece,
    count_slice,
    cut,
    list_pieces,
    read_slice,
    share_out,
)

SCHEMA = pa.schema([("id", pa.int64())])


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Piece, ...]:
    """Rows 0 to 22 in four files, one of them empty, in row groups of four rows."""
    start = 0
    for number, rows in enumerate((10, 0, 1, 12)):
        table = pa.table({"id": pa.array(range(start, start + rows), pa.int64())})
        pq.write_table(table, tmp_path / f"part-{number}.parquet", row_group_size=4)
        start += rows
    return list_pieces(str(tmp_path))


def read(rows: tuple[Piece, ...]) -> list[int]:
    ids: list[int] = read_slice(rows, SCHEMA)["id"].to_pylist()
    return ids


def test_files_are_listed_with_their_rows(whole: tuple[Piece, ...]) -> None:
    assert [piece.rows for piece in whole] == [10, 0, 1, 12]
    assert count_slice(whole) == 23
    assert read(whole) == list(range(23))


@pytest.mark.parametrize("chunk", [1, 4, 10, 11, 22, 23, 100])
def test_chunks_hold_all_rows_in_order(whole: tuple[Piece, ...], chunk: int) -> None:
    chunks = [read(rows) for rows in cut(whole, repeat(chunk))]
    assert [row for rows in chunks for row in rows] == list(range(23))
    assert {len(rows) for rows in chunks[:-1]} <= {chunk}
    assert 0 < len(chunks[-1]) <= chunk


@pytest.mark.parametrize("tasks", [1, 2, 3, 7, 22, 23, 40])
def test_tasks_share_consecutive_rows_evenly(whole: tuple[Piece, ...], tasks: int) -> None:
    shares = [read(rows) for rows in share_out(whole, tasks)]
    assert [row for rows in shares for row in rows] == list(range(23))
    assert len(shares) == min(tasks, 23)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    # The shares that `write_rows.predict` gives to the tasks.
    numbers = np.arange(23) * len(shares) // 23
    assert [len(rows) for rows in shares] == np.bincount(numbers).tolist()


def test_no_rows_are_no_slices() -> None:
    assert share_out((), 3) == []
    assert share_out((Piece("file:///nowhere", 0, 0),), 3) == []
    assert list(cut((), repeat(3))) == []
    assert read(()) == []


def test_a_slice_is_one_chunk_of_its_schema(whole: tuple[Piece, ...]) -> None:
    (rows, _) = share_out(whole, 2)
    assert len(rows) == 3
    table = read_slice(rows, pa.schema([("id", pa.string())]))
    assert table["id"].num_chunks == 1
    assert [batch.num_rows for batch in table.to_batches(max_chunksize=8)] == [8, 4]


def test_a_part_of_the_listing_is_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ENTRIES_PER_PART", 3)
    files = [("c", 5), ("b", 9), ("a", 9), ("d", 1), ("e", 0)]
    entries = (FileEntry(f"file:///{name}", length, 1_000) for name, length in files)
    parts = listing.write_listing(entries, tmp_path.as_uri())
    assert [piece.rows for piece in parts] == [3, 2]
    assert parts == list_pieces(str(tmp_path))
    table = read_slice(parts, listing.LISTING)
    assert table["path"].to_pylist() == [f"file:///{name}" for name in "cabed"]
    assert table["file_modified"].cast(pa.int64()).to_pylist() == [1_000] * 5


def test_members_of_archives_come_first_and_in_their_order() -> None:
    rows = [
        ("file:///b", 1, 0, None, None),
        ("file:///z.zip/2", 1, 0, "file:///z.zip", 2),
        ("file:///a.zip/1", 9, 0, "file:///a.zip", 1),
        ("file:///z.zip/1", 5, 0, "file:///z.zip", 1),
    ]
    table = listing.to_table(rows).sort_by([(name, "ascending") for name in listing.LISTING_ORDER])
    assert table["path"].to_pylist() == [rows[index][0] for index in (2, 3, 1, 0)]


def test_an_empty_folder_has_one_empty_part(tmp_path: Path) -> None:
    parts = listing.write_listing(iter(()), str(tmp_path))
    assert [piece.rows for piece in parts] == [0]
    assert pq.read_table(tmp_path).schema.equals(listing.LISTING)
