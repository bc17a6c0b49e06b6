"""Compiled graphs are kept for the next process, where no other user can write."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops

from eagle_spark.model.cache import (
    DIGEST_BYTES,
    MAX_ENTRIES,
    MAX_UNUSED_SECONDS,
    open_cache,
    prune_cache,
    read_entry,
)
from eagle_spark.model.engines import OpenVINOEngine
from eagle_spark.model.export import compile_openvino

SIZE = 8
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)


def save_graph(file: Path, seed: int = 0) -> Path:
    """Write a small convolution with random weights."""
    pixels = ops.parameter([-1, SIZE, SIZE, 1], np.uint8, "pixels")
    channels = ops.transpose(ops.convert(pixels, np.float32), np.array([0, 3, 1, 2]))
    weights = np.random.default_rng(seed).normal(size=(4, 1, 3, 3)).astype(np.float32)
    output = ops.convolution(channels, ops.constant(weights), [1, 1], [1, 1], [1, 1], [1, 1])
    output.output(0).set_names({"features"})
    pixels.output(0).set_names({"pixels"})
    ov.save_model(ov.Model([output], [pixels], "small"), file, compress_to_fp16=False)
    return file


def infer(graph: Path, cache: Path | None, threads: int = 1) -> NDArray[np.float32]:
    request = compile_openvino(graph, threads, cache=cache)
    request.infer({"pixels": PIXELS})
    return np.array(request.get_tensor("features").data)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return save_graph(tmp_path / "a.xml")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def refuse(*_: object) -> None:
    raise AssertionError("compiled again")


def test_the_second_process_gets_the_same_graph_without_compiling(
    graph: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = infer(graph, None)
    assert np.array_equal(infer(graph, cache), expected)
    (entry,) = cache.iterdir()
    monkeypatch.setattr(ov.Core, "compile_model", refuse)
    assert np.array_equal(infer(graph, cache), expected)
    assert list(cache.iterdir()) == [entry]


def test_other_weights_or_threads_are_another_entry(graph: Path, cache: Path) -> None:
    first = infer(graph, cache)
    infer(graph, cache, threads=2)
    assert len(list(cache.iterdir())) == 2
    save_graph(graph, seed=1)
    assert not np.array_equal(infer(graph, cache), first)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"x" * 40, None])
def test_an_altered_entry_is_not_used(graph: Path, cache: Path, content: bytes | None) -> None:
    expected = infer(graph, cache)
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-1] if content is None else content)
    assert np.array_equal(infer(graph, cache), expected)
    assert len(read_entry(entry)) == len(whole) - DIGEST_BYTES


def test_a_folder_that_cannot_be_written_to_changes_nothing(graph: Path, tmp_path: Path) -> None:
    assert np.array_equal(infer(graph, tmp_path / "none"), infer(graph, None))
    assert not (tmp_path / "none").exists()


def test_engines_take_the_folder_of_this_user_and_no_other(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"eagle-graphs-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    OpenVINOEngine(graph, 1)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    OpenVINOEngine(graph, 1)
    assert len(list(folder.iterdir())) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert open_cache("graphs") == folder


def test_only_old_entries_beyond_the_limit_are_deleted(cache: Path) -> None:
    for number in range(MAX_ENTRIES + 3):
        file = cache / str(number)
        file.write_bytes(b"")
        age = 0 if number == 0 else MAX_UNUSED_SECONDS + 100 - number
        os.utime(file, (time.time() - age,) * 2)
    prune_cache(cache)
    names = {file.name for file in cache.iterdir()}
    assert names == {"0", *(str(number) for number in range(4, MAX_ENTRIES + 3))}
