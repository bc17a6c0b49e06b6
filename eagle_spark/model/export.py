"""Keras models in other formats: written once, loaded without TensorFlow."""

from __future__ import annotations

import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

# OpenVINO's tools tell their makers of every use, unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Of a CPU that multiplies 8-bit numbers as fast as they deserve (/proc/cpuinfo).
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
# Of a CPU that multiplies bfloat16 itself; OpenVINO has no use of it on ARM.
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
CPU_INFO = Path("/proc/cpuinfo")


def has_int8() -> bool:
    """Whether this CPU has instructions for products of 8-bit numbers."""
    return _has(INT8_FLAGS)


def has_bf16() -> bool:
    """Whether this CPU has instructions for products of bfloat16."""
    return _has(BF16_FLAGS)


def _has(flags: set[str]) -> bool:
    try:
        return bool(flags & set(CPU_INFO.read_text().split()))
    except OSError:
        return False


def to_openvino(model: keras.Model) -> Any:
    """Return the model as `openvino.Model`: float32, any batch size, the same names."""
    import openvino as ov

    with tempfile.TemporaryDirectory(prefix="eagle-export-") as folder:
        file = Path(folder, "model.xml")
        model.export(str(file), format="openvino", verbose=False)
        core = ov.Core()
        core.set_property({"ENABLE_MMAP": False})  # the file goes
        return core.read_model(file)


def quantised(graph: Any, samples: Sequence[Mapping[str, NDArray[Any]]]) -> Any:
    """Return the graph in 8-bit integers, by NNCF's post-training quantisation.

    The same samples give the same graph.

    Args:
        samples: inputs by name, one image each, from which ranges are taken.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(graph, nncf.Dataset(samples), subset_size=len(samples))


def joined(backbone: Any, heads: Any) -> Any:
    """Return one graph: the backbone's outputs go into the heads' inputs of the same names.

    Its outputs are those of the heads, and the backbone's `statistics`.
    """
    import openvino as ov

    backbone, heads = backbone.clone(), heads.clone()
    features = {output.get_any_name(): output for output in backbone.outputs}
    for port in heads.inputs:
        source = features[port.get_any_name()].get_node().input_value(0)
        port.get_node().output(0).replace(source)
    outputs = [*heads.outputs, features["statistics"]]
    return ov.Model(outputs, backbone.get_parameters(), "eagle")


def save_openvino(graph: Any, target: Path) -> None:
    """Write `target` (`.xml`, its `.bin` beside it) with an input of uint8."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(graph.clone())
    steps.input().tensor().set_element_type(ov.Type.u8)
    steps.input().preprocess().convert_element_type(ov.Type.f32)
    target.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(steps.build(), target, compress_to_fp16=False)


def save_portable(model: keras.Model, target: Path, name: str, batch: int | None) -> None:
    """Write the model as `onnx` or `litert`, input and outputs named as in Keras, input of uint8.

    Args:
        batch: images that the graph takes at once; None is any number.
    """
    import tensorflow as tf

    shape = (batch, *model.input_shape[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Keras asks NumPy whether it has a name that it will have one day.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(
            str(target),
            format=name,
            verbose=False,
            input_signature=[tf.TensorSpec(shape, tf.uint8, name="pixels")],
        )


def compile_openvino(graph: Any, threads: int, precision: str = "f32") -> Any:
    """Return an inference request for a graph: the path of its `.xml`, or `openvino.Model`.

    Args:
        precision: `f32` or `bf16`, of what the graph holds in float32.
    """
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of several processes would share one core.
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
        # Some CPUs would calculate in bf16 unasked.
        "INFERENCE_PRECISION_HINT": precision,
    }
    return ov.Core().compile_model(graph, "CPU", settings).create_infer_request()


def image_samples(pixels: NDArray[np.uint8]) -> list[dict[str, NDArray[np.float32]]]:
    """Return grey images `(n, size, size)` as samples for `quantised`."""
    return [{"pixels": image[None, :, :, None].astype(np.float32)} for image in pixels]
