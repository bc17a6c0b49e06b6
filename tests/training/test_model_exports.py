"""Graphs for OpenVINO: joined, quantised, and silent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagle_spark.model.backbone import BackboneEngine
from eagle_spark.model.engines import OpenVINOEngine
from eagle_spark.model.export import (
    has_bf16,
    join_graphs,
    quantise,
    save_openvino,
    to_openvino,
    to_quantisation_samples,
)
from eagle_spark.model.resize_products import replace_resizes

pytestmark = pytest.mark.train
SIZE = 64


@pytest.fixture(scope="module")
def pixels() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE), np.uint8)


@pytest.fixture(scope="module")
def graphs() -> tuple[Any, Any]:
    """A backbone and heads with random weights."""
    from eagle_spark.model.network import LABEL_UNITS, build_backbone, build_heads

    heads = build_heads(("A", "B"), SIZE, 1)
    kernel = np.random.default_rng(0).normal(0, 0.2, (LABEL_UNITS, 2))
    heads.get_layer("label").set_weights([kernel, np.zeros(2)])
    return to_openvino(build_backbone(SIZE, weights=None, seed=1)), to_openvino(heads)


def engine(graph: Any, folder: Path) -> OpenVINOEngine:
    save_openvino(graph, folder / "graph.xml")
    return OpenVINOEngine(folder / "graph.xml", 1)


def test_a_joined_graph_equals_its_parts(
    graphs: tuple[Any, Any], pixels: Any, tmp_path: Path
) -> None:
    from eagle_spark.model.export import compile_openvino

    backbone, heads = graphs
    features = BackboneEngine(backbone, 1).compute_features(pixels)
    request = compile_openvino(heads, 1)
    request.infer(features)
    label, mask, statistics = engine(join_graphs(backbone, heads), tmp_path).predict(pixels)
    np.testing.assert_allclose(statistics, features["statistics"], atol=1e-4)
    np.testing.assert_allclose(label, request.get_tensor("label").data, atol=1e-5)
    np.testing.assert_allclose(mask, request.get_tensor("mask").data[..., 0], atol=1e-5)
    assert np.ptp(label) > 0.01


def test_int8_is_close_to_its_graph_and_deterministic(graphs: tuple[Any, Any], pixels: Any) -> None:
    backbone, _ = graphs
    expected = BackboneEngine(backbone, 1).compute_features(pixels)
    first, second = (
        BackboneEngine(quantise(backbone, to_quantisation_samples(pixels)), 1).compute_features(
            pixels
        )
        for _ in range(2)
    )
    assert first.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(first[name], second[name])
        assert not np.array_equal(first[name], value)
    # Deeper ones stray further, random weights on noise as they are.
    error = np.abs(first["f56"] - expected["f56"]).mean()
    assert error < 0.2 * np.abs(expected["f56"]).mean()


@pytest.mark.parametrize(("quantised", "tolerance"), [(False, 1e-5), (True, 1e-2)])
def test_resizes_as_products_do_not_change_the_outputs(
    graphs: tuple[Any, Any],
    pixels: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantised: bool,
    tolerance: float,
) -> None:
    backbone, heads = graphs
    if quantised:
        backbone = quantise(backbone, to_quantisation_samples(pixels))
    graph = join_graphs(backbone, heads)
    resizes = [
        sum(node.get_type_name() == "Interpolate" for node in each.get_ops())
        for each in (graph, replace_resizes(graph))
    ]
    assert resizes == [5, 3]  # the others have more than one channel
    replaced = engine(graph, tmp_path).predict(pixels)
    monkeypatch.setattr("eagle_spark.model.export.replace_resizes", lambda graph: graph)
    original = engine(graph, tmp_path).predict(pixels)
    for actual, expected in zip(replaced, original, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bf16")
def test_bf16_is_near_float32_and_not_float32(
    graphs: tuple[Any, Any], pixels: Any, tmp_path: Path
) -> None:
    expected = engine(join_graphs(*graphs), tmp_path).predict(pixels).label
    reduced = OpenVINOEngine(tmp_path / "graph.xml", 1, "openvino-bf16", "bf16")
    label, mask, _ = reduced.predict(pixels)
    assert label.dtype == mask.dtype == np.float32
    assert 0 < np.abs(label - expected).max() < 0.05


def test_no_telemetry_is_sent() -> None:
    program = (
        "import sys, numpy as np\n"
        "from eagle_spark.model.export import to_quantisation_samples, quantise, to_openvino\n"
        "import keras\n"
        "x = keras.Input((8, 8, 1), name='pixels')\n"
        "graph = to_openvino(keras.Model(x, keras.layers.Conv2D(2, 3)(x)))\n"
        "quantise(graph, to_quantisation_samples(np.zeros((2, 8, 8), np.uint8)))\n"
        "assert not [n for n in sys.modules if n.startswith('openvino_telemetry.')]\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
