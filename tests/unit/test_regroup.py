"""Rows that are grouped anew through files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from eagle_spark.errors import InputError
from eagle_spark.scoring.regroup import read_group, write_groups

SCHEMA = pa.schema([("name", pa.string()), ("number", pa.int64())])


def make_rows(names: str) -> pa.Table:
    """Return a row for each letter, in chunks of two."""
    table = pa.table([list(names), list(range(len(names)))], schema=SCHEMA)
    return pa.concat_tables([table[first : first + 2] for first in range(0, len(names), 2)])


def test_a_group_has_its_rows_of_all_files_in_their_order(tmp_path: Path) -> None:
    uris = [f"file://{tmp_path}/{number}" for number in range(2)]
    write_groups(make_rows("abcde"), np.array([2, 0, 2, 3, 0]), 5, uris[0])
    write_groups(make_rows("xy"), np.array([4, 2]), 5, uris[1])
    groups = [read_group(uris, number, SCHEMA) for number in range(5)]
    assert ["".join(group["name"].to_pylist()) for group in groups] == ["be", "", "acy", "d", "x"]
    assert groups[2]["number"].to_pylist() == [0, 2, 1]


def test_no_rows_are_empty_groups(tmp_path: Path) -> None:
    write_groups(SCHEMA.empty_table(), np.empty(0, np.intp), 2, str(tmp_path / "none"))
    assert read_group([str(tmp_path / "none")], 1, SCHEMA) == SCHEMA.empty_table()
    assert read_group([], 1, SCHEMA) == SCHEMA.empty_table()


def test_a_file_is_replaced(tmp_path: Path) -> None:
    uri = str(tmp_path / "rows")
    for names in ("abc", "x"):
        write_groups(make_rows(names), np.zeros(len(names), np.intp), 1, uri)
    assert read_group([uri], 0, SCHEMA)["name"].to_pylist() == ["x"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@pytest.mark.parametrize("content", [None, b"", b"ARROW1 and no more"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "rows"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} cannot be read: "):
        read_group([str(path)], 0, SCHEMA)
