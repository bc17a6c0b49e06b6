"""`metadata.json` of a model folder: what must stand in it, and of which type."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
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
_KINDS_IF_THERE: dict[str, type] = {
    "run_id": str,
    "training": dict,
    "metrics": dict,
    "reference": dict,
}


def parse_metadata(raw: bytes, uri: str) -> dict[str, Any]:
    """Return the checked content of the `metadata.json` of the model folder `uri`.

    Raises:
        BundleError: names the key that is missing or wrong.
    """
    where = f"{uri}/{METADATA}"
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format_version") != FORMAT_VERSION:
        got = found.get("format_version") if isinstance(found, dict) else type(found).__name__
        raise BundleError(f"{where}: format_version must be {FORMAT_VERSION}, got {got}")
    for key, kind in _KINDS.items():
        if not isinstance(found.get(key), kind):
            raise BundleError(f"{where}: {key} is missing or of the wrong type")
    for key, kind in _KINDS_IF_THERE.items():
        if not isinstance(found.get(key, kind()), kind):
            raise BundleError(f"{where}: {key} is of the wrong type")
    classes, size = found["classes"], found["input"].get("size")
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise BundleError(f"{where}: classes must be two or more names, got {classes}")
    if not isinstance(size, int) or size <= 0:
        raise BundleError(f"{where}: input.size must be a positive number, got {size}")
    if not all(isinstance(result, dict) for result in found["engines"].values()):
        raise BundleError(f"{where}: engines must hold one object per engine")
    if not _is_reference(found.get("reference", {})):
        raise BundleError(f"{where}: reference must hold images, label, and edges and shares each")
    _check_names(found["digests"], where)
    return found


def _is_reference(found: Mapping[str, Any]) -> bool:
    """Whether a night can be held against it: after it is published would be late to find out."""
    images, classes = found.get("images", 0), found.get("label", {})
    bins = [value for key, value in found.items() if key not in ("images", "label")]
    return (
        isinstance(images, int)
        and isinstance(classes, dict)
        and _are_numbers(list(classes.values()))
        and all(
            isinstance(one, dict) and _are_bins(one.get("edges"), one.get("shares")) for one in bins
        )
        and (bool(classes) or not images)
    )


def _are_bins(edges: Any, shares: Any) -> bool:
    return _are_numbers(edges) and _are_numbers(shares) and len(shares) == len(edges) + 1


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in values
    )


def _check_names(names: Iterable[str], where: str) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
            raise BundleError(f"{where}: unsafe file name {name!r}")
    for wanted in (NETWORK, GOLDEN):
        if wanted not in names:
            raise BundleError(f"{where}: {wanted} is missing from digests")
