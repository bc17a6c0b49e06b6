"""The evaluate job: labelled folders of any layout, metrics, and the range of the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eagle_spark.errors import InputError, Reason, SettingsError
from eagle_spark.evaluation.evaluate import evaluate
from eagle_spark.evaluation.labelled import list_labelled_images, parse_class_mapping
from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.mask import read_mask
from eagle_spark.metrics.scores import compute_overlap_metrics
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.predictor import load_model
from eagle_spark.settings import EvaluateSettings
from tests.helpers.sample_images import encode_image, make_tinted, picture, write_file
from tests.helpers.tiny_model import reseal

CLASSES = ("A", "B", "C")


def half_mask() -> bytes:
    mask = np.zeros((50, 50), np.uint8)
    mask[10:40, 5:25] = 255
    return encode_image(Image.fromarray(mask), "PNG")


def labels(root: Path, option: str | None = None) -> dict[str, str]:
    """Return path below the root -> class, or the reason of the rejection."""
    found = list_labelled_images(str(root), parse_class_mapping(option, CLASSES))
    assert {one.source for one in found} == {root.name}
    return {
        one.uri.removeprefix(f"{root.as_uri()}/"): str(one.reason or one.label) for one in found
    }


def test_the_layout_of_preprocess_needs_no_option(tmp_path: Path) -> None:
    for name in ("a/images/1.png", "b/images/1.png", "b/masks/1.png", "B/../notes.txt"):
        write_file(tmp_path / name, b"x")
    assert labels(tmp_path) == {"a/images/1.png": "A", "b/images/1.png": "B"}


def test_class_folders_may_stand_at_any_depth_under_other_spellings(tmp_path: Path) -> None:
    names = ("train/Alpha/1.png", "test/ALPHA/1.png", "test/x/c/2.png", "test/B/3.png", "r.txt")
    for name in names:
        write_file(tmp_path / name, b"x")
    assert labels(tmp_path, "alpha=A") == {
        "train/Alpha/1.png": "A",
        "test/ALPHA/1.png": "A",
        "test/x/c/2.png": "C",
        "test/B/3.png": "B",
    }


def test_images_of_an_unknown_class_folder_are_rejected(
    tmp_path: Path,
) -> None:
    for name in ("t/A/1.png", "t/Other/1.png", "t/Other/2.png"):
        write_file(tmp_path / name, b"x")
    unknown = str(Reason.UNKNOWN_CLASS)
    assert labels(tmp_path) == {
        "t/A/1.png": "A",
        "t/Other/1.png": unknown,
        "t/Other/2.png": unknown,
    }
    assert set(labels(tmp_path, "Other=B").values()) == {"A", "B"}


def test_no_folder_of_a_class_is_an_error_that_names_the_folders(tmp_path: Path) -> None:
    write_file(tmp_path / "train" / "Covid" / "1.png", b"x")
    with pytest.raises(
        InputError, match=r"class of the model \(A, B, C\); got the folders Covid: set"
    ):
        labels(tmp_path)


@pytest.mark.parametrize("option", ["Covid", "Covid=", "=A", "Covid=D", "Covid=A,"])
def test_an_invalid_class_mapping_is_named(option: str) -> None:
    with pytest.raises(
        SettingsError, match="`classes`: wanted FOLDER=CLASS,…, each CLASS one of A"
    ):
        parse_class_mapping(option, CLASSES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images, half of them with a mask, and rejected ones for each of `REASONS`."""
    root = tmp_path / "set"
    for number in range(4):
        write_file(root / "train" / "Alpha" / f"{number}.png", make_tinted(number))
        shifted = encode_image(Image.fromarray(picture(shift=0.03 * number)), "JPEG")
        write_file(root / "images first" / "B" / "images" / f"{number}.jpg", shifted)
        write_file(root / "images first" / "B" / "masks" / f"{number}.png", half_mask())
    write_file(root / "train" / "Alpha" / "text.png", b"no image")
    write_file(root / "train" / "Omega" / "1.png", make_tinted(20))
    write_file(root / "train" / "B" / "twice.png", make_tinted(30))
    write_file(root / "train" / "C" / "twice.png", make_tinted(30))
    write_file(root / "images first" / "B" / "images" / "bare.png", make_tinted(40))
    write_file(root / "images first" / "B" / "images" / "broken mask.png", make_tinted(50))
    write_file(root / "images first" / "B" / "masks" / "broken mask.png", b"no mask")
    return root


