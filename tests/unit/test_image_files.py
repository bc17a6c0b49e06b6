"""Data files of `images`, from decoded images to rows, without a JVM."""

from __future__ import annotations

import json
import pickle
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.datasets import decode_worker
from eagle_spark.datasets.changes import hash_mask, hash_metadata
from eagle_spark.datasets.decode_worker import CANDIDATE, REPORT, DecodeWorker, decode_share
from eagle_spark.datasets.rows import complete_rows
from eagle_spark.datasets.write_files import StagedRows, WriteReport, WriteTask, share_rows
from eagle_spark.tables import IMAGES
from eagle_spark.tables.data_files import FileLayout, parse_schema
from tests.helpers.sample_images import make_tinted, write_file

NOW = datetime(2026, 11, 1, 12, 30, 0, 123456, tzinfo=timezone.utc)
CONSTANTS = {"status": "accepted", "ingested_at": NOW, "run_id": "preprocess-1"}
PRIMITIVES = {"INT": "int", "STRING": "string", "BINARY": "binary", "TIMESTAMP": "timestamptz"}
SIZE = 32


def create_layout(folder: Path) -> FileLayout:
    """Return a layout of `images` as Iceberg describes the table."""
    numbers = count(1)

    def describe(kind: str, fields: list[tuple[str, str]]) -> Any:
        if kind in PRIMITIVES:
            return PRIMITIVES[kind]
        if fields:
            return {"type": "struct", "fields": [field(*one, False) for one in fields]}
        assert kind == "MAP<STRING, STRING>"
        key, value = next(numbers), next(numbers)
        return {
            "type": "map",
            "key-id": key,
            "key": "string",
            "value-id": value,
            "value": "string",
            "value-required": False,
        }

    def field(name: str, kind: str, required: bool, fields: Any = ()) -> dict[str, Any]:
        number = next(numbers)
        return {"id": number, "name": name, "required": required, "type": describe(kind, fields)}

    columns = [
        field(column.name, column.type, not column.nullable, column.fields)
        for column in IMAGES.columns
    ]
    schema = parse_schema(json.dumps({"type": "struct", "schema-id": 0, "fields": columns}))
    return FileLayout(f"file://{folder}", schema, ("split",), "zstd", 1, 16 * 2**20)


def decode(folder: Path, images: int) -> pa.Table:
    """Decode images, of which every fifth is broken; return the report."""
    rows = []
    for number in range(images):
        path = folder / "images" / f"{number}.png"
        write_file(path, b"" if number % 5 == 4 else make_tinted(number))
        rows.append({"path": path.as_uri(), "label": "A", "source": "s"})
    worker = DecodeWorker(SIZE, f"file://{folder / 'staging'}")
    return decode_share(worker, pa.Table.from_pylist(rows, CANDIDATE))


def decide(report: pa.Table) -> pd.DataFrame:
    """Return the accepted images of a report, a third of them in each split."""
    facts = report.filter(report["reason"].is_null()).to_pandas()
    splits = [("train", "val", "test")[number % 3] for number in range(len(facts))]
    return facts.assign(split=splits, row=facts["row"].astype(int))


def write(folder: Path, staged: tuple[StagedRows, ...]) -> WriteReport:
    task = WriteTask(f"file://{folder / 'staging'}", create_layout(folder / "data"), CONSTANTS)
    return pickle.loads(pickle.dumps(task))(staged)  # noqa: S301 - as Spark does


def read(report: WriteReport) -> list[dict[str, Any]]:
    files = [pq.read_table(file.uri.removeprefix("file://")) for file in report.files]
    return [row for file in files for row in file.to_pylist()]


def test_a_report_has_a_row_for_each_candidate_in_their_order(tmp_path: Path) -> None:
    report = decode(tmp_path, 7)
    assert report.schema == REPORT
    assert [Path(path).stem for path in report["path"].to_pylist()] == list("0123456")
    assert report["reason"].to_pylist() == [None] * 4 + ["empty_file", None, None]
    assert report["row"].to_pylist() == [0, 1, 2, 3, None, 4, 5]
    (name,) = set(report["staged"].to_pylist()) - {None}
    staged = pq.read_table(tmp_path / "staging" / name)
    assert staged["path"].to_pylist() == report.filter(report["row"].is_valid())["path"].to_pylist()


def test_a_task_writes_a_file_for_each_split_with_the_decoded_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_worker, "BYTES_PER_FILE", 5 * SIZE**2)
    decided = decide(decode(tmp_path, 20))
    (staged,) = share_rows(decided, 1)
    assert len(staged) == 4
    report = write(tmp_path, staged)
    assert sorted(file.partition for file in report.files) == [("test",), ("train",), ("val",)]
    assert all(Path(file.uri).name.startswith("preprocess-1-") for file in report.files)
    rows = {row["path"]: row for row in read(report)}
    assert len(rows) == sum(file.rows for file in report.files) == len(decided) == 16
    for known in decided.to_dict("records"):
        row = rows[known["path"]]
        assert {**known, **row} | {"reason": None} == known | row
        assert (row["ingested_at"], row["status"]) == (NOW, "accepted")
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape(SIZE, SIZE)
        assert decode_worker.compute_perceptual_hash(pixels) == row["perceptual_hash"]
    back = report.rows.sort_by("path").to_pandas()
    assert list(back["split"]) == list(decided.sort_values("path")["split"])


def test_rows_that_are_not_decided_are_left_out(tmp_path: Path) -> None:
    decided = decide(decode(tmp_path, 9))
    chosen = decided[decided["row"] % 2 == 1]
    ((staged,),) = share_rows(chosen, 1)
    assert staged.rows == (1, 3, 5, 7)
    rows = read(write(tmp_path, (staged,)))
    assert {row["path"] for row in rows} == {*chosen["path"]}


def test_shares_are_equal_and_no_staged_file_is_in_two() -> None:
    written = pd.DataFrame(
        {
            "split": ["train"] * 60,
            "staged": [f"f{number // 6}" for number in range(60)],
            "row": [number % 6 for number in range(60)],
        }
    )
    shares = share_rows(written, 3)
    assert [[one.name for one in share] for share in shares] == [
        ["f0", "f1", "f2", "f3"],
        ["f4", "f5", "f6"],
        ["f7", "f8", "f9"],
    ]
    assert [len(share) for share in share_rows(written, 100)] == [1] * 10
    assert share_rows(written[:0], 1) == []


def test_columns_that_are_not_given_are_null() -> None:
    rows = complete_rows(pa.table({"path": ["a", "b"]}), {"label": "A", "ingested_at": NOW})
    assert rows.schema == IMAGES.arrow_schema()
    assert rows["label"].to_pylist() == ["A", "A"]
    assert rows["ingested_at"].to_pylist() == [NOW, NOW]
    given = {"path", "label", "ingested_at"}
    assert all(rows[name].null_count == 2 for name in set(rows.column_names) - given)


def test_hashes_differ_where_values_differ() -> None:
    assert hash_mask(None) == hash_metadata(None) == 0
    different = [
        [],
        [("A", "")],
        [("A", None)],
        [("A", "B")],
        [("B", "A")],
        [("A", "B"), ("C", "D")],
        [("A", "C"), ("B", "D")],
    ]
    hashes = {hash_metadata(one) for one in different} | {hash_mask(b"a"), hash_mask(b"b"), 0}
    assert len(hashes) == len(different) + 3
    assert max(hashes) < 2**63
