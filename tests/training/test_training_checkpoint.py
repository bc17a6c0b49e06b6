from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eagle_spark.errors import EagleError
from eagle_spark.training.checkpoint import (
    checkpoint_folder,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(7, np.int64),
    np.array([-0.0, np.nan, 1e-45], np.float32),
    np.zeros((0, 4)),
]


def save(folder: Path, *steps: int) -> list[Path]:
    """Save a checkpoint after each of these steps; return the remaining files, oldest first."""
    for step in steps:
        save_checkpoint(str(folder), step, ARRAYS, {"step": step})
    return sorted(folder.iterdir())


def test_arrays_and_state_come_back_bit_by_bit(tmp_path: Path) -> None:
    place = save_checkpoint(
        str(tmp_path / "new"), 3, ARRAYS, {"history": [{"loss": 0.1, "m": None}]}
    )
    arrays, state = load_checkpoint(place.uri)
    assert state == {"history": [{"loss": 0.1, "m": None}]}
    for written, read in zip(ARRAYS, arrays, strict=True):
        assert (read.dtype, read.shape) == (written.dtype, written.shape)
        assert read.tobytes() == written.tobytes()


def test_more_than_ten_arrays_keep_their_order(tmp_path: Path) -> None:
    place = save_checkpoint(str(tmp_path), 1, [np.array(i) for i in range(120)], {})
    assert [int(array) for array in load_checkpoint(place.uri)[0]] == list(range(120))


def test_the_last_two_checkpoints_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    assert newest_checkpoint(str(tmp_path / "never made")) is None
    remaining = save(tmp_path, 5, 10, 95, 100, 1_000_000)
    assert [path.name[:15] for path in remaining] == ["step-000000100-", "step-001000000-"]
    newest = newest_checkpoint(str(tmp_path))
    assert newest is not None
    assert (newest.step, newest.uri) == (1_000_000, remaining[1].as_uri())


def test_resuming_from_an_older_checkpoint_replaces_later_ones(tmp_path: Path) -> None:
    save(tmp_path, 30, 40)
    save_checkpoint(str(tmp_path), 40, ARRAYS, {"step": "40 again"})
    third, fourth = sorted(tmp_path.iterdir())
    assert load_checkpoint(third.as_uri())[1] == {"step": 30}
    assert load_checkpoint(fourth.as_uri())[1] == {"step": "40 again"}
    save_checkpoint(str(tmp_path), 35, ARRAYS, {"step": 35})
    assert [path.name[:15] for path in sorted(tmp_path.iterdir())] == [
        "step-000000030-",
        "step-000000035-",
    ]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_read(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, newest = save(tmp_path, 1, 2)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"flipped": data, "truncated": data[:-1], "empty": b""}[damage])
    with pytest.raises(EagleError, match="SHA-256"):
        load_checkpoint(newest.as_uri())
    checkpoint = newest_checkpoint(str(tmp_path))
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.uri) == (1, before.as_uri())
    assert newest.as_uri() in caplog.text
    assert list(tmp_path.iterdir()) == [before]


def test_without_a_valid_checkpoint_none_is_read(tmp_path: Path) -> None:
    for path in save(tmp_path, 1, 2):
        path.write_bytes(b"x")
    (tmp_path / f".step-000000003-{'0' * 64}.npz.17.partial").write_bytes(b"half")
    (tmp_path / "step-000000003.npz").write_bytes(b"not ours")
    assert newest_checkpoint(str(tmp_path)) is None


def test_each_training_has_its_own_folder() -> None:
    folder = checkpoint_folder("file:///w", {"seed": 1, "epochs": 2})
    assert folder == checkpoint_folder("file:///w", {"epochs": 2, "seed": 1})
    assert folder != checkpoint_folder("file:///w", {"seed": 2, "epochs": 2})
    assert folder.startswith("file:///w/cxr/_checkpoints/")
