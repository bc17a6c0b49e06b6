"""The two writers of the rows of `score`: data files by workers, and Spark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow as pa
import pytest

from eagle_spark.scoring import chunks, job
from eagle_spark.scoring.diff import write_without_row
from eagle_spark.scoring.listing import LISTING, list_images, read_listing, write_listing
from eagle_spark.scoring.slices import read_slice
from eagle_spark.scoring.write_files import ScoreTask, find_misplaced
from eagle_spark.spark.batches import Worker
from eagle_spark.tables import PREDICTIONS
from tests.helpers.dicom_files import dicom
from tests.helpers.sample_images import write_file
from tests.helpers.score_runs import (
    PREDICTION_ROWS,
    change_batches,
    is_balanced,
    list_valid_images,
    query,
)
from tests.helpers.stage_bytes import list_stage_bytes

pytestmark = [pytest.mark.spark, pytest.mark.train]


def list_data_files(warehouse: Path) -> set[str]:
    return {path.name for path in (warehouse / "cxr/predictions/data").rglob("*.parquet")}


@pytest.mark.slow("two runs of score")
def test_both_writers_write_the_same_rows(
    score: Callable[..., dict[str, Any]], images: Path, tmp_path: Path, model_with_novelty: Path
) -> None:
    first, second, *_ = list_valid_images(images)
    with ZipFile(images / "ward.zip", "w") as archive:
        archive.write(second, "b.png")
        archive.write(first, "a.png")
        archive.writestr("broken.png", b"no image")
    write_file(images / "chest.dcm", dicom(WindowCenter="2048", WindowWidth="4096"))
    rows = {}
    for writer in ("files", "spark"):
        result = score(model=model_with_novelty, writer=writer, warehouse=tmp_path / writer)
        assert is_balanced(result)
        assert (result["listed"], result["scored"]) == (20, 15)
        rows[writer] = query(tmp_path / writer, PREDICTION_ROWS)
    assert rows["files"] == rows["spark"]
    for writer, is_named_by_run in (("files", True), ("spark", False)):
        (name,) = list_data_files(tmp_path / writer)
        assert name.startswith("score-") is is_named_by_run


def test_a_retried_task_leaves_one_row_and_one_orphan(
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = tmp_path / "mark"

    def fail_once(*arguments: Any) -> Any:
        task = ScoreTask(*arguments)

        def run(files: Any) -> Any:
            report = task(files)
            if not mark.exists():
                mark.touch()
                raise OSError("lost after its file was written")
            return report

        return run

    monkeypatch.setattr(chunks, "ScoreTask", fail_once)
    result = score()
    assert is_balanced(result)
    assert mark.exists()
    warehouse = tmp_path / "warehouse"
    assert Counter(row.path for row in query(warehouse)).most_common(1)[0][1] == 1
    files = query(warehouse, f"SELECT file_path FROM {PREDICTIONS.full_name}.files")
    committed = {row.file_path.rsplit("/", 1)[-1] for row in files}
    assert len(committed) == 1
    assert len(list_data_files(warehouse) - committed) == 1


def test_no_mask_passes_through_the_jvm(
    spark: Any,
    score: Callable[..., dict[str, Any]],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    padding = bytes(100_000)  # the audit reads the header of a mask

    def enlarge(worker: Worker, batches: Any) -> Any:
        for batch in worker(batches):
            masks = [mask and mask + padding for mask in batch["mask"].to_pylist()]
            at = batch.schema.get_field_index("mask")
            yield batch.set_column(at, "mask", pa.array(masks, pa.binary()))

    monkeypatch.setattr(job, "score_chunks", change_batches(enlarge))
    before = job.failpoint
    stages: dict[str, list[int]] = {}

    def count_stages(name: str) -> None:
        stages[name] = list_stage_bytes(spark)
        before(name)

    monkeypatch.setattr(job, "failpoint", count_stages)
    score(writer="files")
    longest = f"SELECT max(length(mask)) FROM {PREDICTIONS.full_name}"
    ((length,),) = query(tmp_path / "warehouse", longest)
    assert length > len(padding)
    new = stages["written"][len(stages["before write"]) :]
    assert 0 < sum(new) < 10_000


@pytest.mark.parametrize(
    ("written", "misplaced"),
    [(["a", "b"], None), (["a"], "b"), (["b", "a"], "a"), ([], "a"), (["a", "b", "c"], "c")],
)
def test_a_row_that_is_not_in_its_place_is_named(written: list[str], misplaced: str | None) -> None:
    column = pa.chunked_array([pa.array(written, pa.string())])
    assert find_misplaced(pa.chunked_array([["a"], ["b"]]), column) == misplaced


def test_files_without_a_row_are_in_the_order_of_the_listing(
    spark: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eagle_spark.scoring.listing.ENTRIES_PER_PART", 5)
    monkeypatch.setattr("eagle_spark.scoring.diff.ENTRIES_PER_PART", 2)
    first, *_ = list_valid_images(images)
    with ZipFile(images / "ward.zip", "w") as archive:
        archive.write(first, "b.png")
        archive.write(first, "a.png")
    parts = write_listing(list_images(str(images)), str(tmp_path / "staging"))
    assert len(parts) == 4
    listed = read_slice(parts, LISTING)
    listing = read_listing(spark, str(tmp_path / "staging"))
    rows = spark.createDataFrame(listed.take(list(range(0, listed.num_rows, 3))))
    left = write_without_row(listing, rows, str(tmp_path / "staging" / "left"))
    assert len(left) > 4
    wanted = listed.take([row for row in range(listed.num_rows) if row % 3])
    assert read_slice(left, LISTING).equals(wanted)
