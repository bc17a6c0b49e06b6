"""Bilinear resizes of one channel become matrix products; other nodes stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eagle_spark.model import export
from eagle_spark.model.resize_products import compute_weights, replace_resizes

ONE_CHANNEL = (-1, 5, 7, 1)
EXPORTED = {
    "mode": "linear_onnx",
    "shape_calculation_mode": "sizes",
    "coordinate_transformation_mode": "half_pixel",
    "antialias": False,
    "pads_begin": [0, 0, 0, 0],
    "pads_end": [0, 0, 0, 0],
}


def make_graph(
    shape: Sequence[int] = ONE_CHANNEL,
    sizes: Sequence[float] = (10, 28),
    axes: Sequence[int] = (1, 2),
    **attributes: object,
) -> Any:
    """Return a graph that squares its input and resizes it, as Keras' layer is exported."""
    import openvino as ov
    from openvino import opset11 as ops

    pixels = ops.parameter(list(shape), np.float32, name="pixels")
    pixels.output(0).set_names({"pixels"})
    kind = np.int32 if all(isinstance(size, int) for size in sizes) else np.float32
    resized = ops.interpolate(
        ops.multiply(pixels, pixels),
        ops.constant(np.array(sizes, kind)),
        axes=ops.constant(np.array(axes, np.int32)),
        **{**EXPORTED, **attributes},  # type: ignore[arg-type]
    )
    resized.output(0).set_names({"resized"})
    return ov.Model([resized], [pixels], "resize")


def count_nodes(graph: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in graph.get_ops())


def run(graph: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    import openvino as ov

    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled({"pixels": images})["resized"])


@pytest.mark.parametrize(
    ("sides", "sizes"),
    [((5, 7), (10, 28)), ((7, 7), (14, 14)), ((8, 8), (8, 8)), ((9, 4), (3, 11)), ((1, 1), (4, 4))],
)
def test_products_equal_the_resize(sides: tuple[int, int], sizes: tuple[int, int]) -> None:
    graph = make_graph((-1, *sides, 1), sizes)
    replaced = replace_resizes(graph)
    assert count_nodes(replaced)["Interpolate"] == 0
    assert count_nodes(replaced)["MatMul"] == 2
    images = np.random.default_rng(0).random((3, *sides, 1), np.float32)
    actual, expected = run(replaced, images), run(graph, images)
    assert actual.shape == (3, *sizes, 1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def test_the_graph_that_is_given_is_not_changed() -> None:
    graph = make_graph()
    before = count_nodes(graph)
    replace_resizes(graph)
    assert count_nodes(graph) == before
    assert before["Interpolate"] == 1


def test_names_of_the_node_are_kept() -> None:
    graph = make_graph()
    (node,) = (node for node in graph.get_ops() if node.get_type_name() == "Interpolate")
    node.set_friendly_name("smooth")
    replaced = replace_resizes(graph)
    assert "smooth" in {node.get_friendly_name() for node in replaced.get_ops()}
    assert replaced.output(0).get_any_name() == "resized"


@pytest.mark.parametrize(
    "other",
    [
        {"shape": (-1, 5, 7, 2)},
        {"shape": (-1, 1, 5, 7), "axes": (2, 3)},
        {"shape": (-1, 5, 7, 1), "axes": (2, 1)},
        {"shape": (-1, -1, 7, 1)},
        {"shape": (-1, 5, 7, -1)},
        {"mode": "nearest"},
        {"mode": "linear"},
        {"mode": "cubic"},
        {"coordinate_transformation_mode": "align_corners"},
        {"shape_calculation_mode": "scales", "sizes": (2.0, 4.0)},
        {"antialias": True},
        {"pads_begin": [0, 1, 0, 0]},
    ],
    ids=str,
)
def test_another_resize_is_left_alone(other: dict[str, Any]) -> None:
    graph = make_graph(**other)
    assert replace_resizes(graph) is graph
    assert count_nodes(graph)["Interpolate"] == 1


def test_weights_of_a_row_sum_to_one_and_repeat_the_border() -> None:
    weights = compute_weights(2, 4)
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_array_equal(weights, np.array(expected, np.float32))
    np.testing.assert_allclose(compute_weights(56, 224).sum(axis=1), 1, rtol=1e-6)


class FakeCore:
    """Compiles nothing; its inference request is the graph."""

    def read_model(self, file: Path) -> str:
        return f"graph of {file.name}"

    def compile_model(self, graph: object, *_: object) -> SimpleNamespace:
        return SimpleNamespace(create_infer_request=lambda: graph)


@pytest.mark.parametrize(
    ("precision", "compiled"), [("f32", "replaced graph of a.xml"), ("bf16", "graph of a.xml")]
)
def test_graphs_are_changed_when_they_are_compiled_for_float32(
    monkeypatch: pytest.MonkeyPatch, precision: str, compiled: str
) -> None:
    monkeypatch.setattr("openvino.Core", FakeCore)
    monkeypatch.setattr(export, "replace_resizes", lambda graph: f"replaced {graph}")
    assert export.compile_openvino(Path("a.xml"), 1, precision) == compiled
