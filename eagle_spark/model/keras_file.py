"""What a `.keras` file may hold: Keras' own layers, no code."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eagle_spark.errors import BundleError

_WEIGHTS = "model.weights.h5"
_MEMBERS = {"config.json", "metadata.json", _WEIGHTS}
_CONFIG_LIMIT = 64 << 20
_MODULES = {
    "keras",
    "keras.constraints",
    "keras.initializers",
    "keras.layers",
    "keras.models",
    "keras.regularizers",
    "keras.src.models.functional",
}
# Arithmetic that Keras has no layer for.
_OPERATIONS = {("keras.src.ops.numpy", "Mean"), ("keras.src.ops.numpy", "Std")}
# Stand for data of the graph, not for an object that is made.
_MARKS = {"__keras_tensor__", "__tuple__"}
_CODE = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}


def check_keras_file(path: Path) -> None:
    """Check a `.keras` file before Keras reads it.

    Raises:
        BundleError: when it is no such file, or its configuration names anything but Keras' own
            layers, initializers and the like, or a layer that carries code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            extra = set(archive.namelist()) - _MEMBERS
            if extra:
                raise BundleError(f"{path}: unexpected members: {', '.join(sorted(extra))}")
            if archive.getinfo("config.json").file_size > _CONFIG_LIMIT:
                raise BundleError(f"{path}: config.json is too large")
            config = json.loads(archive.read("config.json"))
            found = list(_objects(config))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, zlib.error) as error:
        raise BundleError(f"{path}: not a Keras model file: {error}") from error
    for one in found:
        name, module = one["class_name"], one.get("module")
        if name in _MARKS or (module, name) in _OPERATIONS:
            continue
        if name in _CODE or module not in _MODULES:
            raise BundleError(f"{path}: holds {module}.{name}, which is not a plain Keras layer")


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of the weights in a `.keras` file; when it was saved does not matter.

    Raises:
        BundleError: when it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as weights:
            digest = hashlib.sha256()
            while block := weights.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        raise BundleError(f"{path}: not a Keras model file: {error}") from error


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict below `node` that names a class."""
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for value in node.values():
            yield from _objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _objects(value)
