"""The frozen backbone as one exported file: what it says of images, without TensorFlow."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.model.export import compile_openvino, save_openvino

_PARTS = ("graph", "weights")  # OpenVINO's `.xml` and `.bin`

Features = dict[str, NDArray[np.float32]]


def pack_backbone(graph: Any) -> bytes:
    """Return an `openvino.Model`, its input in uint8, as one file: an `.npz` of OpenVINO's two."""
    with tempfile.TemporaryDirectory(prefix="eagle-backbone-") as folder:
        file = Path(folder, "backbone.xml")
        save_openvino(graph, file)
        parts: dict[str, Any] = {
            name: np.frombuffer(part.read_bytes(), np.uint8)
            for name, part in zip(_PARTS, (file, file.with_suffix(".bin")), strict=True)
        }
    buffer = io.BytesIO()
    np.savez(buffer, **parts)
    return buffer.getvalue()


def unpack_backbone(packed: bytes, digest: str) -> Any:
    """Return a packed backbone as `openvino.Model`.

    Raises:
        EagleError: when the file is not the one that `digest` names.
    """
    import openvino as ov

    if backbone_digest(packed) != digest:
        raise EagleError(f"the stored backbone {digest} is damaged: its SHA-256 is another")
    with np.load(io.BytesIO(packed), allow_pickle=False) as parts:
        graph, weights = (parts[name] for name in _PARTS)
    return ov.Core().read_model(graph.tobytes(), ov.Tensor(weights))


def backbone_digest(packed: bytes) -> str:
    """Return the SHA-256 of a packed backbone, hexadecimal: its name in the tables."""
    return hashlib.sha256(packed).hexdigest()


class BackboneEngine:
    """Runs a backbone; OpenVINO on the CPU."""

    def __init__(self, graph: Any, threads: int) -> None:
        """Load what `unpack_backbone` gave."""
        self._names = [output.get_any_name() for output in graph.outputs]
        self._request = compile_openvino(graph, threads)

    def features(self, pixels: NDArray[np.uint8]) -> Features:
        """Return what the network's backbone gives, by name, float32.

        Args:
            pixels: grey images `(n, size, size)`; any n > 0.
        """
        self._request.infer({"pixels": np.ascontiguousarray(pixels[..., np.newaxis])})
        return {name: np.array(self._request.get_tensor(name).data) for name in self._names}
