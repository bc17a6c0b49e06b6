"""The frozen backbone of a training: exported once per warehouse, then read from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagle_spark.io import absolute_uri, join, list_folder, resolve
from eagle_spark.model.network import BACKBONE_VERSION
from eagle_spark.model.weights import fetch_weights

MAX_BACKBONE_BYTES = 256 * 2**20
SUFFIX = ".npz"


@dataclass(frozen=True)
class Backbone:
    """An exported backbone: URI, SHA-256, pixels per side of its input, `f32` or `int8`."""

    uri: str
    digest: str
    size: int
    precision: str = "f32"


def prepare_backbone(
    warehouse: str,
    weights: str,
    size: int,
    seed: int,
    calibration_images: Callable[[], NDArray[np.uint8]] | None = None,
) -> Backbone:
    """Return the backbone for these weights; export it if this warehouse has none yet.

    An int8 backbone keeps the ranges of the first training of the warehouse, whatever images are
    added later: other ranges would invalidate all features.

    Args:
        weights: as in `fetch_weights`.
        seed: of random weights.
        calibration_images: returns images `(n, size, size)` for the ranges of int8; None exports
            f32.

    Raises:
        InputError, PlatformError: as `fetch_weights` does.
    """
    precision = "int8" if calibration_images else "f32"
    with fetch_weights(weights) as path:
        folder = join(
            absolute_uri(warehouse), "cxr", "_backbones", _cache_key(path, size, seed, precision)
        )
        if stored := _find_stored(folder):
            return Backbone(*stored, size, precision)
        from eagle_spark.model.backbone import compute_backbone_digest, pack_backbone
        from eagle_spark.model.export import quantise, to_openvino, to_quantisation_samples
        from eagle_spark.model.network import build_backbone

        graph = to_openvino(build_backbone(size, weights=path, seed=seed))
        if calibration_images:
            graph = quantise(graph, to_quantisation_samples(calibration_images()))
        packed = pack_backbone(graph)
    storage, folder_path = resolve(folder)
    storage.write(f"{folder_path}/{compute_backbone_digest(packed)}{SUFFIX}", packed)
    stored = _find_stored(folder)  # two simultaneous trainings use the same backbone
    assert stored
    return Backbone(*stored, size, precision)


def _cache_key(weights: Path | None, size: int, seed: int, precision: str) -> str:
    """Return a digest of all inputs that an exported backbone depends on."""
    parts = {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights else f"he {seed}",
        "network": BACKBONE_VERSION,
        "size": size,
        "precision": precision,
        "versions": {name: version(name) for name in ("keras", "openvino", "nncf")},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _find_stored(folder: str) -> tuple[str, str] | None:
    """Return URI and digest of the first backbone of a folder by name, or None."""
    storage, path = resolve(folder)
    if not storage.exists(path):
        return None
    files = [entry for entry in list_folder(folder) if entry.name.endswith(SUFFIX)]
    first = min(files, key=lambda entry: entry.name, default=None)
    return (first.uri, first.name.removesuffix(SUFFIX)) if first else None
