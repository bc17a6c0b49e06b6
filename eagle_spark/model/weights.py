"""Where the backbone's first weights come from: Keras' own download, a file, or nowhere."""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eagle_spark.errors import InputError, PlatformError
from eagle_spark.io import locate, split_uri

DOWNLOAD_TIMEOUT = 15  # seconds without an answer
_VALUES = 2_257_984  # of MobileNetV2, alpha 1.0, three channels, no top
_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"

_log = logging.getLogger(__name__)


@contextmanager
def weights_file(choice: str) -> Iterator[Path | None]:
    """Give the local weights file that `--weights` names, for as long as the block lasts.

    Args:
        choice: `imagenet` (Keras' own download, kept in its cache), `none` (a random start: gives
            None and logs a warning), or a path or URI of an HDF5 weights file.

    Raises:
        InputError: when there is no such file, or it holds other weights.
        PlatformError: when the download cannot be reached.
    """
    if choice == "none":
        _log.warning(
            "--weights none: the backbone starts at random and stays frozen; "
            "expect a far worse model than with --weights imagenet"
        )
        yield None
    elif choice == "imagenet":
        path = _download()
        _check(path, choice)
        yield path
    elif split_uri(choice)[0] == "file":
        path = Path(split_uri(choice)[2])
        if not path.is_file():
            raise InputError(f"--weights {choice}: no such file")
        _check(path, choice)
        yield path
    else:
        storage, remote = locate(choice)
        if not storage.exists(remote):
            raise InputError(f"--weights {choice}: no such file")
        with tempfile.TemporaryDirectory(prefix="eagle-weights-") as folder:
            local = Path(folder, "backbone.h5")
            with storage.open(remote) as source, local.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            _check(local, choice)
            yield local


def _check(path: Path, choice: str) -> None:
    """Look at the names and shapes alone: ranks would fail much later. Keras' `.h5` layout."""
    import h5py

    counted = 0

    def count(_: str, item: object) -> None:
        nonlocal counted
        counted += item.size if isinstance(item, h5py.Dataset) else 0

    try:
        with h5py.File(path, "r") as file:
            named = "layer_names" in file.attrs
            file.visititems(count)
    except (OSError, RuntimeError, KeyError) as error:
        problem = f"cannot be read as HDF5: {error}"
    else:
        if named and counted == _VALUES:
            return
        problem = (
            f"holds {counted} values, wanted {_VALUES}"
            if named
            else "holds no `layer_names`, as Keras' weights in .h5 do"
        )
    raise InputError(f"--weights {choice}: not MobileNetV2 weights (alpha 1.0, no top): {problem}")


def _download() -> Path:
    import keras
    from keras.src.applications.mobilenet_v2 import BASE_WEIGHT_PATH

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return Path(keras.utils.get_file(_FILE, BASE_WEIGHT_PATH + _FILE, cache_subdir="models"))
    except Exception as error:  # get_file raises bare Exception for whatever the network did
        raise PlatformError(
            f"--weights imagenet: Keras' download cannot be reached ({error}); "
            "give a weights file with --weights PATH, or --weights none for a random start"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
