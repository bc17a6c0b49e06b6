from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from eagle_spark.errors import ModelError, PlatformError
from eagle_spark.model import engines, export
from eagle_spark.model.bundle import Bundle
from eagle_spark.model.engines import Engine, ModelOutputs, choose_engine
from eagle_spark.model.gate import Outcomes, compare_outcomes, compare_with_reference
from eagle_spark.model.metadata import GateResult, InputContract, ModelMetadata
from eagle_spark.model.review import ReviewThresholds

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 8), np.uint8)


class Stub:
    """Judges by the mean grey; `slip` is added to the batches of one size."""

    name = "stub"

    def __init__(self, slip: float = 0.0, batch: int = 7, drift: float = 0.0) -> None:
        self.slip, self.batch, self.drift = slip, batch, np.float32(drift)

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        first = np.float32(0.6) + (self.slip if len(pixels) == self.batch else 0)
        label = np.tile(np.array([first, 1 - first], np.float32), (len(pixels), 1))
        statistics = pixels.mean(axis=(1, 2), keepdims=True, dtype=np.float32)[:, 0] + self.drift
        return ModelOutputs(label, (pixels > 99).astype(np.float32), statistics)


def gated(engine: Engine) -> GateResult:
    return compare_with_reference(engine, PIXELS, Stub().predict(PIXELS), 0.5)


def test_an_equal_engine_passes() -> None:
    result = gated(Stub())
    assert result.passed
    assert result.batches == [1, 7, 32, 64]


@pytest.mark.parametrize("batch", [1, 7, 32, 64])
def test_an_engine_that_differs_in_one_batch_size_fails(batch: int) -> None:
    result = gated(Stub(0.01, batch))
    assert not result.passed
    assert result.labels_equal == 1.0
    assert result.probability_difference == pytest.approx(0.01, rel=1e-3)


def test_an_engine_that_flips_a_label_or_gives_nan_fails() -> None:
    assert gated(Stub(-0.3)).labels_equal == 0.0
    assert not gated(Stub(float("nan"))).passed


def test_an_engine_with_other_statistics_fails() -> None:
    result = gated(Stub(drift=1.0))
    assert not result.passed
    assert result.probability_difference == 0.0
    assert result.statistics_difference > 1e-3


def bundle(**passed: bool) -> Bundle:
    metadata = ModelMetadata(
        classes=("a", "b"),
        input=InputContract(size=32),
        mask_threshold=0.5,
        review=ReviewThresholds(confidence=0.8, novelty={}, mask={}),
        engines={name: GateResult(passed=value) for name, value in passed.items()},
    )
    return Bundle(Path("m"), metadata, None)


def test_auto_is_the_fastest_engine_that_passed() -> None:
    assert choose_engine(bundle(keras=True, openvino=True), "auto") == "openvino"
    assert choose_engine(bundle(keras=True, openvino=False), "auto") == "keras"


@pytest.mark.parametrize("name", ["openvino", "tensorrt"])
def test_an_engine_that_did_not_pass_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"`engine` {name}: has not passed"):
        choose_engine(bundle(keras=True, openvino=False), name)


def test_auto_skips_an_engine_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "eagle_spark.errors.find_spec", lambda name: None if name == "openvino" else name
    )
    assert choose_engine(bundle(keras=True, openvino=True), "auto") == "keras"
    assert choose_engine(bundle(keras=True, openvino=True, onnx=True), "auto") == "onnx"
    with pytest.raises(PlatformError, match="openvino"):
        choose_engine(bundle(keras=True, openvino=True), "openvino")


def test_auto_names_the_extra_of_each_engine_if_none_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("eagle_spark.errors.find_spec", lambda _: None)
    with pytest.raises(PlatformError) as raised:
        choose_engine(bundle(keras=True, onnx=True), "auto")
    assert str(raised.value) == (
        "m: `engine` onnx needs onnxruntime, which is not installed: "
        "pip install 'eagle-spark[exports]'; `engine` keras needs tensorflow, which is not "
        "installed: pip install 'eagle-spark[train]'"
    )


def outcomes(right: list[bool], dice: list[float] | None = None) -> Outcomes:
    """Of images of two classes in turn; NaN is no mask."""
    labels = np.arange(len(right)) % 2
    predicted = np.where(right, labels, 1 - labels)
    return Outcomes(labels, predicted, np.array(dice or [np.nan] * len(right)))


