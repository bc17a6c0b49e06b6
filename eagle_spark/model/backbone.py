"""The frozen backbone as one exported file that computes features without TensorFlow."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.model.export import compile_openvino, save_openvino

if TYPE_CHECKING:
    import openvino as ov

_MEMBERS = ("graph", "weights")  # OpenVINO's `.xml` and `.bin`

Features = dict[str, NDArray[np.float32]]


def pack_backbone(graph: ov.Model) -> bytes:
    """Return the bytes of an `.npz` that holds OpenVINO's two files of a graph, input in uint8."""
    with tempfile.TemporaryDirectory(prefix="eagle-backbone-") as folder:
        file = Path(folder, "backbone.xml")
        save_openvino(graph, file)
        members = {
            name: np.frombuffer(path.read_bytes(), np.uint8)
            for name, path in zip(_MEMBERS, (file, file.with_suffix(".bin")), strict=True)
        }
    buffer = io.BytesIO()
    np.savez(buffer, **members)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_backbone(packed: bytes, digest: str) -> ov.Model:
    """Return the graph of a packed backbone.

    Raises:
        EagleError: when the SHA-256 of `packed` is not `digest`.
    """
    import openvino as ov

    if compute_backbone_digest(packed) != digest:
        raise EagleError(f"the stored backbone {digest} is damaged: its SHA-256 is different")
    with np.load(io.BytesIO(packed), allow_pickle=False) as members:
        graph, weights = (members[name] for name in _MEMBERS)
    return ov.Core().read_model(graph.tobytes(), ov.Tensor(weights))


def compute_backbone_digest(packed: bytes) -> str:
    """Return the hexadecimal SHA-256 of a packed backbone: its key in the tables."""
    return hashlib.sha256(packed).hexdigest()


class BackboneEngine:
    """Runs a backbone with OpenVINO on the CPU."""

    def __init__(self, graph: ov.Model, threads: int) -> None:
        """Compile a graph for this many threads."""
        self._names = [output.get_any_name() for output in graph.outputs]
        self._request = compile_openvino(graph, threads)

    def compute_features(self, pixels: NDArray[np.uint8]) -> Features:
        """Return the outputs of the network's backbone by name, float32.

        Args:
            pixels: grey images `(n, size, size)`; any n > 0.
        """
        self._request.infer({"pixels": np.ascontiguousarray(pixels[..., np.newaxis])})
        return {name: np.array(self._request.get_tensor(name).data) for name in self._names}
