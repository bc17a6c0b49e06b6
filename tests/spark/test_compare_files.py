"""The comparison of a listing with data files: against SQL, on tables drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from py4j.protocol import Py4JJavaError

from eagle_spark.cli.runner import _last_raised
from eagle_spark.io import FileEntry
from eagle_spark.scoring import chunks, compare_files, listing
from eagle_spark.scoring.compare import Retry
from eagle_spark.scoring.compare_files import (
    FileDiff,
    Known,
    diff_against_files,
    write_left,
)
from eagle_spark.scoring.diff import Diff, diff_against_table, summarise, write_without_row
from eagle_spark.scoring.slices import Slice, read_slice
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from eagle_spark.tables.data_files import DataFileRef, write_data_file
from eagle_spark.tables.writer import read_layout
from tests.helpers.prediction_rows import rejected_row, scored_row, to_rows
from tests.helpers.score_runs import PREDICTION_ROWS, die_at, list_valid_images, query
from tests.helpers.stage_bytes import list_stage_bytes

pytestmark = pytest.mark.spark

FOLDER = "file:///ward/é"
Row = dict[str, Any]


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "warehouse")) as session:
        warehouse = Warehouse(session)
        warehouse.create_or_migrate(PREDICTIONS)
        yield warehouse


def write_rows(warehouse: Warehouse, rows: Sequence[Row], files: int = 1) -> None:
    """Append rows in consecutive files."""
    iceberg = warehouse.iceberg(PREDICTIONS)
    layout = read_layout(iceberg.describe())
    ends = np.linspace(0, len(rows), files + 1).astype(int).tolist()
    parts = [to_rows(list(rows[first:last])) for first, last in pairwise(ends)]
    iceberg.append_files("main", [write_data_file(part, layout, "r")[0] for part in parts], {})


def list_files(entries: Sequence[FileEntry], tmp_path: Path) -> Slice:
    return listing.write_listing(iter(entries), str(tmp_path / "listing"))


def plan(warehouse: Warehouse, retry: Retry = "transient") -> tuple[list[DataFileRef], Known]:
    iceberg = warehouse.iceberg(PREDICTIONS)
    snapshot = iceberg.snapshot_id()
    assert snapshot is not None
    files = iceberg.plan_files(snapshot, {"model_id": "m"}, {"path": FOLDER})
    assert files is not None
    return files, Known(read_layout(iceberg.describe()).schema, "m", retry, FOLDER)


def compare_by_files(
    warehouse: Warehouse, parts: Slice, folder: Path, retry: Retry, bucket_rows: int
) -> tuple[Diff, pa.Table]:
    """Return the difference, and the listed files without a valid row."""
    context = warehouse.spark.sparkContext
    files, known = plan(warehouse, retry)
    diff = diff_against_files(context, parts, files, known, str(folder), bucket_rows)
    outdated = warehouse.spark.read.parquet(*diff.outdated) if diff.outdated else None
    left = write_left(context, diff.left, str(folder / "left"))
    return summarise(diff.groups, outdated), read_slice(left, listing.LISTING)


def compare_by_sql(
    warehouse: Warehouse, parts: Slice, folder: Path, retry: Retry
) -> tuple[Diff, pa.Table]:
    """Return the same by SQL, with the rows that remain when outdated ones are deleted."""
    rows = warehouse.read(PREDICTIONS).where("model_id = 'm'")
    listed = listing.read_listing(warehouse.spark, parts[0].uri.rpartition("/")[0])
    diff = diff_against_table(rows, listed, retry)
    if diff.outdated is not None:
        rows = rows.join(diff.outdated, "path", "left_anti")
    left = write_without_row(listed, rows, str(folder))
    return diff, read_slice(left, listing.LISTING)


def list_outdated(diff: Diff) -> list[str]:
    return [] if diff.outdated is None else sorted(row.path for row in diff.outdated.collect())


def draw(seed: int) -> tuple[list[FileEntry], list[Row]]:
    """Return listed files, and rows of several models: of them, of changed and of other files."""
    random = np.random.default_rng(seed)
    entries, rows = [], []
    for number in range(60):
        path = f"{FOLDER}/{number % 7}/{number}.png"
        entry = FileEntry(path, int(random.integers(3)), 1_700_000_000_000)
        version = {"file_length": entry.length, "file_modified": entry.modified * 1000}
        other = [
            {"file_length": entry.length + 1},
            {"file_modified": entry.modified * 1000 + 1},
            {"model_id": "other"},
            {"path": f"{path}.gone"},
        ]
        reasons = ["truncated", "unreadable", "no_decoder", "bad_archive"]
        kinds = [
            *[scored_row(path)] * 3,
            *[{**rejected_row(path), "reason": reason} for reason in reasons],
            {**scored_row(path), "status": "duplicate"},
        ]
        row = {**kinds[random.integers(len(kinds))], **version}
        if random.random() < 0.3:
            row |= other[random.integers(len(other))]
        # Rows of a path have one status: which of several is counted is not defined.
        rows += [row] * int(random.choice([0, 1, 1, 1, 2]))
        entries += [entry] * int(random.choice([0, 1, 1, 1, 1, 1, 1, 2]))
    return entries, [rows[index] for index in random.permutation(len(rows))]


@pytest.mark.slow("SQL, in a cold session")
@pytest.mark.parametrize(
    ("seed", "retry", "bucket_rows"),
    [(1, "transient", 1000), (2, "transient", 30), (3, "rejected", 7), (4, "never", 50)],
)
def test_files_give_what_sql_gives(
    warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    retry: Retry,
    bucket_rows: int,
) -> None:
    monkeypatch.setattr(listing, "ENTRIES_PER_PART", 11)
    entries, rows = draw(seed)
    parts = list_files(entries, tmp_path)
    write_rows(warehouse, rows, files=4)
    wanted, wanted_left = compare_by_sql(warehouse, parts, tmp_path / "sql", retry)
    assert wanted.outdated_rows > 0
    assert wanted_left.num_rows > 0
    diff, left = compare_by_files(warehouse, parts, tmp_path / "files", retry, bucket_rows)
    assert (diff.unchanged, diff.valid) == (wanted.unchanged, wanted.valid)
    assert diff.outdated_rows == wanted.outdated_rows
    assert list_outdated(diff) == list_outdated(wanted)
    assert left.equals(wanted_left)
    assert not (tmp_path / "files" / "entries").exists() or bucket_rows < 1000


def test_files_that_spark_wrote_are_compared(warehouse: Warehouse, tmp_path: Path) -> None:
    rows = [scored_row(f"{FOLDER}/{number}") for number in range(3)]
    write_rows(warehouse, rows)
    warehouse.delete(PREDICTIONS, f"path = '{FOLDER}/1'")  # Spark writes the others again
    modified = int(rows[0]["file_modified"].timestamp() * 1000)
    parts = list_files([FileEntry(row["path"], 1, modified) for row in rows], tmp_path)
    diff, left = compare_by_files(warehouse, parts, tmp_path / "files", "transient", 100)
    assert (diff.valid, diff.outdated) == ({"scored": 2}, None)
    assert left["path"].to_pylist() == [f"{FOLDER}/1"]


def compare_some(warehouse: Warehouse, tmp_path: Path, **options: Any) -> FileDiff:
    """Compare 40 listed files with rows of the first 20."""
    paths = [f"{FOLDER}/{number:0200d}.png" for number in range(40)]
    write_rows(warehouse, [scored_row(path) for path in paths[:20]], files=2)
    parts = list_files([FileEntry(path, 1, 0) for path in paths], tmp_path)
    files, known = plan(warehouse)
    context = warehouse.spark.sparkContext
    return diff_against_files(context, parts, files, known, str(tmp_path / "files"), **options)


@pytest.mark.parametrize("bucket_rows", [1000, 10])
def test_the_driver_receives_counts(warehouse: Warehouse, tmp_path: Path, bucket_rows: int) -> None:
    before = len(list_stage_bytes(warehouse.spark))
    diff = compare_some(warehouse, tmp_path, bucket_rows=bucket_rows)
    write_left(warehouse.spark.sparkContext, diff.left, str(tmp_path / "left"))
    sizes = list_stage_bytes(warehouse.spark)[before:]
    assert len(sizes) == (2 if bucket_rows == 1000 else 3)
    assert max(sizes) < 20_000


def test_a_bucket_holds_all_that_a_worker_holds(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(entries: pa.Table, *arguments: Any) -> Any:
        assert entries.num_rows < 40
        return original(entries, *arguments)

    original = compare_files.write_comparison
    monkeypatch.setattr(compare_files, "write_comparison", check)
    assert compare_some(warehouse, tmp_path, bucket_rows=10).groups


def test_a_lost_data_file_is_named(warehouse: Warehouse, tmp_path: Path) -> None:
    write_rows(warehouse, [scored_row(f"{FOLDER}/1")])
    ((file,), known) = plan(warehouse)
    Path(file.uri.removeprefix("file:")).unlink()
    parts = list_files([FileEntry(f"{FOLDER}/1", 1, 0)], tmp_path)
    with pytest.raises(Py4JJavaError) as error:
        diff_against_files(
            warehouse.spark.sparkContext, parts, [file], known, str(tmp_path / "files")
        )
    wanted = f"eagle_spark.errors.InputError: {file.uri} cannot be read: "
    assert _last_raised(str(error.value)).startswith(wanted)


@pytest.mark.train
@pytest.mark.slow("six runs of score")
def test_a_run_after_a_killed_one_ends_as_if_it_had_not_been_killed(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = sorted(path for path in images.rglob("*") if path.is_file())
    later = {path: tmp_path / path.name for path in files[::3]}
    results = {}
    for writer in ("files", "spark"):
        options = {"warehouse": tmp_path / writer, "writer": writer}
        for path, elsewhere in later.items():
            path.rename(elsewhere)
        first = score(**options)
        for path, elsewhere in later.items():
            elsewhere.rename(path)
        with monkeypatch.context() as patch:
            patch.setattr(chunks, "complete_chunk", die_at(2, chunks.complete_chunk))
            with pytest.raises(KeyboardInterrupt):
                score(chunk=2, **options)
        results[writer] = score(chunk=2, **options)
        assert results[writer]["already_scored"] == first["scored"] > 0
    same = ("listed", "already_scored", "scored", "rejected", "already_rejected", "deduplicated")
    assert len({tuple(result[name] for name in same) for result in results.values()}) == 1
    rows = [query(tmp_path / writer, PREDICTION_ROWS) for writer in results]
    assert rows[0] == rows[1]


@pytest.mark.train
@pytest.mark.slow("two runs of score")
def test_rows_of_delete_files_are_compared_by_sql(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    first = score()
    changes = "'write.delete.mode' = 'merge-on-read'"
    query(
        tmp_path / "warehouse", f"ALTER TABLE {PREDICTIONS.full_name} SET TBLPROPERTIES ({changes})"
    )
    gone = list_valid_images(images)[0]
    query(
        tmp_path / "warehouse",
        f"DELETE FROM {PREDICTIONS.full_name} WHERE path = '{gone.as_uri()}'",
    )
    result = score()
    assert (result["already_scored"], result["scored"]) == (first["scored"] - 1, 1)
    assert len({row.path for row in query(tmp_path / "warehouse")}) == result["listed"]
