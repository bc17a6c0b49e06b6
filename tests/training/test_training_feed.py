from __future__ import annotations

import dataclasses
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from eagle_spark.errors import InputError
from eagle_spark.training import feed
from eagle_spark.training.feed import Batch, Feed
from eagle_spark.training.plan import plan_rows, read_footers

SIZE = 64


def feeds(path: Path, ranks: int, *, shuffle: bool = True, flip: bool = False) -> list[Feed]:
    shared = plan_rows(read_footers([str(path)]), ranks, 8)
    return [
        Feed(lanes, rank * len(lanes), 8, ("dark", "light"), SIZE, 7, shuffle, flip)
        for rank, lanes in enumerate(shared)
    ]


def names(batch: Batch) -> list[int]:
    """The grey values of the left halves: which images these are."""
    return batch.pixels[:, 0, 0, 0].tolist()


def test_rows_come_with_their_masks_labels_and_weights(images_file: Path) -> None:
    batches = list(feeds(images_file, 1, shuffle=False)[0].batches(0))
    assert len(batches) == 7
    for batch in batches:
        assert batch.pixels.shape == batch.masks.shape == (8, SIZE, SIZE, 1)
        assert batch.labels.tolist() == [int(i >= 25) for i in names(batch)]
        assert batch.has_mask.tolist() == [float(i % 5 != 0) for i in names(batch)]
        half = SIZE * SIZE // 2
        assert batch.masks.sum(axis=(1, 2, 3)).tolist() == (batch.has_mask * half).tolist()
    counted = sorted(i for b in batches for i, w in zip(names(b), b.weights, strict=True) if w)
    assert counted == list(range(50))
    assert sum(int((b.weights == 0).sum()) for b in batches) == 6  # repeats fill the last batch


def test_two_ranks_together_see_the_batches_of_one(images_file: Path) -> None:
    for epoch in (0, 1):
        alone = list(feeds(images_file, 1, flip=True)[0].batches(epoch))
        first, second = (list(f.batches(epoch)) for f in feeds(images_file, 2, flip=True))
        for whole, *halves in zip(alone, first, second, strict=True):
            for field in Batch._fields:
                joined = np.concatenate([getattr(half, field) for half in halves])
                assert np.array_equal(getattr(whole, field), joined)


def test_each_epoch_has_its_own_order_which_can_be_replayed(images_file: Path) -> None:
    one = feeds(images_file, 1)[0]
    orders = [[names(batch) for batch in one.batches(epoch)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    other = dataclasses.replace(one, seed=8)
    assert [names(batch) for batch in other.batches(0)] != orders[0]
    assert sorted(chain(*orders[0])) == sorted(chain(*orders[1]))


def test_a_small_buffer_still_gives_every_row_once(
    images_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BUFFER_ROWS", 16)
    monkeypatch.setattr(feed, "READ_ROWS", 2)
    assert feeds(images_file, 1)[0].buffer_rows == 2
    seen = [
        i
        for batch in feeds(images_file, 1)[0].batches(0)
        for i, weight in zip(names(batch), batch.weights, strict=True)
        if weight
    ]
    assert sorted(seen) == list(range(50))


def test_the_shuffle_buffers_of_a_batch_hold_about_as_much_for_any_batch_and_ranks(
    images_file: Path,
) -> None:
    one, two = feeds(images_file, 1)[0], feeds(images_file, 2)[0]
    assert one.buffer_rows == two.buffer_rows == 256
    assert [dataclasses.replace(one, batch=n).buffer_rows for n in (32, 128, 512)] == [64, 16, 16]


def test_image_and_mask_are_mirrored_together_and_about_half_of_them(images_file: Path) -> None:
    mirrored = total = 0
    for epoch in range(4):
        for batch in feeds(images_file, 1, flip=True)[0].batches(epoch):
            bright_left = batch.pixels[:, 0, 0, 0] >= batch.pixels[:, 0, -1, 0]
            mask_left = batch.masks[:, 0, 0, 0] == 1
            light = (batch.labels == 1) & (batch.has_mask == 1)
            assert np.array_equal(bright_left[light], mask_left[light])
            mirrored, total = mirrored + int(mask_left[light].sum()), total + int(light.sum())
    assert 0.3 < mirrored / total < 0.7


def test_unknown_labels_and_other_sizes_are_refused(images_file: Path) -> None:
    one = feeds(images_file, 1)[0]
    with pytest.raises(InputError, match="label 'light'"):
        list(dataclasses.replace(one, classes=("dark", "grey")).batches(0))
    with pytest.raises(InputError, match="4096 pixels, wanted 32x32"):
        list(dataclasses.replace(one, size=32).batches(0))


@pytest.mark.train
def test_the_dataset_holds_the_same_batches_epoch_after_epoch(images_file: Path) -> None:
    one = feeds(images_file, 2)[1]
    wanted = [*one.batches(1), *one.batches(2)]
    found = [Batch(*(value.numpy() for value in batch)) for batch in one.dataset(range(1, 3))]
    assert len(found) == len(wanted) == 14
    for a, b in zip(found, wanted, strict=True):
        assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))
