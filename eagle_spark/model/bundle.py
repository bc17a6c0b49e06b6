"""Model folders: `model.keras`, `metadata.json`, `golden.npz`, `openvino/model.xml|.bin`.

`eagle export` adds `onnx/` and `litert/`. `metadata.json` holds the SHA-256 of every other file,
which is checked before anything is loaded. No file of the folder is executed as code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eagle_spark.errors import InputError, ModelError, OutputError
from eagle_spark.io import LocalStorage, join, list_folder, resolve, split_uri
from eagle_spark.model.cache import mark_used, open_cache, prune_cache
from eagle_spark.model.card import render_model_card
from eagle_spark.model.keras_file import check_keras_file, read_weights_digest
from eagle_spark.model.metadata import (
    FORMAT_VERSION,
    METADATA,
    NETWORK,
    ModelMetadata,
    parse_metadata,
)
from eagle_spark.model.novelty import NOVELTY_FILE, NoveltyModel, read_novelty

MODEL_CARD = "MODEL_CARD.md"
MAX_FILE_BYTES = 2 << 30  # of one file of a model
MAX_METADATA_BYTES = 16 << 20
COPY_BYTES = 8 << 20  # in memory at a time

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """A checked model folder on the local disk.

    Attributes:
        path: the local folder.
        metadata: content of `metadata.json`.
        novelty: density model of the training data; None where none was fitted.
    """

    path: Path
    metadata: ModelMetadata
    novelty: NoveltyModel | None


def seal(folder: Path, metadata: ModelMetadata) -> Bundle:
    """Write `MODEL_CARD.md`, and `metadata.json` with the digests of all files; open the folder.

    Args:
        folder: holds `model.keras`, `golden.npz` and the exported engines.
        metadata: its `model_id` and `digests` are computed anew.

    Raises:
        ModelError: when the metadata or a file is not what a model needs.
    """
    if not (folder / NETWORK).is_file():
        raise ModelError(f"{folder / NETWORK}: missing")
    identified = metadata.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "model_id": _compute_model_id(folder, metadata),
            "intended_use": metadata.intended_use,
        }
    )
    (folder / MODEL_CARD).write_text(render_model_card(identified))
    digests = {name: _digest(folder / name) for name in _list_files(folder)}
    values = identified.model_copy(update={"digests": digests}).to_dict()
    (folder / METADATA).write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
    return open_bundle(str(folder))


def publish_bundle(folder: Path, uri: str, overwrite: bool) -> None:
    """Copy a finished local folder to `uri`, whole or not at all.

    Raises:
        OutputError: see `check_target`; or the copy fails.
    """
    storage, target = resolve(uri)
    parent, name = target.rsplit("/", 1)
    stamp = uuid.uuid4().hex[:12]
    partial_copy, previous = f"{parent}/.{name}.{stamp}.partial", f"{parent}/.{name}.{stamp}.old"
    check_target(uri, overwrite)
    try:
        for relative in [*_list_files(folder), METADATA]:
            open_file = partial(LocalStorage().open, str(folder / relative))
            storage.put(f"{partial_copy}/{relative}", open_file)
        exists = storage.exists(target)
        if exists:
            storage.rename(target, previous)
        try:
            storage.rename(partial_copy, target)
        except BaseException:  # a signal too
            if exists and not storage.exists(target):
                storage.rename(previous, target)
            raise
        try:
            storage.delete(previous)
        except OSError as error:  # the model is published
            _log.warning("%s, the previous model, cannot be deleted: %s", previous, error)
    except OSError as error:
        raise OutputError(f"`model` {uri}: cannot be written: {error}") from error
    finally:
        with suppress(OSError):  # would hide the first error
            storage.delete(partial_copy)


def was_written_by(uri: str, run_id: str) -> bool:
    """Whether that run wrote the model folder at `uri`."""
    storage, path = resolve(join(uri, METADATA))
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads(storage.read(path, MAX_FILE_BYTES))["run_id"] == run_id)
    return False


def check_target(uri: str, overwrite: bool) -> None:
    """Check that a model can be written to `uri`; cheap, for the start of jobs; leaves no file.

    Raises:
        OutputError: when `uri` exists and `overwrite` is off, or is not a model folder and
            `overwrite` is on, or the nearest existing folder is not writable.
    """
    storage, target = resolve(uri)
    try:
        exists = storage.exists(target) and not _is_empty(uri, target)
        if exists and not overwrite:
            raise OutputError(
                f"`model` {uri}: exists already; choose another folder or set `overwrite`"
            )
        if exists and not storage.exists(f"{target}/{METADATA}"):
            raise OutputError(f"`model` {uri}: not a model folder; not replaced")
        folder = target.rsplit("/", 1)[0]
        while folder and not storage.exists(folder):
            folder = folder.rsplit("/", 1)[0]
        probe = f"{folder}/.eagle-{uuid.uuid4().hex[:12]}.probe"
        storage.write(probe, b"")
        storage.delete(probe)
    except OSError as error:
        raise OutputError(f"`model` {uri}: cannot be written: {error}") from error


def _is_empty(uri: str, path: str) -> bool:
    if split_uri(uri)[0] == "file":  # hidden files count: an empty folder will be deleted
        return Path(path).is_dir() and not any(Path(path).iterdir())
    try:
        return next(list_folder(uri), None) is None
    except InputError:  # not a folder
        return False


def open_bundle(uri: str, expected_id: str | None = None, cache: Path | None = None) -> Bundle:
    """Check the model folder at `uri`; a remote one is copied to the local disk first.

    Args:
        uri: of the folder.
        expected_id: the required model id; None accepts any.
        cache: local folder for copies of remote models, one folder per content; by default a folder
            of this user among the temporary files. Safe for concurrent processes. It keeps the
            `MAX_ENTRIES` most recently used models, and all that were used within a day.

    Raises:
        ModelError: when `uri` is not a model folder, or a file is missing, altered, unknown or
            unsafe; names the file.
    """
    raw = _read_metadata(uri)
    metadata = parse_metadata(raw, uri)
    if split_uri(uri)[0] == "file":
        folder = Path(split_uri(uri)[2])
    else:
        folder = (cache or open_cache("models")) / hashlib.sha256(raw).hexdigest()
        _copy(uri, folder, raw, metadata.digests)
    _check_files(folder, metadata.digests)
    check_keras_file(folder / NETWORK)
    if metadata.model_id != _compute_model_id(folder, metadata):
        raise ModelError(
            f"{uri}/{METADATA}: model_id does not fit the weights, classes and input; altered"
        )
    if expected_id not in (None, metadata.model_id):
        raise ModelError(
            f"{uri}: wanted the model {expected_id}; got {metadata.model_id}: was it replaced "
            "while a job ran?"
        )
    novelty = read_novelty(folder / NOVELTY_FILE) if NOVELTY_FILE in metadata.digests else None
    return Bundle(folder, metadata, novelty)


def _compute_model_id(folder: Path, metadata: ModelMetadata) -> str:
    """Return the SHA-256 over the weights and the metadata that define their outputs' meaning."""
    parts = {
        "classes": metadata.classes,
        "input": metadata.input.to_dict(),
        "mask_threshold": metadata.mask_threshold,
        "weights": read_weights_digest(folder / NETWORK),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _list_files(folder: Path) -> list[str]:
    """Return the relative names of all files but `metadata.json`, sorted."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    return sorted(name for name in names if name != METADATA)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_metadata(uri: str) -> bytes:
    storage, path = resolve(uri)
    try:
        return storage.read(f"{path}/{METADATA}", MAX_METADATA_BYTES)
    except OSError as error:
        raise ModelError(
            f"{uri}: not a model folder, {METADATA} cannot be read: {error}"
        ) from error


def _copy(uri: str, folder: Path, raw: bytes, digests: Mapping[str, str]) -> None:
    """Copy a remote model into `folder` unless it exists; other processes may do the same."""
    with suppress(OSError):
        mark_used(folder)
        return
    storage, path = resolve(uri)
    partial_copy = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        for name in digests:
            (partial_copy / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (
                storage.open(f"{path}/{name}") as source,
                (partial_copy / name).open("wb") as target,
            ):
                shutil.copyfileobj(source, target, COPY_BYTES)
        (partial_copy / METADATA).write_bytes(raw)
        _move(partial_copy, folder)
    except FileNotFoundError as error:
        raise ModelError(f"{uri}/{name}: missing") from error
    except OSError as error:
        raise ModelError(f"{uri}: cannot be copied to {folder}: {error}") from error
    finally:
        shutil.rmtree(partial_copy, ignore_errors=True)
    prune_cache(folder.parent)


def _move(partial_copy: Path, folder: Path) -> None:
    try:
        partial_copy.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process may have been faster
            raise


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    present = set(_list_files(folder))
    for name in sorted(present - set(digests)):
        raise ModelError(f"{folder / name}: not part of the model (not in {METADATA})")
    for name, expected in sorted(digests.items()):
        path = folder / name
        if name not in present:
            raise ModelError(f"{path}: missing")
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"{path}: not a regular file")
        if _digest(path) != expected:
            raise ModelError(f"{path}: altered, its SHA-256 is not the one in {METADATA}")
