"""Initial weights of the backbone: Keras' own download, a file, or none (random)."""

from __future__ import annotations

import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eagle_spark.errors import InputError, PlatformError
from eagle_spark.io import resolve, split_uri

DOWNLOAD_TIMEOUT = 15  # seconds without an answer
_PARAMETERS = 2_257_984  # of MobileNetV2, alpha 1.0, three channels, no top
_FILE_NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"

_log = logging.getLogger(__name__)


@contextmanager
def fetch_weights(choice: str) -> Iterator[Path | None]:
    """Yield the local path of the weights file that `--weights` names; valid inside the block.

    Args:
        choice: `imagenet` (Keras' own download, kept in its cache), `none` (a random start: yields
            None and logs a warning), or a path or URI of an HDF5 weights file.

    Raises:
        InputError: when the file does not exist, or holds the weights of another network.
        PlatformError: when the download fails.
    """
    if choice == "none":
        _log.warning(
            "`weights` none: the backbone starts at random and stays frozen; "
            "expect a far worse model than with `weights` imagenet"
        )
        yield None
    elif choice == "imagenet":
        path = _download()
        _check_weights(path, choice)
        yield path
    elif split_uri(choice)[0] == "file":
        path = Path(split_uri(choice)[2])
        if not path.is_file():
            raise InputError(f"`weights` {choice}: no such file")
        _check_weights(path, choice)
        yield path
    else:
        storage, remote = resolve(choice)
        if not storage.exists(remote):
            raise InputError(f"`weights` {choice}: no such file")
        with tempfile.TemporaryDirectory(prefix="eagle-weights-") as folder:
            local = Path(folder, "backbone.h5")
            with storage.open(remote) as source, local.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            _check_weights(local, choice)
            yield local


def _check_weights(path: Path, choice: str) -> None:
    """Check the layout (Keras' `.h5`) and the number of parameters, before ranks fail on them."""
    import h5py

    parameters = 0

    def add_size(_: str, item: object) -> None:
        nonlocal parameters
        parameters += item.size if isinstance(item, h5py.Dataset) else 0

    try:
        with h5py.File(path, "r") as file:
            has_layer_names = "layer_names" in file.attrs
            file.visititems(add_size)
    except (OSError, RuntimeError, KeyError) as error:
        problem = f"cannot be read as HDF5: {error}"
    else:
        if has_layer_names and parameters == _PARAMETERS:
            return
        problem = (
            f"wanted {_PARAMETERS} parameters; got {parameters}"
            if has_layer_names
            else "the attribute `layer_names` of Keras' weights in .h5 is missing"
        )
    raise InputError(f"`weights` {choice}: not MobileNetV2 weights (alpha 1.0, no top): {problem}")


def _download() -> Path:
    import keras
    from keras.src.applications.mobilenet_v2 import BASE_WEIGHT_PATH

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return Path(
            keras.utils.get_file(_FILE_NAME, BASE_WEIGHT_PATH + _FILE_NAME, cache_subdir="models")
        )
    except Exception as error:  # get_file raises bare Exception for every network error
        raise PlatformError(
            f"`weights` imagenet: Keras' download failed ({error}); "
            "give a weights file with `weights` PATH, or `weights` none for a random start"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
