"""DICOM Segmentations: another library reads the mask that the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from PIL import Image
from pydicom import config, dcmread

from eagle_spark.cli.main import main as eagle
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.quiet import suppress_warnings
from eagle_spark.model.predictor import load_model
from tests.helpers.dicom_files import chest, dicom, shipped
from tests.helpers.sample_images import encode_image, picture, write_file

pytestmark = pytest.mark.train


def main(words: list[str]) -> int:
    return eagle(["segment", *words])


# Tags that a Segmentation copies from its image.
WHOLE = {
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyDate": "",
    "StudyTime": "",
    "StudyID": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "SeriesInstanceUID": "1.2.3.9",
    "SeriesNumber": 1,
    "InstanceNumber": 1,
    "Laterality": "",
    "PatientOrientation": ["L", "F"],
    "PixelSpacing": [0.2, 0.2],
}


def test_the_mask_is_read_back_as_the_model_gives_it(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = dicom(chest(200), **WHOLE)
    image, out = write_file(tmp_path / "a.dcm", data), tmp_path / "seg.dcm"
    assert main([str(image), "--model", str(model_folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    found = hd.seg.segread(out)
    model = load_model(str(model_folder), threads=1)
    masks = model.compute_outputs(decode_image(data, model.size).pixels[None]).mask
    lungs = Image.fromarray(masks[0] >= model.bundle.metadata.mask_threshold)
    wanted = np.asarray(lungs.resize((200, 200), Image.Resampling.NEAREST))
    assert 0 < wanted.mean() < 1
    assert (found.pixel_array.astype(bool) == wanted).all()
    again = found.get_pixels_by_source_instance(["1.2.3.4"], segment_numbers=[1])
    assert (again[0, ..., 0].astype(bool) == wanted).all()
    plain = dcmread(out)
    source = dcmread(image)
    assert plain.Modality == "SEG"
    assert (plain.StudyInstanceUID, plain.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert plain.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lung"


def unusual(**tags: Any) -> bytes:
    """An image with tags that pydicom would refuse or warn of."""
    modes = config.settings
    before = modes.reading_validation_mode, modes.writing_validation_mode
    modes.reading_validation_mode = modes.writing_validation_mode = config.IGNORE
    try:
        with suppress_warnings():
            return dicom(chest(), **WHOLE | tags)
    finally:
        modes.reading_validation_mode, modes.writing_validation_mode = before


ANONYMISED = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")


@pytest.mark.parametrize(
    "tags",
    [
        dict.fromkeys((*ANONYMISED, "AccessionNumber", "ReferringPhysicianName", "PatientName")),
        {"PatientID": None},
        {"SpecificCharacterSet": "UTF8"},
        {"SpecificCharacterSet": None},
        {"SpecificCharacterSet": "no such set"},
    ],
    ids=["anonymised", "no_id", "misspelt_charset", "no_charset", "unknown_charset"],
)
def test_missing_tags_are_empty_in_the_segmentation(
    model_folder: Path, tmp_path: Path, tags: dict[str, str | None]
) -> None:
    image = write_file(tmp_path / "a.dcm", unusual(**tags))
    out = tmp_path / "seg.dcm"
    assert main([str(image), "--model", str(model_folder), "--out", str(out)]) == 0
    found = dcmread(out)
    assert found.StudyInstanceUID == "1.2.3"
    assert [keyword for keyword in tags if tags[keyword] is None and found.get(keyword)] in (
        [],
        ["SpecificCharacterSet"],
    )


@pytest.mark.parametrize(
    "tags",
    [{"PatientSex": "Sæx"}, {"PatientBirthDate": "19500199"}, {"StudyInstanceUID": "x^y"}],
    ids=str,
)
def test_errors_do_not_contain_patient_data(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tags: dict[str, str]
) -> None:
    image = write_file(tmp_path / "a.dcm", unusual(**tags))
    code = main([str(image), "--model", str(model_folder), "--out", str(tmp_path / "seg.dcm")])
    shown = capsys.readouterr()
    assert code in (0, 2)
    assert shown.err.count("\n") <= 1
    assert not any(value in shown.err for value in tags.values())
    assert "At^All" not in shown.err


def test_an_image_that_cannot_be_segmented_is_one_line(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(data: bytes, out: str = "seg.dcm") -> str:
        image = write_file(tmp_path / "image", data)
        assert main([str(image), "--model", str(model_folder), "--out", str(tmp_path / out)]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        assert not (tmp_path / "seg.dcm").exists()
        return message

    assert "not_a_chest_xray" in said(shipped("MR_small.dcm", Modality="MR"))
    assert "wanted a DICOM image" in said(encode_image(Image.fromarray(picture()), "PNG"))
    assert "lacks" in said(dicom(StudyInstanceUID=None, **WHOLE))
    write_file(tmp_path / "taken.dcm", b"")
    assert "exists" in said(dicom(**WHOLE), "taken.dcm")
