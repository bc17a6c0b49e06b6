"""The public API, in a notebook's process and in a Spark session that somebody else has started."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eagle_spark as eagle
from eagle_spark.errors import ImageRejectedError, InputError
from eagle_spark.imaging.mask import decode_mask
from eagle_spark.tables import PREDICTIONS
from tests.helpers.sample_images import (
    EXPECTED_REASONS,
    SAMPLE_IMAGES,
    encode_image,
    grey,
    make_tinted,
    write_file,
)

pytestmark = [pytest.mark.train, pytest.mark.spark]  # the model of these tests is TensorFlow's


@pytest.fixture(scope="module")
def model(model_folder: Path) -> eagle.Model:
    return eagle.load_model(str(model_folder), engine="openvino", threads=1)


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Four images, one of them in an archive, and a broken file."""
    folder = tmp_path / "ward"
    for number in range(3):
        write_file(folder / f"{number}.png", make_tinted(number))
    write_file(folder / "broken.png", b"no image")
    with zipfile.ZipFile(folder / "night.zip", "w") as archive:
        archive.writestr("in.png", make_tinted(9))
    return folder


def test_the_package_loads_nothing_until_a_function_is_used() -> None:
    program = (
        "import sys, eagle_spark; print([m for m in ('pyspark', 'numpy', 'pyarrow', 'tensorflow')"
        " if m in sys.modules]); print(sorted(set(eagle_spark.__all__) - set(dir(eagle_spark))))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stdout.splitlines()[0] == "[]"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eagle.nothing  # noqa: B018
    assert all(getattr(eagle, name) for name in eagle.__all__)


def test_a_model_predicts_bytes_paths_and_lists(model: eagle.Model, tmp_path: Path) -> None:
    data = encode_image(grey(), "PNG")
    one = model.predict(data)
    assert one.status == "scored"
    assert one.label in model.classes
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert one.mask is not None
    assert one.mask.shape == (model.size, model.size)
    assert one.lung_area == pytest.approx(one.mask.mean())
    path = write_file(tmp_path / "a.png", data)
    broken, missing, again = model.predict([b"no image", str(tmp_path / "gone.png"), str(path)])
    assert (broken.status, broken.reason, broken.label) == ("rejected", "not_an_image", None)
    assert (missing.reason, missing.image_id) == ("unreadable", None)
    assert (again.label, again.image_id) == (one.label, one.image_id)
    assert model.predict([]) == []


def test_results_do_not_depend_on_what_is_beside_an_image(model: eagle.Model) -> None:
    contents = [make_tinted(number) for number in range(130)]
    together = model.predict(contents)
    for place in (0, 63, 64, 129):
        alone = model.predict(contents[place])
        assert alone.image_id == together[place].image_id
        assert alone.confidence == pytest.approx(together[place].confidence, abs=1e-3)


def test_a_model_pickles_as_its_address(model: eagle.Model) -> None:
    small = pickle.dumps(model)
    assert len(small) < 2000
    again = pickle.loads(small)  # noqa: S301
    assert (again.id, again.classes, again.engine) == (model.id, model.classes, "openvino")


def test_read_image_gives_the_pixels_of_every_job() -> None:
    found = eagle.read_image(encode_image(grey(), "PNG"), size=32)
    assert (found.pixels.shape, found.width, found.dicom) == ((32, 32), 64, None)
    with pytest.raises(ImageRejectedError, match="not_an_image"):
        eagle.read_image(b"no image")


def test_a_folder_is_predicted_by_a_udf(spark: Any, model: eagle.Model, ward: Path) -> None:
    images = eagle.read_images(spark, str(ward))
    assert images.columns == ["path", "content"]
    predict = eagle.predict_udf(model)
    rows = images.select("path", predict("content").alias("p")).select("path", "p.*").collect()
    found = {row.path.rpartition("/")[2]: row for row in rows}
    assert sorted(found) == ["0.png", "1.png", "2.png", "broken.png", "in.png"]
    assert found["broken.png"].reason == "not_an_image"
    assert found["broken.png"].probabilities is None
    for number in range(3):
        row, here = found[f"{number}.png"], model.predict(make_tinted(number))
        assert (row.status, row.label, row.image_id) == ("scored", here.label, here.image_id)
        assert row.confidence == pytest.approx(here.confidence, abs=1e-3)
        assert (decode_mask(bytes(row.mask)) == here.mask).mean() > 0.999


def test_every_sample_file_is_a_row(spark: Any, model: eagle.Model) -> None:
    rows = [(name, bytearray(make())) for name, make in SAMPLE_IMAGES.items()]
    table = spark.createDataFrame([*rows, ("none", None)], "path STRING, content BINARY")
    found = eagle.score(table, model).select("path", "status", "reason").collect()
    wanted = {name: reason and str(reason) for name, reason in EXPECTED_REASONS.items()}
    assert {row.path: row.reason for row in found} == wanted | {"none": "unreadable"}


@pytest.mark.slow("a stream to its end, beside SQL")
def test_sql_and_a_stream_predict_too(
    spark: Any, model: eagle.Model, ward: Path, tmp_path: Path
) -> None:
    eagle.register_udf(spark, model, "eagle_predict")
    eagle.read_images(spark, str(ward)).createOrReplaceTempView("ward")
    rows = spark.sql("SELECT eagle_predict(content).status AS status FROM ward").collect()
    assert sorted(row.status for row in rows) == ["rejected", *["scored"] * 4]
    columns = "path STRING, modificationTime TIMESTAMP, length BIGINT, content BINARY"
    files = spark.readStream.format("binaryFile").schema(columns)
    files = files.option("pathGlobFilter", "*.png").load(str(ward))
    query = (
        files.selectExpr("path", "eagle_predict(content).status AS status")
        .writeStream.format("memory")
        .queryName("streamed")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    assert query.awaitTermination(120)
    streamed = spark.sql("SELECT status FROM streamed").collect()
    assert sorted(row.status for row in streamed) == ["rejected", *["scored"] * 3]


def test_score_has_the_columns_of_the_table(spark: Any, model: eagle.Model, ward: Path) -> None:
    rows = eagle.score(eagle.read_images(spark, str(ward)), model)
    assert [(one.name, one.dataType) for one in rows.schema] == [
        (one.name, one.dataType) for one in PREDICTIONS.schema()
    ]
    found = rows.collect()
    assert {row.model_id for row in found} == {model.id}
    assert {row.engine for row in found if row.status == "scored"} == {"openvino"}
    assert {row.engine for row in found if row.status == "rejected"} == {None}


def of_images(spark: Any, split: str | None = None) -> Any:
    """Rows of `images` without pixels: ten patients of two images; the first two stand apart."""
    rows = []
    draw = np.random.default_rng(0)
    for number in range(20):
        name = f"{number:064x}"
        chosen = "train" if number else split
        rows.append((f"{number}.png", "AB"[number // 10], "here", f"p{number // 2}", name,
                     bytearray(draw.bytes(32)), chosen))  # fmt: skip
    columns = "path STRING, label STRING, source STRING, patient_id STRING, image_id STRING,"
    return spark.createDataFrame(rows, columns + " perceptual_hash BINARY, split STRING")


def test_leaks_are_found_and_splits_have_none(spark: Any) -> None:
    (leak,) = eagle.find_leaks(of_images(spark, "test"))
    assert (leak.path, leak.reason) == ("0.png", "patient")
    split = eagle.assign_splits(of_images(spark, "test"), fractions=(0.6, 0.2, 0.2), seed=3)
    assert eagle.find_leaks(split) == []
    assert {row.split for row in split.collect()} == {"train", "val", "test"}
    with pytest.raises(InputError, match=r"df: wanted the columns .*; patient_id missing"):
        eagle.find_leaks(split.drop("patient_id"))


def test_drift_is_measured_against_a_model_or_earlier_predictions(
    spark: Any, model: eagle.Model
) -> None:
    def rows(count: int, label: str) -> Any:
        return spark.range(count).selectExpr(
            f"'{label}' AS label", "'scored' AS status", "CAST(id AS STRING) AS path",
            "0.5 + id / 1000 AS confidence", "0.3D AS lung_area", "0.1D AS novelty",
        )  # fmt: skip

    same = eagle.drift(rows(200, "A"), rows(200, "A"))
    other = eagle.drift(rows(200, "A").union(rows(200, "B")), rows(200, "B"))
    assert same["label"] == 0
    assert other["label"] > 0.25
    assert eagle.drift(rows(200, "A"), rows(5, "A")) == {}
    assert eagle.drift(model, rows(200, "A")).keys() <= {
        "label", "confidence", "lung_area", "novelty"
    }  # fmt: skip
