"""The frozen backbone of a training: built and exported once a warehouse, then taken from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagle_spark.io import absolute_uri, join, list_folder, locate
from eagle_spark.model.network import BACKBONE_VERSION
from eagle_spark.model.weights import weights_file

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
    examples: Callable[[], NDArray[np.uint8]] | None = None,
) -> Backbone:
    """Return the backbone for these weights, exported if this warehouse has none yet.

    One in int8 stays as the first training of the warehouse made it, whatever images came later:
    other ranges would make all features anew.

    Args:
        weights: what `weights_file` takes.
        seed: of a random start.
        examples: gives images `(n, size, size)` to take the ranges of int8 from; None makes f32.

    Raises:
        InputError, PlatformError: as `weights_file` does.
    """
    precision = "int8" if examples else "f32"
    with weights_file(weights) as path:
        folder = join(
            absolute_uri(warehouse), "cxr", "_backbones", _key(path, size, seed, precision)
        )
        if found := _stored(folder):
            return Backbone(*found, size, precision)
        from eagle_spark.model.backbone import backbone_digest, pack_backbone
        from eagle_spark.model.export import image_samples, quantised, to_openvino
        from eagle_spark.model.network import build_backbone

        graph = to_openvino(build_backbone(size, weights=path, seed=seed))
        if examples:
            graph = quantised(graph, image_samples(examples()))
        packed = pack_backbone(graph)
    storage, place = locate(folder)
    storage.write(f"{place}/{backbone_digest(packed)}{SUFFIX}", packed)
    found = _stored(folder)  # of two trainings that came at once, both take the same
    assert found
    return Backbone(*found, size, precision)


def _key(weights: Path | None, size: int, seed: int, precision: str) -> str:
    """Return the name of all that an exported backbone depends on."""
    parts = {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights else f"he {seed}",
        "network": BACKBONE_VERSION,
        "size": size,
        "precision": precision,
        "versions": {name: version(name) for name in ("keras", "openvino", "nncf")},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _stored(folder: str) -> tuple[str, str] | None:
    """Return URI and digest of the backbone in a folder, the first by name; None if none is."""
    storage, path = locate(folder)
    if not storage.exists(path):
        return None
    files = [entry for entry in list_folder(folder) if entry.name.endswith(SUFFIX)]
    first = min(files, key=lambda entry: entry.name, default=None)
    return (first.uri, first.name.removesuffix(SUFFIX)) if first else None
