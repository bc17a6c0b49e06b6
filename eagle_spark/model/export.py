"""Export Keras models to OpenVINO, ONNX and LiteRT, which load without TensorFlow."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import require_extra
from eagle_spark.model import resize_products
from eagle_spark.model.cache import read_entry, write_entry
from eagle_spark.model.resize_products import replace_resizes

if TYPE_CHECKING:
    import keras
    import openvino as ov

# OpenVINO's tools send usage telemetry unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# CPU flags (/proc/cpuinfo) of fast 8-bit multiplication.
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
# CPU flags of bfloat16 multiplication; OpenVINO does not use it on ARM.
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
CPU_INFO = Path("/proc/cpuinfo")


def has_int8() -> bool:
    """Whether this CPU has instructions for products of 8-bit numbers."""
    return _has_any_flag(INT8_FLAGS)


def has_bf16() -> bool:
    """Whether this CPU has instructions for products of bfloat16."""
    return _has_any_flag(BF16_FLAGS)


def _has_any_flag(flags: set[str]) -> bool:
    try:
        return bool(flags & set(CPU_INFO.read_text().split()))
    except OSError:
        return False


def to_openvino(model: keras.Model) -> ov.Model:
    """Convert a Keras model to OpenVINO: float32, any batch size, the same names."""
    import openvino as ov

    with tempfile.TemporaryDirectory(prefix="eagle-export-") as folder:
        file = Path(folder, "model.xml")
        model.export(str(file), format="openvino", verbose=False)
        core = ov.Core()
        core.set_property({"ENABLE_MMAP": False})  # the file is deleted on return
        return core.read_model(file)


def quantise(graph: ov.Model, samples: Sequence[Mapping[str, NDArray[np.float32]]]) -> ov.Model:
    """Quantise a graph to 8-bit integers by NNCF's post-training quantisation.

    The same samples give the same graph.

    Args:
        samples: inputs by name, one image each; NNCF calibrates the ranges on them.

    Raises:
        PlatformError: when NNCF is not installed.
    """
    require_extra("train", "nncf", purpose="`precision` int8")
    import nncf

    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # NNCF's progress bars
        return nncf.quantize(graph, nncf.Dataset(samples), subset_size=len(samples))


def join_graphs(backbone: ov.Model, heads: ov.Model) -> ov.Model:
    """Connect the backbone's outputs to the heads' inputs of the same names.

    The outputs of the joined graph are those of the heads, and the backbone's `statistics`.
    """
    import openvino as ov

    backbone, heads = backbone.clone(), heads.clone()
    features = {output.get_any_name(): output for output in backbone.outputs}
    for port in heads.inputs:
        source = features[port.get_any_name()].get_node().input_value(0)
        port.get_node().output(0).replace(source)
    outputs = [*heads.outputs, features["statistics"]]
    return ov.Model(outputs, backbone.get_parameters(), "eagle")


def save_openvino(graph: ov.Model, target: Path) -> None:
    """Write a graph with a uint8 input to `target` (`.xml`) and its weights to `.bin` beside it."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(graph.clone())
    steps.input().tensor().set_element_type(ov.Type.u8)
    steps.input().preprocess().convert_element_type(ov.Type.f32)
    target.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(steps.build(), target, compress_to_fp16=False)


def save_portable(model: keras.Model, target: Path, name: str, batch: int | None) -> None:
    """Write a Keras model as ONNX or LiteRT with a uint8 input and Keras' input and output names.

    Args:
        name: `onnx` or `litert`.
        batch: batch size of the graph; None is any.
    """
    import tensorflow as tf

    shape = (batch, *model.input_shape[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Keras checks NumPy for a name that is announced but does not exist yet.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(
            str(target),
            format=name,
            verbose=False,
            input_signature=[tf.TensorSpec(shape, tf.uint8, name="pixels")],
        )


def compile_openvino(
    graph: ov.Model | Path, threads: int, precision: str = "f32", cache: Path | None = None
) -> ov.InferRequest:
    """Compile a graph for the CPU and return an inference request.

    In float32, `replace_resizes` changes the graph before. The gate compiles engines here too, so
    it compares the graph that scoring runs.

    Args:
        graph: an OpenVINO model, or the path of its `.xml`.
        precision: `f32` or `bf16`, of the operations that the graph holds in float32.
        cache: folder of this user alone, from which a compiled graph of a path is read, or where it
            is kept. Nothing is kept in a folder that cannot be written to.
    """
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of several processes would share one core.
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
        # OpenVINO defaults to bf16 on some CPUs.
        "INFERENCE_PRECISION_HINT": precision,
    }
    core = ov.Core()
    entry = None
    if cache and isinstance(graph, Path):
        # OpenVINO's own cache writes its file in place, where another worker may read it.
        with suppress(OSError, RuntimeError):
            entry = cache / _compute_cache_key(core, graph, settings)
            compiled = core.import_model(read_entry(entry), "CPU", settings)
            return compiled.create_infer_request()
    model = core.read_model(graph) if isinstance(graph, Path) else graph
    if precision == "f32":  # bf16 would be rounded between the products
        model = replace_resizes(model)
    compiled = core.compile_model(model, "CPU", settings)
    if entry:
        with suppress(OSError, RuntimeError):
            write_entry(entry, compiled.export_model().getvalue())
    return compiled.create_infer_request()


def _compute_cache_key(core: ov.Core, graph: Path, settings: Mapping[str, object]) -> str:
    """Return the SHA-256 of all that a compiled graph depends on."""
    import openvino as ov

    digest = hashlib.sha256()
    # The graph, its weights, and the code that changes it.
    for file in (graph, graph.with_suffix(".bin"), Path(resize_products.__file__)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    cpu = [core.get_property("CPU", name) for name in names]
    digest.update(repr((ov.get_version(), cpu, sorted(settings.items()))).encode())
    return digest.hexdigest()


def to_quantisation_samples(pixels: NDArray[np.uint8]) -> list[dict[str, NDArray[np.float32]]]:
    """Convert grey images `(n, size, size)` to samples for `quantise`."""
    return [{"pixels": image[None, :, :, None].astype(np.float32)} for image in pixels]
