"""DICOM in the jobs: scored beside PNG and JPEG, tags as a column, patients in the splits."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eagle_spark.datasets.ingest import preprocess
from eagle_spark.evaluation.evaluate import evaluate
from eagle_spark.imaging.dicom.read import hash_patient_id
from eagle_spark.scoring.job import score
from eagle_spark.settings import EvaluateSettings, PreprocessSettings, ScoreSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import IMAGES, PREDICTIONS, Warehouse
from tests.helpers.dicom_files import PATIENT, SYNTAXES, chest, dicom, shipped
from tests.helpers.sample_images import encode_image, picture, write_file

pytestmark = pytest.mark.spark


def rows(warehouse: Path, table: str) -> list[Any]:
    with open_session("test", str(warehouse)) as session:
        return session.sql(f"SELECT * FROM {table}").collect()


def make_tinted(number: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return an X-ray whose detail depends on `number`."""
    drawn = np.random.default_rng(number).integers(0, 900, (8, 8))
    return (chest() // 2 + np.kron(drawn, np.ones((8, 8)))).astype(np.uint16)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """PNG, JPEG, a DICOM of each transfer syntax, four rejects, and an archive of three."""
    folder = tmp_path / "images"
    grey = Image.fromarray(picture())
    write_file(folder / "a.png", encode_image(grey, "PNG"))
    write_file(folder / "b.jpg", encode_image(grey, "JPEG"))
    for number, (make, _) in enumerate(SYNTAXES.values()):
        write_file(folder / "dicom" / f"{number}.dcm", make())
    write_file(folder / "IM0001", dicom(make_tinted(1), ViewPosition="LL"))
    write_file(folder / "named.png", dicom(make_tinted(2)))
    write_file(folder / "ct.dcm", shipped("CT_small.dcm", Modality="CT"))
    write_file(folder / "colour.dcm", shipped("SC_rgb_rle.dcm"))
    write_file(folder / "frames.dcm", dicom(NumberOfFrames=2))
    write_file(folder / "cut.dcm", dicom()[:4000])
    with zipfile.ZipFile(folder / "night.zip", "w") as archive:
        archive.writestr("x/1.dcm", dicom(make_tinted(3)))
        archive.writestr("x/2.png", encode_image(grey.rotate(90), "PNG"))
        archive.writestr("x/3.dcm", shipped("MR_small.dcm", Modality="MR"))
    return folder


@pytest.mark.train
def test_a_folder_of_png_jpeg_and_dicom_is_scored_and_its_sums_balance(
    spark: Any, model_folder: Path, mixed: Path, tmp_path: Path
) -> None:
    options = {"model": str(model_folder), "warehouse": str(tmp_path / "warehouse")}
    result = score(ScoreSettings(images=str(mixed), **options))
    good = 2 + len(SYNTAXES) + 2 + 2
    assert result.listed == result.already_scored + result.scored + result.rejected
    assert (result.listed, result.scored, result.rejected) == (good + 5, good, 5)
    found = rows(tmp_path / "warehouse", PREDICTIONS.full_name)
    assert Counter(row.reason for row in found if row.status == "rejected") == Counter(
        ["not_a_chest_xray", "not_a_chest_xray", "colour", "multiple_frames", "truncated"]
    )
    by_name = {row.path.rsplit("/", 1)[1]: row for row in found}
    assert by_name["a.png"].dicom is None
    assert by_name["IM0001"].dicom.view == "LL"
    assert by_name["1.dcm"].dicom.patient_id == hash_patient_id(PATIENT, None)
    kept = sum(row.dicom is not None for row in found)
    assert kept == len(SYNTAXES) + 3
    with open_session("test", str(tmp_path / "warehouse")) as session:
        sql = f"SELECT count(*) FROM {PREDICTIONS.full_name} WHERE dicom.view = 'LL'"
        assert session.sql(sql).collect()[0][0] == 1
    again = score(ScoreSettings(images=str(mixed), **options))
    assert (again.scored, again.already_rejected) == (0, 5)


@pytest.mark.train
def test_a_dicom_is_scored_as_the_same_pixels_in_a_png(
    spark: Any, model_folder: Path, tmp_path: Path
) -> None:
    write_file(tmp_path / "images" / "a.png", encode_image(Image.fromarray(chest(200)), "PNG"))
    write_file(tmp_path / "images" / "a.dcm", dicom(chest(200)))
    options = {"model": str(model_folder), "warehouse": str(tmp_path / "warehouse")}
    settings = ScoreSettings(images=str(tmp_path / "images"), keep_patient_id=True, **options)
    assert score(settings).scored == 2
    one, other = sorted(rows(tmp_path / "warehouse", PREDICTIONS.full_name), key=lambda r: r.path)
    assert one.dicom.patient_id == PATIENT
    assert one.mask == other.mask
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


@pytest.mark.train
def test_tags_of_equal_bytes_are_copied(spark: Any, model_folder: Path, tmp_path: Path) -> None:
    options = {"model": str(model_folder), "warehouse": str(tmp_path / "warehouse")}
    write_file(tmp_path / "images" / "a.dcm", dicom())
    score(ScoreSettings(images=str(tmp_path / "images"), **options))
    write_file(tmp_path / "images" / "b.dcm", dicom())
    assert score(ScoreSettings(images=str(tmp_path / "images"), **options)).deduplicated == 1
    one, other = rows(tmp_path / "warehouse", PREDICTIONS.full_name)
    assert one.dicom == other.dicom is not None


def labelled(folder: Path) -> Path:
    """Three classes of eight files of four patients, no workbook."""
    for at, label in enumerate(("A", "B", "C")):
        for number in range(8):
            pixels, patient = make_tinted(at * 8 + number), f"{label}{number // 2}"
            write_file(
                folder / label / "images" / f"{number}.dcm", dicom(pixels, PatientID=patient)
            )
    return folder


def test_patients_of_dicom_files_stay_in_one_split(spark: Any, tmp_path: Path) -> None:
    options = {"input": str(labelled(tmp_path / "set")), "warehouse": str(tmp_path / "warehouse")}
    result = preprocess(PreprocessSettings(size=64, **options))
    assert (result.accepted, result.rejected) == (24, 0)
    found = rows(tmp_path / "warehouse", IMAGES.full_name)
    assert {row.patient_id for row in found} == {
        hash_patient_id(f"{label}{number}", None) for label in "ABC" for number in range(4)
    }
    splits: dict[str, set[str]] = {}
    for row in found:
        assert row.dicom.patient_id == row.patient_id
        splits.setdefault(row.patient_id, set()).add(row.split)
    assert all(len(split) == 1 for split in splits.values())
    kept = preprocess(PreprocessSettings(size=64, keep_patient_id=True, **options))
    assert kept.new_or_changed == 24
    assert {row.patient_id for row in rows(tmp_path / "warehouse", IMAGES.full_name)} == {
        f"{label}{number}" for label in "ABC" for number in range(4)
    }


@pytest.mark.train
def test_evaluate_counts_the_patients_of_dicom_files(
    spark: Any, model_folder: Path, tmp_path: Path
) -> None:
    folder = labelled(tmp_path / "set")
    result = evaluate(EvaluateSettings(input=str(folder), model=str(model_folder)))
    assert (result.images, result.rejected, result.patients) == (24, 0, 12)


def test_a_table_of_an_earlier_version_gets_the_column(spark: Any, tmp_path: Path) -> None:
    with open_session("test", str(tmp_path)) as session:
        (column,) = (column for column in PREDICTIONS.columns if column.name == "dicom")
        columns = tuple(one for one in PREDICTIONS.columns if one != column)
        Warehouse(session).create_or_migrate(replace(PREDICTIONS, columns=columns))
        assert "dicom" not in session.table(PREDICTIONS.full_name).columns
        Warehouse(session).create_or_migrate(PREDICTIONS)
        names = [column.name for column in PREDICTIONS.columns]
        assert session.table(PREDICTIONS.full_name).columns == names
