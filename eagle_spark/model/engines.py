"""The programs that can run a model; Keras is the reference, OpenVINO needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import BundleError, PlatformError
from eagle_spark.model.bundle import Bundle
from eagle_spark.model.exports import compile_openvino, has_int8
from eagle_spark.model.metadata import NETWORK

OPENVINO_FILE = "openvino/model.xml"
INT8_FILE = "openvino/int8.xml"

Predictions = tuple[NDArray[np.float32], NDArray[np.float32]]


class Engine(Protocol):
    """Runs a model on decoded images."""

    name: str

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        """Return class probabilities `(n, classes)` and lung probabilities `(n, size, size)`.

        Args:
            pixels: grey images `(n, size, size)`; any n > 0.
        """
        ...


class KerasEngine:
    """Keras on TensorFlow, through one compiled function for all batch sizes."""

    name = "keras"

    def __init__(self, folder: Path, threads: int) -> None:
        import keras
        import tensorflow as tf

        _cap_threads(threads)
        self.model = keras.models.load_model(folder / NETWORK, compile=False, safe_mode=True)
        signature = tf.TensorSpec((None, *self.model.input_shape[1:]), tf.uint8)
        self._run = tf.function(
            lambda pixels: self.model(tf.cast(pixels, tf.float32), training=False),
            input_signature=[signature],
        )

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        found = self._run(pixels[..., np.newaxis])
        return found["label"].numpy(), found["mask"].numpy()[..., 0]


class OpenVINOEngine:
    """OpenVINO on the CPU, in the precision of the graph."""

    def __init__(self, graph: Path, threads: int, name: str = "openvino") -> None:
        self.name = name
        self._request = compile_openvino(graph, threads)

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        self._request.infer({"pixels": np.ascontiguousarray(pixels[..., np.newaxis])})
        label = self._request.get_tensor("label").data
        mask = self._request.get_tensor("mask").data
        return np.array(label), np.array(mask[..., 0])


@dataclass(frozen=True)
class EngineKind:
    """What the program needs, and how it is started in a model folder.

    Attributes:
        load: (model folder, threads) -> engine.
        package: what has to be installed.
        precision: of its arithmetic.
        suits: whether it is of use on this CPU.
    """

    load: Callable[[Path, int], Engine]
    package: str
    precision: str = "f32"
    suits: Callable[[], bool] = lambda: True


# The fastest first.
ENGINES = {
    "openvino-int8": EngineKind(
        lambda folder, threads: OpenVINOEngine(folder / INT8_FILE, threads, "openvino-int8"),
        "openvino",
        "int8",
        has_int8,
    ),
    "openvino": EngineKind(
        lambda folder, threads: OpenVINOEngine(folder / OPENVINO_FILE, threads), "openvino"
    ),
    "keras": EngineKind(KerasEngine, "tensorflow"),
}


def choose_engine(bundle: Bundle, engine: str) -> str:
    """Return the name of the engine to use: `engine`, or for `auto` the fastest that may be used.

    Raises:
        BundleError: when the engine is unknown or has not passed this model's gate.
        PlatformError: when its package is not installed.
    """
    passed = [name for name in ENGINES if bundle.engines.get(name, {}).get("passed") is True]
    if engine != "auto" and engine not in passed:
        raise BundleError(
            f"--engine {engine}: has not passed the gate of {bundle.path}; "
            f"those that have: {', '.join(passed) or 'none'}"
        )
    wanted = [name for name in passed if ENGINES[name].suits()] if engine == "auto" else [engine]
    for name in wanted:
        if find_spec(ENGINES[name].package):
            return name
    packages = ", ".join(ENGINES[name].package for name in wanted) or "none passed its gate"
    raise PlatformError(f"no engine of {bundle.path} is installed here ({packages})")


def load_engine(bundle: Bundle, engine: str, threads: int) -> Engine:
    """Load the engine that `choose_engine` names, with that many threads."""
    return ENGINES[choose_engine(bundle, engine)].load(bundle.path, threads)


def _cap_threads(threads: int) -> None:
    """Cap TensorFlow's threads; in a process where it already runs they stay as they are."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return
