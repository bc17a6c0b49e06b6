"""`metadata.json` of a model folder: what must stand in it, and of which type."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from eagle_spark.errors import BundleError

FORMAT_VERSION = 2
METADATA = "metadata.json"
NETWORK = "model.keras"
WEIGHTS = "model.weights.h5"
GOLDEN = "golden.npz"

_KINDS: dict[str, type | tuple[type, ...]] = {
    "model_id": str,
    "classes": list,
    "input": dict,
    "mask_threshold": (int, float),
    "review": dict,
    "engines": dict,
    "digests": dict,
}


def parse_metadata(raw: bytes, uri: str) -> dict[str, Any]:
    """Return the checked content of the `metadata.json` of the model folder `uri`.

    Raises:
        BundleError: names the key that is missing or wrong.
    """
    where = f"{uri}/{METADATA}"
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise BundleError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format_version") != FORMAT_VERSION:
        got = found.get("format_version") if isinstance(found, dict) else type(found).__name__
        raise BundleError(f"{where}: format_version must be {FORMAT_VERSION}, got {got}")
    for key, kind in _KINDS.items():
        if not isinstance(found.get(key), kind):
            raise BundleError(f"{where}: {key} is missing or of the wrong type")
    classes, size = found["classes"], found["input"].get("size")
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise BundleError(f"{where}: classes must be two or more names, got {classes}")
    if not isinstance(size, int) or size <= 0:
        raise BundleError(f"{where}: input.size must be a positive number, got {size}")
    if not all(isinstance(result, dict) for result in found["engines"].values()):
        raise BundleError(f"{where}: engines must hold one object per engine")
    _check_names(found["digests"], where)
    return found


def _check_names(names: Iterable[str], where: str) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
            raise BundleError(f"{where}: unsafe file name {name!r}")
    for wanted in (NETWORK, GOLDEN):
        if wanted not in names:
            raise BundleError(f"{where}: {wanted} is missing from digests")
