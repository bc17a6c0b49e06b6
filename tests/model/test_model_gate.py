from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eagle_spark.errors import BundleError, PlatformError
from eagle_spark.model import engines
from eagle_spark.model.bundle import Bundle
from eagle_spark.model.engines import Predictions, choose_engine
from eagle_spark.model.gate import judge

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 8), np.uint8)


class Stub:
    """Judges by the mean grey; `slip` is added to the batches of one size."""

    name = "stub"

    def __init__(self, slip: float = 0.0, batch: int = 7) -> None:
        self.slip, self.batch = slip, batch

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        first = np.float32(0.6) + (self.slip if len(pixels) == self.batch else 0)
        label = np.tile(np.array([first, 1 - first], np.float32), (len(pixels), 1))
        return label, (pixels > 99).astype(np.float32)


def gated(engine: Any) -> dict[str, Any]:
    return judge(engine, PIXELS, Stub().predict(PIXELS), 0.5)


def test_an_equal_engine_passes() -> None:
    result = gated(Stub())
    assert result["passed"]
    assert result["batches"] == [1, 7, 32, 64]


@pytest.mark.parametrize("batch", [1, 7, 32, 64])
def test_an_engine_that_differs_in_one_batch_size_fails(batch: int) -> None:
    result = gated(Stub(0.01, batch))
    assert not result["passed"]
    assert result["labels_equal"] == 1.0
    assert result["probability_difference"] == pytest.approx(0.01, rel=1e-3)


def test_an_engine_that_flips_a_label_or_gives_nan_fails() -> None:
    assert gated(Stub(-0.3))["labels_equal"] == 0.0
    assert not gated(Stub(float("nan")))["passed"]


def bundle(**passed: bool) -> Bundle:
    results = {name: {"passed": value} for name, value in passed.items()}
    return Bundle(Path("m"), "id", ("a", "b"), 32, 0.5, 0.8, results, {})


def test_auto_takes_the_fastest_that_passed() -> None:
    assert choose_engine(bundle(keras=True, openvino=True), "auto") == "openvino"
    assert choose_engine(bundle(keras=True, openvino=False), "auto") == "keras"


@pytest.mark.parametrize("name", ["openvino", "tensorrt"])
def test_an_engine_that_did_not_pass_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match=f"--engine {name}: has not passed"):
        choose_engine(bundle(keras=True, openvino=False), name)


def test_an_engine_that_is_not_installed_is_passed_over_by_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else name)
    assert choose_engine(bundle(keras=True, openvino=True), "auto") == "keras"
    with pytest.raises(PlatformError, match="openvino"):
        choose_engine(bundle(keras=True, openvino=True), "openvino")
