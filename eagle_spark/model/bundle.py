"""A model is a folder: `model.keras`, `metadata.json`, `golden.npz`, `openvino/model.xml|.bin`;
`eagle-export` adds `onnx/` and `litert/`.

Every file but `metadata.json` stands in it with its SHA-256, and is checked against it before
anything is loaded. Nothing in the folder is ever run as code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eagle_spark.errors import BundleError, InputError, OutputError
from eagle_spark.io import LocalStorage, join, list_folder, locate, split_uri
from eagle_spark.model.card import model_card
from eagle_spark.model.keras_file import check_keras_file, weights_digest
from eagle_spark.model.metadata import FORMAT_VERSION, METADATA, parse_metadata
from eagle_spark.model.metadata import NETWORK as NETWORK
from eagle_spark.model.novelty import NOVELTY, Novelty, read_novelty
from eagle_spark.model.review import Limits

MODEL_CARD = "MODEL_CARD.md"
MAX_FILE_BYTES = 2 << 30  # of one file of a model
CACHED = 4  # copies of remote models that are kept on a node
UNUSED_SECONDS = 24 * 3600  # after which a copy is no longer needed; engines load at their start
COPY_BYTES = 8 << 20  # held at a time
INTENDED_USE = (
    "Research use only. Not a medical device; not for diagnosis or treatment of patients."
)


@dataclass(frozen=True)
class Bundle:
    """A checked model folder on the local disk.

    Attributes:
        path: the local folder.
        model_id: the same for the same weights, classes and input contract.
        classes: in the order of the label head.
        size: pixels per side of the input.
        threshold: from this probability on a pixel is lung.
        limits: from where on a person has to look.
        novelty: tells how unlike its training data an image is; None where nothing was fitted.
        engines: name -> result of its gate (`passed`, …).
        metadata: everything that stands in `metadata.json`.
    """

    path: Path
    model_id: str
    classes: tuple[str, ...]
    size: int
    threshold: float
    limits: Limits
    novelty: Novelty | None
    engines: Mapping[str, Mapping[str, Any]]
    metadata: Mapping[str, Any]


def seal(folder: Path, card: Mapping[str, Any]) -> Bundle:
    """Write `MODEL_CARD.md`, and `metadata.json` with the digests of all files; open the folder.

    Args:
        folder: holds `model.keras`, `golden.npz` and the exported engines.
        card: at least `classes`, `input` (with `size`), `mask_threshold`, `review` (see
            `Limits.written`) and `engines`; whatever else is known of the model is kept as it is.

    Raises:
        BundleError: when the card or a file is not what a model needs.
    """
    if not (folder / NETWORK).is_file():
        raise BundleError(f"{folder / NETWORK}: missing")
    metadata = {
        "format_version": FORMAT_VERSION,
        "model_id": _identity(folder, card),
        "intended_use": INTENDED_USE,
        **card,
    }
    (folder / MODEL_CARD).write_text(model_card(metadata))
    metadata["digests"] = {name: _digest(folder / name) for name in _files(folder)}
    (folder / METADATA).write_text(json.dumps(metadata, indent=2, allow_nan=False) + "\n")
    return open_bundle(str(folder))


def publish_bundle(folder: Path, uri: str, overwrite: bool) -> None:
    """Copy a finished local folder to `uri`, whole or not at all.

    Raises:
        OutputError: see `check_target`; or it cannot be written.
    """
    storage, target = locate(uri)
    parent, name = target.rsplit("/", 1)
    stamp = uuid.uuid4().hex[:12]
    fresh, old = f"{parent}/.{name}.{stamp}.partial", f"{parent}/.{name}.{stamp}.old"
    check_target(uri, overwrite)
    try:
        for relative in [*_files(folder), METADATA]:
            opened = partial(LocalStorage().open, str(folder / relative))
            storage.put(f"{fresh}/{relative}", opened)
        taken = storage.exists(target)
        if taken:
            storage.rename(target, old)
        try:
            storage.rename(fresh, target)
        except BaseException:  # a signal too
            if taken and not storage.exists(target):
                storage.rename(old, target)
            raise
        try:
            storage.delete(old)
        except OSError as error:  # the model is published
            print(f"warning: {old}, the model before, cannot be removed: {error}", file=sys.stderr)
    except OSError as error:
        raise OutputError(f"--model {uri}: cannot be written: {error}") from error
    finally:
        with suppress(OSError):  # the error that counts is on its way
            storage.delete(fresh)


def is_of_run(uri: str, run_id: str) -> bool:
    """Whether the model that is published at `uri` was made by that run."""
    storage, path = locate(join(uri, METADATA))
    with suppress(OSError, ValueError, KeyError):
        return bool(json.loads(storage.read(path, MAX_FILE_BYTES))["run_id"] == run_id)
    return False


def check_target(uri: str, overwrite: bool) -> None:
    """Check that a model can be put at `uri`; cheap, for job starts. Nothing is left behind.

    Raises:
        OutputError: when `uri` holds anything and `overwrite` is off, or anything but a model and
            `overwrite` is on, or the nearest folder that exists may not be written.
    """
    storage, target = locate(uri)
    try:
        taken = storage.exists(target) and not _is_empty(uri, target)
        if taken and not overwrite:
            raise OutputError(
                f"--model {uri}: something is there already; "
                "choose another place or give --overwrite"
            )
        if taken and not storage.exists(f"{target}/{METADATA}"):
            raise OutputError(f"--model {uri}: is no model folder; not replaced")
        folder = target.rsplit("/", 1)[0]
        while folder and not storage.exists(folder):
            folder = folder.rsplit("/", 1)[0]
        probe = f"{folder}/.eagle-{uuid.uuid4().hex[:12]}.probe"
        storage.write(probe, b"")
        storage.delete(probe)
    except OSError as error:
        raise OutputError(f"--model {uri}: cannot be written: {error}") from error


def _is_empty(uri: str, path: str) -> bool:
    if split_uri(uri)[0] == "file":  # hidden files count here: an empty folder will be deleted
        return Path(path).is_dir() and not any(Path(path).iterdir())
    try:
        return next(list_folder(uri), None) is None
    except InputError:  # not a folder
        return False


def open_bundle(uri: str, expected_id: str | None = None, cache: Path | None = None) -> Bundle:
    """Check the model folder at `uri` and return it; a remote one is copied to the disk first.

    Args:
        expected_id: the model id that the caller counts on.
        cache: local folder for copies of remote models, one folder per content; by default one of
            this user's own in the folder for temporary files. Safe for several processes at once;
            holds the `CACHED` models used last, and any that was used within a day.

    Raises:
        BundleError: when the folder is none, or a file is missing, altered, unknown or unsafe;
            names the file.
    """
    raw = _read_metadata(uri)
    metadata = parse_metadata(raw, uri)
    if split_uri(uri)[0] == "file":
        folder = Path(split_uri(uri)[2])
    else:
        folder = (cache or _own_cache()) / hashlib.sha256(raw).hexdigest()
        _copy(uri, folder, raw, metadata["digests"])
    _check_files(folder, metadata["digests"])
    check_keras_file(folder / NETWORK)
    if metadata["model_id"] != _identity(folder, metadata):
        raise BundleError(
            f"{uri}/{METADATA}: model_id does not fit the weights, classes and input; altered"
        )
    if expected_id not in (None, metadata["model_id"]):
        raise BundleError(
            f"{uri}: holds the model {metadata['model_id']}, wanted {expected_id}; "
            "was it replaced while a job ran?"
        )
    limits = Limits.read(metadata["review"], f"{uri}/{METADATA}")
    return Bundle(
        path=folder,
        model_id=metadata["model_id"],
        classes=tuple(metadata["classes"]),
        size=metadata["input"]["size"],
        threshold=float(metadata["mask_threshold"]),
        limits=limits,
        novelty=read_novelty(folder / NOVELTY) if NOVELTY in metadata["digests"] else None,
        engines=metadata["engines"],
        metadata=metadata,
    )


def _identity(folder: Path, metadata: Mapping[str, Any]) -> str:
    """Return the model id: SHA-256 over the weights and what gives their outputs a meaning."""
    parts = {key: metadata[key] for key in ("classes", "input", "mask_threshold")}
    parts["weights"] = weights_digest(folder / NETWORK)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _own_cache() -> Path:
    """Return the cache of this user, into which nobody else can put anything."""
    folder = Path(tempfile.gettempdir(), f"eagle-models-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BundleError(
            f"{folder}: models are copied only into a folder that this user owns and nobody else"
            " may enter (mode 0700); remove it, or set TMPDIR to another place"
        )
    return folder


def _files(folder: Path) -> list[str]:
    """Return the names, with `/`, of all files but `metadata.json`, sorted."""
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
    return sorted(name for name in names if name != METADATA)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_metadata(uri: str) -> bytes:
    storage, path = locate(uri)
    try:
        return storage.read(f"{path}/{METADATA}", 16 << 20)
    except OSError as error:
        raise BundleError(
            f"{uri}: not a model folder, {METADATA} cannot be read: {error}"
        ) from error


def _copy(uri: str, folder: Path, raw: bytes, digests: Mapping[str, str]) -> None:
    """Copy a remote model into `folder` unless a whole copy is there; other processes may too."""
    with suppress(OSError):
        os.utime(folder)  # in use: not to be removed
        return
    storage, path = locate(uri)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        for name in digests:
            (fresh / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with storage.open(f"{path}/{name}") as source, (fresh / name).open("wb") as target:
                shutil.copyfileobj(source, target, COPY_BYTES)
        (fresh / METADATA).write_bytes(raw)
        _move(fresh, folder)
    except FileNotFoundError as error:
        raise BundleError(f"{uri}/{name}: missing") from error
    except OSError as error:
        raise BundleError(f"{uri}: cannot be copied to {folder}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _prune(folder.parent)


def _move(fresh: Path, folder: Path) -> None:
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():  # no other process was faster
            raise


def _prune(cache: Path) -> None:
    """Remove the copies, whole or not, that nobody has used for a day, but the newest."""
    used: dict[Path, float] = {}
    for path in cache.iterdir():
        with suppress(FileNotFoundError):  # another process does the same
            used[path] = path.lstat().st_mtime
    for path in sorted(used, key=used.__getitem__)[:-CACHED]:
        if time.time() - used[path] > UNUSED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    present = set(_files(folder))
    for name in sorted(present - set(digests)):
        raise BundleError(f"{folder / name}: not part of the model (not in {METADATA})")
    for name, wanted in sorted(digests.items()):
        path = folder / name
        if name not in present:
            raise BundleError(f"{path}: missing")
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path}: not a regular file")
        if _digest(path) != wanted:
            raise BundleError(f"{path}: altered, its SHA-256 is not the one in {METADATA}")
