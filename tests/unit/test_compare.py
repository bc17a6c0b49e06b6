"""The comparison of listed files with rows, as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eagle_spark.scoring.compare import (
    ENTRIES,
    KNOWN_COLUMNS,
    Comparison,
    Group,
    Retry,
    Size,
    assign_buckets,
    compare,
    convert_known,
    convert_listed,
)
from eagle_spark.scoring.listing import to_table
from eagle_spark.tables import PREDICTIONS

KNOWN_SCHEMA = PREDICTIONS.arrow_schema(*KNOWN_COLUMNS)
SCORED = Group("scored", is_changed=False, is_outdated=False)


def listed(*paths: str, part: int = 0, length: int = 7, modified: int = 1_000) -> pa.Table:
    """Return entries of listed files of one version."""
    return convert_listed(to_table([(path, length, modified, None, None) for path in paths]), part)


def known(*paths: str, retry: Retry = "transient", **changes: Any) -> pa.Table:
    """Return entries of rows of the version that `listed` has by default."""
    row = {"file_length": 7, "file_modified": 1_000_000, "model_id": "m", "status": "scored"}
    rows = [{"path": path, **row, **changes} for path in paths]
    batch = pa.RecordBatch.from_pylist(rows, schema=KNOWN_SCHEMA)
    return convert_known(batch, "m", retry)


def compare_all(*entries: pa.Table) -> Comparison:
    return compare(pa.concat_tables(entries))


def list_left(comparison: Comparison) -> list[tuple[int, int]]:
    columns = comparison.left.to_pydict()
    return list(zip(columns["part"], columns["position"], strict=True))


def test_files_without_a_row_are_left() -> None:
    result = compare_all(listed("a", "b", "c"), known("b", "z"))
    assert result.groups == {SCORED: Size(1, 1)}
    assert result.outdated.to_pylist() == []
    assert list_left(result) == [(0, 0), (0, 2)]


def test_files_keep_their_part_and_position() -> None:
    result = compare_all(listed("a", "b"), known("a"), listed("c", "d", part=4), known("c"))
    assert list_left(result) == [(0, 1), (4, 1)]


@pytest.mark.parametrize("change", [{"length": 8}, {"modified": 1_001}])
def test_rows_of_another_version_are_outdated(change: dict[str, int]) -> None:
    result = compare_all(listed("a", **change), listed("b"), known("a", "b"))
    assert result.groups == {SCORED: Size(1, 1), Group("scored", True, True): Size(1, 1)}
    assert result.outdated.to_pylist() == ["a"]
    assert list_left(result) == [(0, 0)]


def test_times_differ_by_microseconds() -> None:
    result = compare_all(listed("a"), known("a", file_modified=1_000_001))
    assert result.groups == {Group("scored", True, True): Size(1, 1)}


@pytest.mark.parametrize(
    ("retry", "outdated"),
    [
        ("never", ["other"]),
        ("transient", ["no decoder", "other", "unreadable"]),
        ("rejected", ["no decoder", "other", "truncated", "unreadable"]),
    ],
)
def test_rejected_rows_are_retried(retry: Retry, outdated: list[str]) -> None:
    rows = [
        known("scored", retry=retry),
        known("truncated", retry=retry, status="rejected", reason="truncated"),
        known("unreadable", retry=retry, status="rejected", reason="unreadable"),
        known("no decoder", retry=retry, status="rejected", reason="no_decoder"),
        known("other", retry=retry, status="duplicate"),
    ]
    names = [path for table in rows for path in table["path"].to_pylist()]
    result = compare_all(listed(*names), *rows)
    assert sorted(result.outdated.to_pylist()) == outdated
    assert [names[position] for _, position in list_left(result)] == [
        name for name in names if name in outdated
    ]
    assert not any(group.is_changed for group in result.groups)


def test_rows_that_stand_twice_are_outdated() -> None:
    result = compare_all(listed("a", "b"), known("a", "a", "b", "z", "z"))
    assert result.groups == {SCORED: Size(1, 1), Group("scored", False, True): Size(1, 2)}
    assert result.outdated.to_pylist() == ["a"]
    assert list_left(result) == [(0, 0)]


def test_a_path_that_is_listed_twice_has_an_outdated_row() -> None:
    result = compare_all(listed("a", "a"), known("a"))
    assert result.groups == {Group("scored", False, True): Size(1, 2)}
    assert list_left(result) == [(0, 0), (0, 1)]


def test_rows_of_other_models_are_not_compared() -> None:
    assert compare_all(listed("a"), known("a", model_id="other")).groups == {}


@pytest.mark.parametrize("entries", [listed("a"), known("a"), ENTRIES.empty_table()])
def test_one_side_alone_has_no_groups(entries: pa.Table) -> None:
    result = compare(entries)
    assert result.groups == {}
    assert len(result.outdated) == 0
    assert result.left.num_rows == entries["part"].is_valid().to_pylist().count(True)


def test_paths_have_one_bucket_in_any_table_and_fill_all_buckets() -> None:
    paths = pa.chunked_array([[f"file:///ward/é{number}.png" for number in range(4000)]])
    buckets = assign_buckets(paths, 8)
    assert np.bincount(buckets).min() > 400
    assert np.bincount(buckets).max() < 600
    reverse = pa.chunked_array([paths.chunk(0)[:7:-1], paths.chunk(0)[7::-1]])
    assert assign_buckets(reverse, 8).tolist() == buckets[::-1].tolist()
