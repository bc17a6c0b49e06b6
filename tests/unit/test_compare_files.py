"""What the tasks of a comparison read, without Spark."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from eagle_spark.errors import AuditError
from eagle_spark.io import FileEntry
from eagle_spark.scoring import compare_files
from eagle_spark.scoring.compare import Group, Size, merge_groups
from eagle_spark.scoring.compare_files import Known, ListedPart, read_entries
from eagle_spark.scoring.listing import write_listing
from eagle_spark.scoring.slices import Piece
from eagle_spark.tables.data_files import DataFileRef


def test_a_path_outside_of_the_folder_is_an_error(tmp_path: Path) -> None:
    entries = [FileEntry("file:///ward/a", 1, 0), FileEntry("file:///other/b", 1, 0)]
    (piece,) = write_listing(iter(entries), str(tmp_path))
    known = Known(pa.schema([]), "m", "never", "file:///ward")
    with pytest.raises(AuditError, match=r"listed file:///other/b; wanted .* file:///ward"):
        list(read_entries([ListedPart(0, piece)], known))


def test_sources_are_shared_out_in_their_order() -> None:
    sizes = [4, 6, 1, 30, 2, 8, 0, 1]
    sources: list[compare_files.Source] = [
        ListedPart(0, Piece("a", 0, sizes[0])),
        *(DataFileRef(f"{number}", 1, rows) for number, rows in enumerate(sizes[1:])),
    ]
    shares = list(compare_files._share_out(sources, 10))
    assert [source for share in shares for source in share] == sources
    assert [len(share) for share in shares] == [2, 1, 1, 3, 1]


def test_rows_are_collected_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [pa.table({"number": pa.array(range(rows), pa.int64())}) for rows in (3, 3, 0, 5, 1)]
    collected = list(compare_files._collect(tables, 5))
    assert [table.num_rows for table in collected] == [6, 5, 1]
    monkeypatch.setattr(compare_files, "SHARE_BYTES", 24)
    assert [table.num_rows for table in compare_files._collect(tables, 5)] == [3, 3, 5, 1]


def test_groups_of_buckets_add_up() -> None:
    valid, outdated = Group("scored", False, False), Group("scored", True, True)
    parts = [{valid: Size(1, 1)}, {}, {valid: Size(2, 2), outdated: Size(1, 3)}]
    assert merge_groups(parts) == {valid: Size(3, 3), outdated: Size(1, 3)}
