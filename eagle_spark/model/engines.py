"""The programs that can run a model; Keras is the reference, the others need no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import (
    ModelError,
    PlatformError,
    describe_missing,
    is_installed,
    require_extra,
)
from eagle_spark.model.bundle import Bundle
from eagle_spark.model.cache import open_cache
from eagle_spark.model.export import compile_openvino, has_bf16, has_int8
from eagle_spark.model.metadata import NETWORK

OPENVINO_FILE = "openvino/model.xml"
INT8_FILE = "openvino/int8.xml"
ONNX_FILE = "onnx/model.onnx"
LITERT_FILE = "litert/model.tflite"

OUTPUTS = ("label", "mask", "statistics")

# Modules that predictions import in a worker. The first one lets OpenVINO start no thread.
PREDICTION_IMPORTS = ("eagle_spark.model.export", "openvino", "scipy.ndimage")


class ModelOutputs(NamedTuple):
    """What a model says of n images; all float32.

    Attributes:
        label: class probabilities `(n, classes)`.
        mask: lung probabilities `(n, size, size)`.
        statistics: what the class head sees, `(n, STATISTICS_COUNT)`.
    """

    label: NDArray[np.float32]
    mask: NDArray[np.float32]
    statistics: NDArray[np.float32]


class Engine(Protocol):
    """Runs a model on decoded images."""

    name: str

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        """Return what the model says, in the order of the images.

        Args:
            pixels: grey images `(n, size, size)`; any n > 0.
        """
        ...


class KerasEngine:
    """Keras on TensorFlow, through one compiled function for all batch sizes."""

    name = "keras"

    def __init__(self, folder: Path, threads: int) -> None:
        require_extra("train", "tensorflow", "keras", purpose="`engine` keras")
        import keras
        import tensorflow as tf

        cap_threads(threads)
        self.model = keras.models.load_model(folder / NETWORK, compile=False, safe_mode=True)
        signature = tf.TensorSpec((None, *self.model.input_shape[1:]), tf.uint8)
        self._run = tf.function(
            lambda pixels: self.model(tf.cast(pixels, tf.float32), training=False),
            input_signature=[signature],
        )

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        found = self._run(pixels[..., np.newaxis])
        return _predictions([found[name].numpy() for name in OUTPUTS])


class OpenVINOEngine:
    """OpenVINO on the CPU; what the graph holds in float32 is calculated in `precision`."""

    def __init__(
        self, graph: Path, threads: int, name: str = "openvino", precision: str = "f32"
    ) -> None:
        self.name = name
        self._request = compile_openvino(graph, threads, precision, _open_graph_cache())

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        self._request.infer({"pixels": np.ascontiguousarray(pixels[..., np.newaxis])})
        return _predictions([np.array(self._request.get_tensor(name).data) for name in OUTPUTS])


class ONNXEngine:
    """ONNX Runtime on the CPU."""

    name = "onnx"

    def __init__(self, file: Path, threads: int) -> None:
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = InferenceSession(str(file), options, ["CPUExecutionProvider"])

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        return _predictions(self._session.run(OUTPUTS, {"pixels": pixels[..., np.newaxis]}))


class LiteRTEngine:
    """LiteRT on the CPU; its graph takes one image at a time."""

    name = "litert"

    def __init__(self, file: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(file), num_threads=threads)
        self._run = interpreter.get_signature_runner()

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        found = [self._run(pixels=image[np.newaxis, ..., np.newaxis]) for image in pixels]
        return _predictions([np.concatenate([one[name] for one in found]) for name in OUTPUTS])


@dataclass(frozen=True)
class EngineKind:
    """What the program needs, and how it is started.

    Attributes:
        start: (file, threads) -> engine.
        file: what it reads in a model folder.
        package: the module that has to be installed.
        extra: the extra that installs it; empty for a module that every installation has.
        precision: of its arithmetic.
        suits: whether it is of use on this CPU.
        bound: it is another program on a CPU that it does not suit, not a slow one.
    """

    start: Callable[[Path, int], Engine]
    file: str
    package: str
    extra: str = ""
    precision: str = "f32"
    suits: Callable[[], bool] = lambda: True
    bound: bool = False

    def runs_here(self) -> bool:
        """Whether this CPU can calculate as it says."""
        return not self.bound or self.suits()

    def check_cpu(self) -> None:
        """Raise PlatformError when this CPU cannot calculate as it says."""
        if not self.runs_here():
            raise PlatformError(
                f"the CPU of {gethostname()} has no instructions for {self.precision}: "
                "`engine` openvino runs on every CPU"
            )

    def load(self, folder: Path, threads: int) -> Engine:
        """Start the engine on a model folder; `check_cpu` first."""
        self.check_cpu()
        return self.start(folder / self.file, threads)


# The fastest first, as `benchmarks/engines.py` found them.
ENGINES = {
    "openvino-int8": EngineKind(
        partial(OpenVINOEngine, name="openvino-int8"),
        INT8_FILE,
        "openvino",
        precision="int8",
        suits=has_int8,
    ),
    # Elsewhere OpenVINO imitates bf16 at half the speed of f32, to other roundings, or breaks off.
    "openvino-bf16": EngineKind(
        partial(OpenVINOEngine, name="openvino-bf16", precision="bf16"),
        OPENVINO_FILE,
        "openvino",
        precision="bf16",
        suits=has_bf16,
        bound=True,
    ),
    "litert": EngineKind(LiteRTEngine, LITERT_FILE, "ai_edge_litert", "exports"),
    "onnx": EngineKind(ONNXEngine, ONNX_FILE, "onnxruntime", "exports"),
    "openvino": EngineKind(OpenVINOEngine, OPENVINO_FILE, "openvino"),
    "keras": EngineKind(
        lambda file, threads: KerasEngine(file.parent, threads), NETWORK, "tensorflow", "train"
    ),
}


def choose_engine(bundle: Bundle, engine: str) -> str:
    """Return the name of the engine to use: `engine`, or for `auto` the fastest that may be used.

    Raises:
        ModelError: when the engine is unknown or has not passed this model's gate.
        PlatformError: when its package is not installed, or this CPU cannot run it.
    """
    results = bundle.metadata.engines
    passed = [name for name in ENGINES if name in results and results[name].passed]
    if engine != "auto" and engine not in passed:
        raise ModelError(
            f"`engine` {engine}: has not passed the gate of {bundle.path}; "
            f"those that have: {', '.join(passed) or 'none'}"
        )
    if engine == "auto":
        wanted = [name for name in passed if ENGINES[name].suits()]
    else:
        ENGINES[engine].check_cpu()
        wanted = [engine]
    missing = []
    for name in wanted:
        kind = ENGINES[name]
        if is_installed(kind.package):
            return name
        missing.append(describe_missing(kind.extra, kind.package, f"`engine` {name}"))
    reasons = "; ".join(missing) or "none of the engines that passed its gate suits this CPU"
    raise PlatformError(f"{bundle.path}: {reasons}")


def _open_graph_cache() -> Path | None:
    """Return the folder of compiled graphs; None where this user cannot have one."""
    try:
        return open_cache("graphs")
    except (OSError, ModelError):
        return None


def _predictions(outputs: Sequence[NDArray[np.float32]]) -> ModelOutputs:
    """Return a network's `OUTPUTS`, whose masks have one channel."""
    label, mask, statistics = outputs
    return ModelOutputs(label, mask[..., 0], statistics)


def cap_threads(threads: int) -> None:
    """Cap TensorFlow's threads; in a process where it already runs they stay as they are."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return
