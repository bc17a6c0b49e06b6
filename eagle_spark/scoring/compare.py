"""Listed files and rows of a model, compared as columns: no Spark, no storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eagle_spark.errors import RETRYABLE_REASONS
from eagle_spark.model.predictor import REJECTED, SCORED

Retry = Literal["never", "transient", "rejected"]
"""Rejected rows that are computed again: none, those of `RETRYABLE_REASONS`, or all."""

ENTRIES = pa.schema(
    [
        ("path", pa.string()),
        ("file_length", pa.int64()),
        ("file_modified", pa.timestamp("us", tz="UTC")),
        ("status", pa.string()),
        ("is_retried", pa.bool_()),
        ("part", pa.int32()),
        ("position", pa.int32()),
    ]
)
"""Listed files and rows of the table in one schema. A listed file has the number of its part of
the listing and its position in that part; a row has neither."""

KNOWN_COLUMNS = ("path", "file_length", "file_modified", "model_id", "status", "reason")
"""Columns of `predictions` that a comparison reads."""


class Group(NamedTuple):
    """A kind of paths that are listed and have a row.

    Attributes:
        status: of a row.
        is_changed: whether a row is of another version of the file than the listed one.
        is_outdated: whether the file has to be predicted again.
    """

    status: str
    is_changed: bool
    is_outdated: bool


class Size(NamedTuple):
    """The size of a group.

    Attributes:
        paths: number of paths.
        rows: number of rows of these paths; of a path that is listed twice, twice.
    """

    paths: int
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Listed files compared with rows of one model.

    Attributes:
        groups: paths that are listed and have a row.
        outdated: strings: the paths of the outdated groups.
        left: columns `part` and `position` of the listed files without a row that is valid, in the
            order of the entries.
    """

    groups: Mapping[Group, Size]
    outdated: pa.ChunkedArray
    left: pa.Table


def convert_listed(rows: pa.Table, part: int) -> pa.Table:
    """Return the rows of a part of the listing as `ENTRIES`.

    Args:
        rows: all rows of the part, with the columns of `LISTING`.
        part: its number.
    """
    count = rows.num_rows
    columns = {
        **{name: rows[name] for name in ("path", "file_length", "file_modified")},
        "status": pa.nulls(count, pa.string()),
        "is_retried": pa.array(np.zeros(count, bool)),
        "part": pa.array(np.full(count, part, np.int32)),
        "position": pa.array(np.arange(count, dtype=np.int32)),
    }
    return pa.table(columns).cast(ENTRIES)


def convert_known(rows: pa.RecordBatch, model_id: str, retry: Retry) -> pa.Table:
    """Return the rows of a model as `ENTRIES`.

    Args:
        rows: `KNOWN_COLUMNS`, of any models.
        model_id: of the model.
        retry: rejected rows that are computed again.
    """
    rows = rows.filter(pc.equal(rows["model_id"], model_id))
    status = rows["status"]
    # The name of the status of duplicates differs between versions.
    tests = [pc.invert(pc.is_in(status, pa.array([SCORED, REJECTED])))]
    if retry == "rejected":
        tests.append(pc.equal(status, REJECTED))
    elif retry == "transient":
        tests.append(pc.is_in(rows["reason"], pa.array(map(str, RETRYABLE_REASONS))))
    count = rows.num_rows
    columns = {
        **{name: rows[name] for name in ("path", "file_length", "file_modified", "status")},
        "is_retried": reduce(pc.or_, tests),
        "part": pa.nulls(count, pa.int32()),
        "position": pa.nulls(count, pa.int32()),
    }
    return pa.table(columns).cast(ENTRIES)


def assign_buckets(paths: pa.ChunkedArray, buckets: int) -> NDArray[np.intp]:
    """Return the bucket of each path, from 0; the same in every process.

    Args:
        paths: n strings.
        buckets: number of buckets.
    """
    # 0.3 s; only large listings are bucketed.
    from pandas.util import hash_array

    hashes = hash_array(paths.to_numpy(), categorize=False)
    numbers: NDArray[np.intp] = (hashes % np.uint64(buckets)).astype(np.intp)
    return numbers


def compare(entries: pa.Table) -> Comparison:
    """Compare listed files with rows.

    Outdated are rows of files that changed since; rows that are retried; and rows that stand twice,
    as two concurrent runs may leave them.

    Args:
        entries: `ENTRIES`; all that have the same path.
    """
    count = entries.num_rows
    is_listed = entries["part"].is_valid().to_numpy()
    numbers, paths = _number_values(entries["path"])
    pairs = np.bincount(numbers[is_listed], minlength=paths)
    pairs *= np.bincount(numbers[~is_listed], minlength=paths)
    # Entries of a path have one version if all have that of any of them.
    any_entry = np.zeros(paths, np.intp)
    any_entry[numbers] = np.arange(count)
    is_changed = np.zeros(paths, bool)
    for name in ("file_length", "file_modified"):
        values = entries[name].cast(pa.int64()).to_numpy()
        is_changed[numbers[values != values[any_entry[numbers]]]] = True
    is_outdated = is_changed | (pairs > 1)
    is_outdated[numbers[entries["is_retried"].to_numpy()]] = True
    any_entry[numbers[~is_listed]] = np.flatnonzero(~is_listed)  # a row where there is one
    is_left = is_listed & ~((pairs > 0) & ~is_outdated)[numbers]
    known = np.flatnonzero(pairs)
    groups = pa.table(
        {
            "status": entries["status"].take(pa.array(any_entry[known])),
            "is_changed": is_changed[known],
            "is_outdated": is_outdated[known],
            "rows": pairs[known],
        }
    )
    outdated = any_entry[(pairs > 0) & is_outdated]
    return Comparison(
        _measure_groups(groups),
        entries["path"].take(pa.array(outdated)),
        entries.select(["part", "position"]).filter(pa.array(is_left)),
    )


def merge_groups(parts: Iterable[Mapping[Group, Size]]) -> dict[Group, Size]:
    """Return the sizes of groups, summed over parts."""
    paths: Counter[Group] = Counter()
    rows: Counter[Group] = Counter()
    for part in parts:
        for group, size in part.items():
            paths[group] += size.paths
            rows[group] += size.rows
    return {group: Size(paths[group], rows[group]) for group in paths}


def _number_values(column: pa.ChunkedArray) -> tuple[NDArray[np.intp], int]:
    """Return a number for each value, equal for equal values, from 0; and the number of numbers."""
    # All chunks have one dictionary.
    parts = [chunk.indices.to_numpy() for chunk in column.dictionary_encode().chunks]
    numbers = np.concatenate([np.empty(0, np.intp), *parts])
    return numbers, int(numbers.max(initial=-1)) + 1


def _measure_groups(paths: pa.Table) -> dict[Group, Size]:
    """Return the size of each group.

    Args:
        paths: one row a path, with the columns of `Group` and `rows`.
    """
    grouped = paths.group_by(list(Group._fields), use_threads=False)
    sums = grouped.aggregate([("rows", "count"), ("rows", "sum")]).to_pylist()
    return {
        Group(*(one[name] for name in Group._fields)): Size(one["rows_count"], one["rows_sum"])
        for one in sums
    }
