from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import h5py
import pytest

from eagle_spark.errors import InputError, PlatformError
from eagle_spark.model.weights import fetch_weights

MOBILENET = 2_257_984  # values of MobileNetV2 without top, see keras.io/api/applications


def write_weights(path: Path, values: int = MOBILENET, layers: str | None = "layer_names") -> Path:
    """A file of the layout that Keras' own weights have; unwritten values take no room."""
    with h5py.File(path, "w") as file:
        file.create_dataset("Conv1/Conv1/kernel", (3, 3, 3, 32), "f4")
        file.create_dataset("rest/rest/kernel", (values - 864,), "f4")
        if layers:
            file.attrs[layers] = ["Conv1", "rest"]
    return path


def test_none_starts_at_random_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    with fetch_weights("none") as path:
        assert path is None
    assert "`weights` none" in caplog.text


@pytest.mark.parametrize("as_uri", [True, False])
def test_a_path_or_uri_is_used_in_place(tmp_path: Path, as_uri: bool) -> None:
    file = write_weights(tmp_path / "w.h5")
    with fetch_weights(file.as_uri() if as_uri else str(file)) as path:
        assert path == file


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"`weights` .*gone\.h5"),
        fetch_weights(str(tmp_path / "gone.h5")),
    ):
        pass


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "cut.h5").write_bytes(write_weights(tmp_path / "w.h5").read_bytes()[:-100])
    write_weights(tmp_path / "top.h5", values=3_538_984)
    write_weights(tmp_path / "no.h5", layers=None)
    for name, problem in {
        "text.h5": "cannot be read as HDF5",
        "cut.h5": "cannot be read as HDF5",
        "top.h5": "wanted 2257984 parameters; got 3538984",
        "no.h5": "attribute `layer_names` .* is missing",
    }.items():
        with (
            pytest.raises(InputError, match=rf"`weights` .*{name}: not MobileNetV2 .*{problem}"),
            fetch_weights(str(tmp_path / name)),
        ):
            pass


@pytest.mark.train
def test_weights_saved_by_keras_are_accepted(tmp_path: Path) -> None:
    import keras

    model = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None)
    model.save_weights(tmp_path / "own.weights.h5")
    with h5py.File(tmp_path / "own.h5", "w") as file:
        keras.src.legacy.saving.legacy_h5_format.save_weights_to_hdf5_group(file, model)
    with fetch_weights(str(tmp_path / "own.h5")) as path:
        assert path is not None
    with (
        pytest.raises(InputError, match="layer_names"),
        fetch_weights(str(tmp_path / "own.weights.h5")),
    ):
        pass


@pytest.mark.train
def test_a_failed_download_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    before = socket.getdefaulttimeout()

    def unreachable(*args: Any, **kwargs: Any) -> str:
        assert socket.getdefaulttimeout() is not None  # never hangs
        raise Exception("URL fetch failure: None")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(PlatformError, match="`weights` PATH"), fetch_weights("imagenet"):
        pass
    assert socket.getdefaulttimeout() == before