REASONS = {
    "conflicting_labels": 2,
    "mask_invalid": 1,
    "mask_missing": 1,
    "not_an_image": 1,
    "unknown_class": 1,
}


@pytest.mark.spark
@pytest.mark.train
def test_metrics_equal_those_of_the_engine(spark: Any, model_folder: Path, folder: Path) -> None:
    given = EvaluateSettings(input=str(folder), model=str(model_folder), classes="alpha=A")
    result = evaluate(given)
    assert (result.listed, result.images, result.rejected) == (14, 8, 6)
    assert result.by_reason == REASONS

    bundle = open_bundle(str(model_folder))
    files = sorted(folder.glob("train/Alpha/?.png")) + sorted(folder.glob("*/B/images/?.jpg"))
    pixels = np.stack(
        [decode_image(file.read_bytes(), bundle.metadata.input.size).pixels for file in files]
    )
    model = load_model(str(model_folder), result.engine, 1)
    probabilities, lungs, _ = model.compute_outputs(pixels)
    truth = np.repeat([0, 1], 4)
    right = probabilities.argmax(axis=1) == truth
    flagged = probabilities.max(axis=1) < bundle.metadata.review.confidence
    assert result.accuracy == right.mean()
    assert (result.wrong, result.wrong_flagged, result.right_flagged) == (
        (~right).sum(),
        (~right & flagged).sum(),
        (right & flagged).sum(),
    )
    by_reason = {
        "confidence": result.wrong_flagged,
        "novelty": 0,
        "mask": 0,
        "for_processing": 0,
    }
    assert result.wrong_flagged_by == by_reason
    assert result.right_flagged_by == by_reason | {"confidence": result.right_flagged}
    mask = read_mask(half_mask(), bundle.metadata.input.size)
    by_hand = [
        compute_overlap_metrics(mask, found >= bundle.metadata.mask_threshold)
        for found in lungs[4:]
    ]
    for name in ("dice", "iou"):
        assert getattr(result, name) == pytest.approx(np.mean([one[name] for one in by_hand]))
        assert result.counted[name] == 4
    assert result.recall_by_class["A"] == right[:4].mean()
    assert result.recall_by_class["C"] is None
    # The metadata of this model have no metrics.
    assert (result.card_accuracy, result.out_of_range) == (None, None)


def carded(model: Path, out: Path, **card: Any) -> Path:
    """Copy the model, with changed metadata."""
    shutil.copytree(model, out)
    reseal(out, **card)
    return out


def card(accuracy: float) -> dict[str, Any]:
    interval = [accuracy - 0.05, min(1.0, accuracy + 0.05)]
    return {"test": {"accuracy": accuracy, "intervals": {"accuracy": interval}}}


@pytest.mark.spark
@pytest.mark.train
@pytest.mark.parametrize(("promised", "below"), [(0.05, False), (1.0, True)])
def test_an_accuracy_below_the_interval_of_the_model_is_out_of_range(
    spark: Any, model_folder: Path, tmp_path: Path, promised: float, below: bool
) -> None:
    for number in range(3):
        for label in CLASSES:  # the classes look alike: no model is right on all images
            write_file(
                tmp_path / "set" / label / f"{number}.png", make_tinted(3 * number + ord(label))
            )
    model = carded(model_folder, tmp_path / "model", metrics=card(promised))
    result = evaluate(EvaluateSettings(input=str(tmp_path / "set"), model=str(model)))
    assert 0 < result.accuracy < 0.95
    assert result.out_of_range is below
    assert [said.split(" is ")[0] for said in result.out_of_range_by] == (
        [f"accuracy {result.accuracy:.3f}"] if below else []
    )
    assert (result.card_accuracy, result.drift) == (promised, None)


@pytest.mark.slow("a job by its spark-submit")
@pytest.mark.spark
@pytest.mark.train
def test_evaluate_runs_by_spark_submit_without_tensorflow(
    model_folder: Path,
    folder: Path,
    tmp_path: Path,
    run_job: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_file(tmp_path / "no" / "tensorflow.py", b"raise RuntimeError('TensorFlow was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "no"))  # of driver and workers
    options = ["--input", folder, "--model", model_folder, "--classes", "Alpha=A,Omega=C"]
    done = run_job("evaluate", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (done.result["images"], done.result["rejected"]) == (9, 5)
