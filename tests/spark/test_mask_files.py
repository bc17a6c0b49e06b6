"""Mask files: their owner, and errors while they are written."""

from __future__ import annotations

import errno
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from eagle_spark.errors import OutputError
from eagle_spark.scoring import mask_files as masks
from eagle_spark.scoring.mask_files import OWNER_FILE, Masks, write_batches, write_masks

LONG = f"{'n' * 250}.png"


class MaskWriter:
    """Writes the missing masks of three images of a folder to `tmp_path/masks`."""

    def __init__(self, spark: Any, tmp_path: Path) -> None:
        self.spark, self.place = spark, tmp_path

    def __call__(self, folder: str, model_id: str = "m") -> Masks:
        images = (self.place / folder).as_uri()
        moment = datetime.now(timezone.utc) - timedelta(days=1)
        rows = self.spark.createDataFrame(
            [
                (f"{images}/{name}", f"{folder} {model_id}".encode(), moment)
                for name in ("a.png", "d/b.png", LONG)
            ],
            "path STRING, mask BINARY, scored_at TIMESTAMP",
        )
        given = (images, str(self.place / "masks"), model_id, (self.place / "staging").as_uri())
        return write_masks(rows, *given)

    def written(self) -> set[bytes]:
        return {path.read_bytes() for path in self.place.rglob("*.mask.png")}


@pytest.mark.spark
def test_masks_that_the_storage_refuses_are_a_problem_and_long_names_are_not(
    spark: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write = MaskWriter(spark, tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "d").write_bytes(b"")  # no folder
    first = write("one")
    assert (first.written, first.failed) == (1, 2)
    assert "2 of 3 masks could not be written: " in str(first.problem)
    (tmp_path / "masks" / "d").unlink()
    assert write("one") == Masks(1, 1)
    assert write("one") == Masks(0, 1)  # though none could be written
    assert "1 of 1 masks could not be written: " in caplog.text


@pytest.mark.spark
def test_masks_of_another_folder_or_model_replace_those_of_the_first(
    spark: Any, tmp_path: Path
) -> None:
    write = MaskWriter(spark, tmp_path)
    for folder, model_id in (("one", "m"), ("two", "m"), ("two", "n"), ("one", "m")):
        assert write(folder, model_id) == Masks(2, 1)
        assert write.written() == {f"{folder} {model_id}".encode()}


@pytest.mark.spark
def test_masks_missing_after_a_failed_run_are_written_by_the_next_run(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = MaskWriter(spark, tmp_path)
    assert write("one") == Masks(2, 1)
    with monkeypatch.context() as patch:
        patch.setattr(masks, "_write", lambda *_: Masks(problem=OutputError("killed")))
        assert write("two").problem
    assert write.written() == {b"one m"}
    assert write("two") == Masks(2, 1)
    assert write.written() == {b"two m"}


@pytest.mark.spark
def test_an_error_of_spark_is_a_problem(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("an executor is lost")

    monkeypatch.setattr(masks, "write_batches", fail)
    done = MaskWriter(spark, tmp_path)("one")
    assert "an executor is lost" in str(done.problem)


def test_an_unreadable_owner_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "masks" / OWNER_FILE).mkdir(parents=True)
    rows: Any = None
    done = write_masks(rows, "images", str(tmp_path / "masks"), "m", str(tmp_path / "staging"))
    assert "`masks_out`" in str(done.problem)


@pytest.mark.parametrize(
    ("number", "of_the_storage"),
    [
        (errno.ENAMETOOLONG, False),
        (errno.EINVAL, False),
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EACCES, True),
        (None, True),
    ],
)
def test_errors_of_names_and_of_the_storage_are_distinguished(
    monkeypatch: pytest.MonkeyPatch, number: int | None, of_the_storage: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no") if number else OSError("no")

    monkeypatch.setattr(masks, "resolve", lambda uri: (SimpleNamespace(write=refuse), uri))
    batch = pa.RecordBatch.from_pylist([{"target": "a", "mask": b""}])
    (row,) = (row for found in write_batches([batch]) for row in found.to_pylist())
    assert row["files"] == 0
    assert (row["problem"] is not None, row["name"] is not None) == (
        of_the_storage,
        not of_the_storage,
    )
