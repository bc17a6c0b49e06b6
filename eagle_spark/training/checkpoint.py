"""Checkpoints: the state of a training after so many steps, one file each, whole or not there.

A file is named `step-<n>-<sha256 of its bytes>.npz`, so that damage shows before anything is
loaded. What the arrays mean is the caller's: they come back in the order they were given.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import EagleError
from eagle_spark.io import absolute_uri, join, list_folder, locate
from eagle_spark.training.arrays import pack_arrays, unpack_arrays

_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.npz")


@dataclass(frozen=True)
class Place:
    """Where the checkpoint after `step` steps is."""

    step: int
    uri: str


def checkpoint_folder(warehouse: str, key: Mapping[str, Any]) -> str:
    """Return the folder of the training that `key` describes: all that its weights depend on."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return join(warehouse, "cxr", "_checkpoints", digest[:32])


def save_checkpoint(
    folder: str, step: int, arrays: Sequence[NDArray[Any]], state: Mapping[str, Any]
) -> Place:
    """Write the state after `step` steps; the one before it is kept, all others are removed.

    Args:
        state: goes into JSON.
    """
    data = pack_arrays([*arrays, np.frombuffer(json.dumps(state).encode(), np.uint8)])
    name = f"step-{step:09d}-{hashlib.sha256(data).hexdigest()}.npz"
    place = Place(step, join(absolute_uri(folder), name))
    storage, path = locate(place.uri)
    storage.write(path, data)
    others = [found for found in _places(folder) if not found.uri.endswith(name)]
    before = max((found for found in others if found.step < step), key=_step, default=None)
    for found in others:
        if found is not before:
            _remove(found)
    return place


def load_checkpoint(uri: str) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the state of one checkpoint.

    Raises:
        EagleError: when the file is damaged.
    """
    *arrays, state = unpack_arrays(_checked(uri))
    return arrays, json.loads(state.tobytes())


def newest_checkpoint(folder: str) -> Place | None:
    """Return the newest sound checkpoint; damaged ones are told of and removed."""
    for place in sorted(_places(folder), key=_step, reverse=True):
        try:
            _checked(place.uri)
            return place
        except EagleError as error:
            print(f"{error}; going on from the one before", file=sys.stderr, flush=True)
            _remove(place)
    return None


def _checked(uri: str) -> bytes:
    storage, path = locate(uri)
    with storage.open(path) as stream:
        data = stream.read()
    named = _NAME.fullmatch(uri.rsplit("/", 1)[-1])
    if named is None or hashlib.sha256(data).hexdigest() != named.group(2):
        raise EagleError(f"checkpoint {uri} is damaged: its SHA-256 is not the one in its name")
    return data


def _places(folder: str) -> list[Place]:
    storage, path = locate(folder)
    if not storage.exists(path):
        return []
    named = ((entry.uri, _NAME.fullmatch(entry.name)) for entry in list_folder(folder))
    return [Place(int(match.group(1)), uri) for uri, match in named if match]


def _step(place: Place) -> int:
    return place.step


def _remove(place: Place) -> None:
    storage, path = locate(place.uri)
    storage.delete(path)
