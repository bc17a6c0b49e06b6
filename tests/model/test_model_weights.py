from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.errors import InputError, PlatformError
from eagle_spark.model.weights import stage_weights, weights_file


def test_none_starts_at_random_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), weights_file("none") as path:
        assert path is None
    assert "--weights none" in caplog.text


@pytest.mark.parametrize("as_uri", [True, False])
def test_a_path_or_uri_is_used_where_it_lies(tmp_path: Path, as_uri: bool) -> None:
    file = tmp_path / "w.h5"
    file.write_bytes(b"weights")
    with weights_file(file.as_uri() if as_uri else str(file)) as path:
        assert path == file


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"--weights .*gone\.h5"),
        weights_file(str(tmp_path / "gone.h5")),
    ):
        pass


def test_staging_copies_the_file_for_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"weights")
    copy = stage_weights(str(tmp_path / "w.h5"), str(tmp_path / "staging"))
    assert copy.startswith("file:///")
    with weights_file(copy) as path:
        assert path is not None
        assert path.read_bytes() == b"weights"
    assert stage_weights("none", str(tmp_path)) == "none"


@pytest.mark.train
def test_an_unreachable_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    before = socket.getdefaulttimeout()

    def unreachable(*args: Any, **kwargs: Any) -> str:
        assert socket.getdefaulttimeout() is not None  # never hangs
        raise Exception("URL fetch failure: None")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(PlatformError, match="--weights PATH"), weights_file("imagenet"):
        pass
    assert socket.getdefaulttimeout() == before
