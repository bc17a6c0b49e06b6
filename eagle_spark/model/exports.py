"""Keras models as OpenVINO graphs: written once, loaded without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def export_openvino(model: keras.Model, target: Path) -> None:
    """Write `target` (`.xml`, its `.bin` beside it): float32, input uint8, any batch size.

    Outputs keep the names of the model's.
    """
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    target.parent.mkdir(parents=True, exist_ok=True)
    raw = target.with_name("raw.xml")
    model.export(str(raw), format="openvino", verbose=False)
    exported = ov.Core().read_model(raw)
    steps = PrePostProcessor(exported)
    steps.input().tensor().set_element_type(ov.Type.u8)
    steps.input().preprocess().convert_element_type(ov.Type.f32)
    ov.save_model(steps.build(), target, compress_to_fp16=False)
    del exported, steps
    for leftover in (raw, raw.with_suffix(".bin")):
        leftover.unlink()


def compile_openvino(graph: Any, threads: int) -> Any:
    """Return an inference request for a graph: the path of its `.xml`, or `openvino.Model`."""
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of several processes would share one core.
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
        # Some CPUs would calculate in bf16 unasked.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
