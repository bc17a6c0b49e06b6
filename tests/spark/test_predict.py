"""The rows that a worker returns for listed files, without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.imaging.mask import decode_mask
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.predictor import ModelRef
from eagle_spark.scoring.listing import list_images, write_listing
from eagle_spark.scoring.predict import ScoreWorker
from eagle_spark.tables import PREDICTIONS
from tests.helpers.dicom_files import dicom
from tests.helpers.sample_images import write_file

pytestmark = pytest.mark.train  # the model of these tests is made by TensorFlow


@pytest.fixture
def worker(model_folder: Path) -> ScoreWorker:
    model_id = open_bundle(str(model_folder)).metadata.model_id
    return ScoreWorker(ModelRef(str(model_folder), model_id, "openvino", 1), run_id="run")


def read_listing(images: Path, staging: Path) -> pa.Table:
    write_listing(list_images(str(images)), str(staging))
    return pq.read_table(staging)


def test_a_row_does_not_depend_on_the_batch_of_its_image(
    images: Path, worker: ScoreWorker, tmp_path: Path
) -> None:
    listing = read_listing(images, tmp_path / "listing")

    def rows(size: int) -> list[dict[str, Any]]:
        batches = listing.to_batches(max_chunksize=size)
        return [row for batch in worker(batches) for row in batch.to_pylist()]

    together = rows(100)
    assert [row["status"] for row in together].count("scored") == 12
    for size in (1, 5):
        for row, other in zip(rows(size), together, strict=True):
            for name in ("path", "image_id", "status", "reason", "label"):
                assert row[name] == other[name]
            if row["status"] == "scored":
                assert row["confidence"] == pytest.approx(other["confidence"], abs=1e-3)
                assert np.mean(decode_mask(row["mask"]) != decode_mask(other["mask"])) < 1e-3


def test_guesses_and_raw_images_are_in_the_row(worker: ScoreWorker, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_file(images / "plain.dcm", dicom(WindowCenter="2048", WindowWidth="4096"))
    raw = {"PresentationIntentType": "FOR PROCESSING", "BodyPartExamined": "TORAX"}
    write_file(images / "raw.dcm", dicom(**raw))
    listing = read_listing(images, tmp_path / "listing")
    rows = (one for batch in worker(listing.to_batches()) for one in batch.to_pylist())
    plain, row = sorted(rows, key=lambda one: str(one["path"]))
    assert plain["detail"] is None
    assert "for_processing" not in plain["review_reasons"]
    assert row["detail"] == "body part TORAX is read as chest; no window"
    assert row["dicom"]["intent"] == "FOR PROCESSING"
    assert row["needs_review"]
    assert "for_processing" in row["review_reasons"]


def test_a_rejected_file_has_no_prediction(worker: ScoreWorker, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_file(images / "broken.png", b"no image")
    listing = read_listing(images, tmp_path / "listing")
    (row,) = (one for batch in worker(listing.to_batches()) for one in batch.to_pylist())
    assert {name for name, value in row.items() if value is not None} == {
        *("image_id", "path", "file_length", "file_modified", "status", "reason", "detail"),
        *("model_id", "run_id", "scored_at"),
    }


def test_a_column_of_the_table_that_no_row_has_raises(
    worker: ScoreWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    write_file(images / "broken.png", b"no image")
    listing = read_listing(images, tmp_path / "listing")
    schema = PREDICTIONS.arrow_schema().append(pa.field("new_column", pa.string()))
    monkeypatch.setattr("eagle_spark.scoring.predict.PREDICTION_SCHEMA", schema)
    with pytest.raises(KeyError, match="new_column"):
        next(worker(listing.to_batches()))
