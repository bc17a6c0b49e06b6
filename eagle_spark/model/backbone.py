"""The frozen backbone as one exported file: what it says of images, without TensorFlow."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.model.exports import compile_openvino, export_openvino

if TYPE_CHECKING:
    import keras

_PARTS = ("graph", "weights")  # OpenVINO's `.xml` and `.bin`

Features = dict[str, NDArray[np.float32]]


def pack_backbone(backbone: keras.Model) -> bytes:
    """Return the exported backbone as one file: an `.npz` of OpenVINO's two."""
    with tempfile.TemporaryDirectory(prefix="eagle-backbone-") as folder:
        graph = Path(folder, "backbone.xml")
        export_openvino(backbone, graph)
        files = (graph, graph.with_suffix(".bin"))
        parts: dict[str, Any] = {
            name: np.frombuffer(file.read_bytes(), np.uint8)
            for name, file in zip(_PARTS, files, strict=True)
        }
    buffer = io.BytesIO()
    np.savez(buffer, **parts)
    return buffer.getvalue()


def backbone_digest(packed: bytes) -> str:
    """Return the SHA-256 of a packed backbone, hexadecimal: its name in the tables."""
    return hashlib.sha256(packed).hexdigest()


class BackboneEngine:
    """Runs a packed backbone; OpenVINO on the CPU."""

    def __init__(self, packed: bytes, digest: str, threads: int) -> None:
        """Load it.

        Raises:
            EagleError: when the file is not the one that `digest` names.
        """
        import openvino as ov

        if backbone_digest(packed) != digest:
            raise EagleError(f"the stored backbone {digest} is damaged: its SHA-256 is another")
        with np.load(io.BytesIO(packed), allow_pickle=False) as parts:
            graph, weights = (parts[name] for name in _PARTS)
        model = ov.Core().read_model(graph.tobytes(), ov.Tensor(weights))
        self._names = [output.get_any_name() for output in model.outputs]
        self._request = compile_openvino(model, threads)

    def features(self, pixels: NDArray[np.uint8]) -> Features:
        """Return what the network's backbone gives, by name, float32.

        Args:
            pixels: grey images `(n, size, size)`; any n > 0.
        """
        self._request.infer({"pixels": np.ascontiguousarray(pixels[..., np.newaxis])})
        return {name: np.array(self._request.get_tensor(name).data) for name in self._names}
