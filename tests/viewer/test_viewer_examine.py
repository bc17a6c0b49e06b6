"""One image as the window and `eagle-predict` have it: what `score` says, and never TensorFlow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagle_spark.errors import BundleError, PlatformError
from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.model.answer import answers
from eagle_spark.model.bundle import open_bundle, seal
from eagle_spark.scoring.predict import prediction
from eagle_spark.viewer.examine import Examiner, sides
from eagle_spark.viewer.predict import main
from tests.helpers.planted import EXPECTED, PLANTED, put

pytestmark = pytest.mark.train  # the model of these tests is made by TensorFlow

# A library that may not be loaded here: as the window runs where it is not installed.
WITHOUT = """
import sys
from eagle_spark.viewer.predict import main
code = main(sys.argv[1:])
heavy = {"tensorflow", "keras", "pyspark", "pandas", "pyarrow", "PySide6"} & sys.modules.keys()
sys.exit(f"loaded: {heavy}" if heavy else code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("planted")
    for name, make in PLANTED.items():
        put(found / name, make())
    return found


@pytest.fixture(scope="module")
def examiner(model_folder: Path) -> Examiner:
    return Examiner(str(model_folder))


def test_every_kind_of_file_is_an_answer_or_its_reason(examiner: Examiner, folder: Path) -> None:
    for name, reason in EXPECTED.items():
        found = examiner.examine(str(folder / name), look=True)
        record = json.loads(json.dumps(examiner.record(found), allow_nan=False))
        assert (record.get("reason"), found.view is None) == (reason, reason is not None), name
        assert record["status"] == ("rejected" if reason else "scored")


def test_the_answer_is_that_of_score(examiner: Examiner, folder: Path) -> None:
    path = folder / "sixteen_bit.png"
    record = examiner.record(examiner.examine(str(path)))
    pixels = read_radiograph(path.read_bytes(), examiner.bundle.size).pixels[np.newaxis]
    (answer,) = answers(examiner.bundle, pixels, examiner._engine.predict(pixels))
    wanted = prediction(answer)
    for name in ("status", "label", "confidence", "novelty", "review_reasons", "lung_area"):
        assert record[name] == wanted[name], name
    assert record["probabilities"] == dict(wanted["probabilities"])
    assert record["needs_review"] == bool(record["review_reasons"])
    assert record["lung_area_left"] + record["lung_area_right"] == pytest.approx(
        record["lung_area"]
    )


def test_a_line_for_every_image_and_nothing_heavy(model_folder: Path, folder: Path) -> None:
    names = [str(folder / "grey.png"), str(folder / "empty.png"), "nowhere.png"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "--model", str(model_folder), *names],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == names
    assert [line.get("reason") for line in lines] == [None, "empty_file", "unreadable"]
    assert all("not for diagnosis" in line["intended_use"] for line in lines)


def test_an_altered_model_is_refused(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = folder / "openvino/model.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"model\.bin: altered"):
        Examiner(str(folder))
    assert main(["--model", str(folder), "x.png"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "altered" in printed.err


def test_keras_alone_is_not_enough(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    card: dict[str, Any] = dict(open_bundle(str(folder)).metadata)
    card["engines"] = {"keras": card["engines"]["keras"]}
    del card["digests"], card["model_id"]
    (folder / "metadata.json").unlink()
    seal(folder, card)
    with pytest.raises(PlatformError, match="exported"):
        Examiner(str(folder))


def test_lungs_are_told_apart_by_the_column_between() -> None:
    mask = np.zeros((10, 30), bool)
    mask[2:8, 3:11] = True  # 48 pixels
    mask[2:6, 15:28] = True  # 52 pixels, beyond the middle
    assert sides(mask) == (48 / 300, 52 / 300)
    assert sides(np.zeros((9, 9), bool)) == (0.0, 0.0)
    mask[:] = True
    assert sum(sides(mask)) == 1.0
