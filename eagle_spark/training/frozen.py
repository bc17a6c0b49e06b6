"""The frozen backbone of a training: built and exported once a warehouse, then taken from there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from eagle_spark.model.weights import weights_file
from eagle_spark.storage import absolute_uri, join, list_folder, locate

MAX_BACKBONE_BYTES = 256 * 2**20
SUFFIX = ".npz"


@dataclass(frozen=True)
class Backbone:
    """An exported backbone: where it is, its SHA-256, pixels per side of its input."""

    uri: str
    digest: str
    size: int


def prepare_backbone(warehouse: str, weights: str, size: int, seed: int) -> Backbone:
    """Return the backbone for these weights, exported if this warehouse has none yet.

    Args:
        weights: what `weights_file` takes.
        seed: of a random start.

    Raises:
        InputError, PlatformError: as `weights_file` does.
    """
    with weights_file(weights) as path:
        folder = join(absolute_uri(warehouse), "cxr", "_backbones", _key(path, size, seed))
        if found := _stored(folder):
            return Backbone(*found, size)
        from eagle_spark.model.backbone import backbone_digest, pack_backbone
        from eagle_spark.model.exports import to_openvino
        from eagle_spark.model.network import build_backbone

        packed = pack_backbone(to_openvino(build_backbone(size, weights=path, seed=seed)))
    storage, place = locate(folder)
    storage.write(f"{place}/{backbone_digest(packed)}{SUFFIX}", packed)
    found = _stored(folder)  # of two trainings that came at once, both take the same
    assert found
    return Backbone(*found, size)


def _key(weights: Path | None, size: int, seed: int) -> str:
    """Return the name of all that an exported backbone depends on."""
    parts = {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights else f"he {seed}",
        "size": size,
        "versions": {name: version(name) for name in ("keras", "openvino")},
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