def test_lower_precision_without_a_loss_passes() -> None:
    full = outcomes([True] * 90 + [False] * 10, [0.95] * 50 + [np.nan] * 50)
    reduced = outcomes([True] * 89 + [False] * 10 + [True], [0.9485] * 50 + [np.nan] * 50)
    result = compare_outcomes(reduced, full, "int8")
    assert result.passed
    assert result.precision == "int8"
    assert result.images == 100
    assert result.labels_equal == 0.98
    assert result.accuracy_difference == pytest.approx(0)
    assert result.dice_difference == pytest.approx(-0.0015)


def test_labels_that_get_worse_by_more_than_chance_fail() -> None:
    full = outcomes([True] * 400)
    by_chance = compare_outcomes(outcomes([True] * 396 + [False] * 4), full, "int8")
    assert by_chance.chance == pytest.approx(0.5**4)
    assert by_chance.passed
    worse = compare_outcomes(outcomes([True] * 395 + [False] * 5), full, "int8")
    assert worse.passed is False
    assert json.loads(json.dumps(worse.to_dict()))["passed"] is False


def test_masks_that_get_worse_fail() -> None:
    full = outcomes([True] * 20, [0.95] * 20)
    assert compare_outcomes(outcomes([True] * 20, [0.9481] * 20), full, "int8").passed
    assert not compare_outcomes(outcomes([True] * 20, [0.9479] * 20), full, "int8").passed


def test_a_class_with_lower_recall_fails_though_another_compensates() -> None:
    labels = np.repeat([0, 1], 100)
    was = np.concatenate([np.ones(100, bool), np.zeros(30, bool), np.ones(70, bool)])
    now = np.concatenate([np.zeros(20, bool), np.ones(80, bool), np.ones(100, bool)])
    full, reduced = (
        Outcomes(labels, np.where(right, labels, 1 - labels), np.full(200, np.nan))
        for right in (was, now)
    )
    result = compare_outcomes(reduced, full, "int8")
    assert result.accuracy_difference > 0
    assert result.recall_below == [0]
    assert not result.passed


def test_without_labelled_images_lower_precision_fails() -> None:
    assert not compare_outcomes(outcomes([]), outcomes([]), "int8").passed


@pytest.mark.parametrize("name", ["openvino-int8", "openvino-bf16"])
@pytest.mark.parametrize("suits", [True, False])
def test_auto_uses_lower_precision_only_if_the_cpu_supports_it(
    monkeypatch: pytest.MonkeyPatch, name: str, suits: bool
) -> None:
    kind = replace(engines.ENGINES[name], suits=lambda: suits)
    monkeypatch.setitem(engines.ENGINES, name, kind)
    passed = bundle(keras=True, openvino=True, **{name: True})
    assert choose_engine(passed, "auto") == (name if suits else "openvino")


def test_int8_runs_on_all_cpus_bf16_only_where_it_is_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("openvino-int8", "openvino-bf16")
    for name in names:
        kind = replace(engines.ENGINES[name], suits=lambda: False)
        monkeypatch.setitem(engines.ENGINES, name, kind)
    passed = bundle(**dict.fromkeys(names, True))
    assert choose_engine(passed, "openvino-int8") == "openvino-int8"
    with pytest.raises(PlatformError, match="no instructions for bf16: `engine` openvino"):
        choose_engine(passed, "openvino-bf16")
    with pytest.raises(PlatformError, match="no instructions for bf16"):
        engines.ENGINES["openvino-bf16"].load(Path("m"), 1)


@pytest.mark.parametrize(
    ("flags", "int8", "bf16"),
    [
        ("fpu avx2", False, False),
        ("fpu avx512_vnni", True, False),
        ("fpu avx512_vnni avx512_bf16", True, True),
        ("fpu amx_bf16 amx_int8", True, True),
        ("fp asimd asimddp bf16", True, False),  # ARM
    ],
)
def test_cpu_features_are_read_from_the_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, int8: bool, bf16: bool
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(export, "CPU_INFO", info)
    assert (export.has_int8(), export.has_bf16()) == (int8, bf16)
    info.unlink()
    assert not export.has_int8()
