"""Checkpoints: the state of a training after a number of steps, one file each, written atomically.

A file is named `step-<n>-<sha256 of its bytes>.npz`: damage is found before anything is loaded.
The caller gives the arrays their meaning; loading returns them in the order of saving.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.io import absolute_uri, join, list_folder, resolve
from eagle_spark.training.arrays import pack_arrays, unpack_arrays

_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.npz")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file after `step` steps."""

    step: int
    uri: str


def checkpoint_folder(warehouse: str, key: Mapping[str, object]) -> str:
    """Return the URI of the folder of one training.

    Args:
        key: all values that the weights depend on; goes into JSON.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return join(warehouse, "cxr", "_checkpoints", digest[:32])


def save_checkpoint(
    folder: str, step: int, arrays: Sequence[NDArray[np.generic]], state: Mapping[str, object]
) -> Checkpoint:
    """Write the state after `step` steps; keep the checkpoint before it, delete all others.

    Args:
        state: goes into JSON.
    """
    data = pack_arrays([*arrays, np.frombuffer(json.dumps(state).encode(), np.uint8)])
    name = f"step-{step:09d}-{hashlib.sha256(data).hexdigest()}.npz"
    checkpoint = Checkpoint(step, join(absolute_uri(folder), name))
    storage, path = resolve(checkpoint.uri)
    storage.write(path, data)
    others = [other for other in _list_checkpoints(folder) if not other.uri.endswith(name)]
    previous = max((other for other in others if other.step < step), key=_step, default=None)
    for other in others:
        if other is not previous:
            _delete(other)
    return checkpoint


def load_checkpoint(uri: str) -> tuple[list[NDArray[np.generic]], dict[str, Any]]:
    """Return the arrays and the state, a JSON object, of one checkpoint.

    Raises:
        EagleError: when the file is damaged.
    """
    *arrays, state = unpack_arrays(_read_verified(uri))
    return arrays, json.loads(state.tobytes())


def newest_checkpoint(folder: str) -> Checkpoint | None:
    """Return the newest undamaged checkpoint; log and delete damaged ones that are newer."""
    for checkpoint in sorted(_list_checkpoints(folder), key=_step, reverse=True):
        try:
            _read_verified(checkpoint.uri)
            return checkpoint
        except EagleError as error:
            _log.warning("%s; deleting it and using the one before", error)
            _delete(checkpoint)
    return None


def _read_verified(uri: str) -> bytes:
    storage, path = resolve(uri)
    with storage.open(path) as stream:
        data = stream.read()
    match = _NAME.fullmatch(uri.rsplit("/", 1)[-1])
    if match is None or hashlib.sha256(data).hexdigest() != match.group(2):
        raise EagleError(f"checkpoint {uri} is damaged: its SHA-256 differs from its name")
    return data


def _list_checkpoints(folder: str) -> list[Checkpoint]:
    storage, path = resolve(folder)
    if not storage.exists(path):
        return []
    matches = ((entry.uri, _NAME.fullmatch(entry.name)) for entry in list_folder(folder))
    return [Checkpoint(int(match.group(1)), uri) for uri, match in matches if match]


def _step(checkpoint: Checkpoint) -> int:
    return checkpoint.step


def _delete(checkpoint: Checkpoint) -> None:
    storage, path = resolve(checkpoint.uri)
    storage.delete(path)
