"""Checks of `.keras` files: Keras' own layers only, no code."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eagle_spark.errors import ModelError

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
# Placeholders for data of the graph; Keras creates no object from them.
_PLACEHOLDERS = {"__keras_tensor__", "__tuple__"}
_CODE_LAYERS = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}


def check_keras_file(path: Path) -> None:
    """Check a `.keras` file before Keras reads it.

    Raises:
        ModelError: when it is not a `.keras` file, or its configuration names anything but Keras'
            own layers, initializers and the like, or a layer that carries code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            extra = set(archive.namelist()) - _MEMBERS
            if extra:
                raise ModelError(f"{path}: unexpected members: {', '.join(sorted(extra))}")
            if archive.getinfo("config.json").file_size > _CONFIG_LIMIT:
                raise ModelError(f"{path}: config.json is too large")
            config = json.loads(archive.read("config.json"))
            objects = list(_iter_objects(config))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, zlib.error) as error:
        raise ModelError(f"{path}: not a Keras model file: {error}") from error
    for entry in objects:
        name, module = entry["class_name"], entry.get("module")
        if name in _PLACEHOLDERS or (module, name) in _OPERATIONS:
            continue
        if name in _CODE_LAYERS or module not in _MODULES:
            raise ModelError(f"{path}: holds {module}.{name}, which is not a plain Keras layer")


def read_weights_digest(path: Path) -> str:
    """Return the SHA-256 of the weights in a `.keras` file; it does not depend on the save time.

    Raises:
        ModelError: when it is not a `.keras` file.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as weights:
            digest = hashlib.sha256()
            while block := weights.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        raise ModelError(f"{path}: not a Keras model file: {error}") from error


def _iter_objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict below a node of the JSON tree that names a class."""
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for value in node.values():
            yield from _iter_objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _iter_objects(value)
