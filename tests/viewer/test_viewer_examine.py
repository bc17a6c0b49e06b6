"""Analysis of single images: equal to the job `score`, without TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eagle_spark.errors import ModelError, PlatformError
from eagle_spark.imaging.decode import decode_image
from eagle_spark.model.bundle import open_bundle, seal
from eagle_spark.model.predictor import decode_outputs
from eagle_spark.scoring.predict import prediction_columns
from eagle_spark.viewer.examine import ImageAnalyzer, split_lung_area
from tests.helpers.sample_images import EXPECTED_REASONS, SAMPLE_IMAGES, write_file

pytestmark = pytest.mark.train  # TensorFlow builds the model of these tests

# Runs `eagle predict` and fails if it loads a library that desktops do not install.
RUN_WITHOUT_HEAVY_LIBRARIES = """
import sys
from eagle_spark.cli.main import main
code = main(["predict", *sys.argv[1:]])
heavy = {"tensorflow", "keras", "pyspark", "pandas", "pyarrow", "PySide6"} & sys.modules.keys()
sys.exit(f"loaded: {heavy}" if heavy else code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, make in SAMPLE_IMAGES.items():
        write_file(folder / name, make())
    return folder


@pytest.fixture(scope="module")
def analyzer(model_folder: Path) -> ImageAnalyzer:
    return ImageAnalyzer(str(model_folder))


def test_every_file_gives_a_prediction_or_a_reason(analyzer: ImageAnalyzer, folder: Path) -> None:
    for name, reason in EXPECTED_REASONS.items():
        analysis = analyzer.analyze(str(folder / name), with_view=True)
        record = json.loads(json.dumps(analyzer.to_record(analysis), allow_nan=False))
        assert (record.get("reason"), analysis.view is None) == (reason, reason is not None), name
        assert record["status"] == ("rejected" if reason else "scored")


def test_the_prediction_equals_that_of_score(analyzer: ImageAnalyzer, folder: Path) -> None:
    path = folder / "sixteen_bit.png"
    record = analyzer.to_record(analyzer.analyze(str(path)))
    pixels = decode_image(path.read_bytes(), analyzer.bundle.metadata.input.size).pixels[np.newaxis]
    (prediction,) = decode_outputs(analyzer.bundle, pixels, analyzer._model.compute_outputs(pixels))
    expected = prediction_columns(prediction)
    for name in ("status", "label", "confidence", "novelty", "review_reasons", "lung_area"):
        assert record[name] == expected[name], name
    assert record["probabilities"] == dict(expected["probabilities"])
    assert record["needs_review"] == bool(record["review_reasons"])
    assert record["lung_area_left"] + record["lung_area_right"] == pytest.approx(
        record["lung_area"]
    )


def test_eagle_predict_prints_a_line_per_image_without_heavy_libraries(
    model_folder: Path, folder: Path
) -> None:
    names = [str(folder / "grey.png"), str(folder / "empty.png"), "nowhere.png"]
    process = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_HEAVY_LIBRARIES, "--model", str(model_folder), *names],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (process.returncode, process.stderr) == (0, "")
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert [line["path"] for line in lines] == names
    assert [line.get("reason") for line in lines] == [None, "empty_file", "unreadable"]
    assert all("not for diagnosis" in line["intended_use"] for line in lines)


def test_an_altered_model_is_rejected(
    model_folder: Path,
    tmp_path: Path,
    eagle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = folder / "openvino/model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match=r"model\.bin: altered"):
        ImageAnalyzer(str(folder))
    assert eagle("predict", "--model", folder, "x.png") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "altered" in captured.err


def test_a_model_without_exported_engines_is_rejected(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    metadata = open_bundle(str(folder)).metadata
    seal(folder, metadata.model_copy(update={"engines": {"keras": metadata.engines["keras"]}}))
    with pytest.raises(PlatformError, match="exported"):
        ImageAnalyzer(str(folder))


def test_lung_area_is_split_between_the_lungs() -> None:
    mask = np.zeros((10, 30), bool)
    mask[2:8, 3:11] = True  # 48 pixels
    mask[2:6, 15:28] = True  # 52 pixels, beyond the middle
    assert split_lung_area(mask) == (48 / 300, 52 / 300)
    assert split_lung_area(np.zeros((9, 9), bool)) == (0.0, 0.0)
    mask[:] = True
    assert sum(split_lung_area(mask)) == 1.0
