from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.errors import InputError
from eagle_spark.model.backbone import BackboneEngine
from eagle_spark.model.network import STATISTICS_COUNT, TAPS
from eagle_spark.training import feed
from eagle_spark.training.features import load_backbone
from eagle_spark.training.feed import (
    FEATURE_COLUMNS,
    LABEL_COLUMNS,
    PIXEL_COLUMNS,
    Batch,
    BatchGenerator,
    read_samples,
)
from eagle_spark.training.frozen import Backbone
from eagle_spark.training.plan import plan_rows, read_footers, share_rows

SIZE = 64
HALF = SIZE * SIZE // 2
CLASSES = ("dark", "light")
MASKED = [i for i in range(50) if i % 5]


def feeds(path: Path, ranks: int, *, shuffle: bool = True) -> list[BatchGenerator]:
    shared = plan_rows(read_footers([str(path)], FEATURE_COLUMNS), ranks, 8)
    return [
        BatchGenerator(lanes, rank * len(lanes), 8, SIZE, 7, shuffle)
        for rank, lanes in enumerate(shared)
    ]


def names(batch: Batch) -> list[int]:
    """Which images these are; 0 for those without a mask, whose taps are not read."""
    edges = batch.taps["f56"][:, 0, [0, -1], 0]
    return [int(edge.min()) for edge in edges]


def copies(batch: Batch) -> list[int]:
    return [int(edge[0] > edge[-1]) for edge in batch.taps["f56"][:, 0, :, 0]]


def equal(first: Batch, second: Batch) -> bool:
    pairs = [(first.taps[name], second.taps[name]) for name in TAPS]
    pairs += [(first.masks, second.masks), (first.weights, second.weights)]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def test_rows_come_with_their_taps_masks_and_weights(drawn_file: Path) -> None:
    batches = list(feeds(drawn_file, 1, shuffle=False)[0].batches(0))
    assert len(batches) == 13
    for batch in batches:
        assert {name: tap.shape for name, tap in batch.taps.items()} == {
            "f7": (8, 2, 2, 320),
            "f14": (8, 4, 4, 96),
            "f28": (8, 8, 8, 32),
            "f56": (8, 16, 16, 24),
        }
        assert {tap.dtype for tap in batch.taps.values()} == {np.dtype(np.float16)}
        assert (batch.masks.shape, batch.masks.dtype) == ((8, SIZE, SIZE, 1), np.uint8)
        half = [HALF if name else 0 for name in names(batch)]
        assert batch.masks.sum(axis=(1, 2, 3)).tolist() == half
    counted = sorted(i for b in batches for i, w in zip(names(b), b.weights, strict=True) if w)
    assert counted == sorted(MASKED * 2)
    repeats = [i for b in batches for i, w in zip(names(b), b.weights, strict=True) if i and not w]
    assert repeats == [1, 2, 3]  # of the four rows that fill the last batch, one has no mask


def test_the_mask_is_mirrored_where_the_copy_is(drawn_file: Path) -> None:
    for batch in feeds(drawn_file, 1)[0].batches(0):
        masked = [i for i, name in enumerate(names(batch)) if name]
        left_column = batch.masks[:, 0, 0, 0]
        assert [int(left_column[i]) for i in masked] == [copies(batch)[i] for i in masked]


def test_two_ranks_together_see_the_batches_of_one(drawn_file: Path) -> None:
    for epoch in (0, 1):
        alone = feeds(drawn_file, 1)[0].batches(epoch)
        halves = (feed.batches(epoch) for feed in feeds(drawn_file, 2))
        for whole, first, second in zip(alone, *halves, strict=True):
            joined = Batch(
                {name: np.concatenate([first.taps[name], second.taps[name]]) for name in TAPS},
                np.concatenate([first.masks, second.masks]),
                np.concatenate([first.weights, second.weights]),
            )
            assert equal(whole, joined)


def test_each_epoch_has_its_own_order_which_can_be_replayed(drawn_file: Path) -> None:
    feed = feeds(drawn_file, 1)[0]
    orders = [[names(batch) for batch in feed.batches(epoch)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    other = dataclasses.replace(feed, seed=8)
    assert [names(batch) for batch in other.batches(0)] != orders[0]
    assert sorted(chain(*orders[0])) == sorted(chain(*orders[1]))


@pytest.mark.parametrize("first", [0, 1, 12, 13])
def test_an_epoch_can_be_entered_at_any_batch(drawn_file: Path, first: int) -> None:
    feed = feeds(drawn_file, 2)[1]
    whole, rest = list(feed.batches(3)), list(feed.batches(3, first))
    assert len(rest) == 13 - first
    assert all(equal(a, b) for a, b in zip(whole[first:], rest, strict=True))


def test_a_small_buffer_still_gives_every_row_once(
    drawn_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BUFFER_ROWS", 16)
    monkeypatch.setattr(feed, "READ_ROWS", 2)
    assert feeds(drawn_file, 1)[0].buffer_rows == 2
    images = [
        i
        for batch in feeds(drawn_file, 1)[0].batches(0)
        for i, weight in zip(names(batch), batch.weights, strict=True)
        if weight
    ]
    assert sorted(images) == sorted(MASKED * 2)


def test_the_shuffle_buffers_of_a_batch_hold_about_as_much_for_any_batch_and_ranks(
    drawn_file: Path,
) -> None:
    alone, two = feeds(drawn_file, 1)[0], feeds(drawn_file, 2)[0]
    assert alone.buffer_rows == two.buffer_rows == 128
    assert [dataclasses.replace(alone, batch=n).buffer_rows for n in (32, 128, 512)] == [32, 16, 16]


def test_rows_of_another_size_are_refused(drawn_file: Path) -> None:
    feed = feeds(drawn_file, 1)[0]
    with pytest.raises(InputError, match=r"a mask of \(64, 64\), wanted 32x32"):
        list(dataclasses.replace(feed, size=32).batches(0))


def test_features_of_another_length_are_refused(drawn_file: Path, tmp_path: Path) -> None:
    table = pq.read_table(drawn_file)
    for name in ("f14", "statistics"):
        short = pa.array([b"12"] * len(table), pa.binary())
        at = table.schema.get_field_index(name)
        pq.write_table(table.set_column(at, name, short), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"the table holds 1 values of f14, wanted \(4, 4, 96\)"):
        list(feeds(tmp_path / "f14.parquet", 1)[0].batches(0))
    with pytest.raises(InputError, match="the table holds 1 values of statistics"):
        labelled(tmp_path / "statistics.parquet")


def labelled(
    path: Path, classes: tuple[str, ...] = CLASSES, ranks: int = 1, rank: int = 0, **more: Any
) -> Any:
    lane = share_rows(read_footers([str(path)], LABEL_COLUMNS), ranks)[rank]
    weights = {("odd", "dark"): 1.5, ("even", "light"): 0.25}
    return read_samples(lane, classes, weights, more.pop("engine", None), SIZE, **more)


def test_the_class_head_gets_every_row_with_its_number_and_weight(drawn_file: Path) -> None:
    samples = labelled(drawn_file)
    images = samples.statistics[:, 0].astype(int).tolist()
    assert images == [*range(50), *range(50)]
    assert samples.statistics.shape == (100, STATISTICS_COUNT)
    assert samples.statistics.dtype == np.float32
    assert samples.labels.tolist() == [int(i >= 25) for i in images]
    expected = [{(1, 0): 1.5, (0, 1): 0.25}.get((i % 2, int(i >= 25)), 1.0) for i in images]
    assert samples.weights.tolist() == expected


def test_the_rows_of_all_ranks_equal_those_of_one(drawn_file: Path) -> None:
    alone = labelled(drawn_file)
    parts = [labelled(drawn_file, ranks=3, rank=rank) for rank in range(3)]
    for whole, *shares in zip(alone, *parts, strict=True):
        assert np.array_equal(whole, np.concatenate(shares))


def test_a_rank_without_rows_gets_none() -> None:
    samples = read_samples((), CLASSES, {}, None, SIZE)
    assert [len(part) for part in samples] == [0, 0, 0]
    assert samples.statistics.shape == (0, STATISTICS_COUNT)


def test_unknown_labels_are_refused(drawn_file: Path) -> None:
    with pytest.raises(InputError, match="the table holds the label 'light', not in"):
        labelled(drawn_file, ("dark", "grey"))


@pytest.fixture(scope="module")
def engine(backbone: Backbone) -> BackboneEngine:
    return load_backbone(backbone, 1)


def uncached(path: Path, engine: BackboneEngine, **changes: Any) -> BatchGenerator:
    lanes = plan_rows(read_footers([str(path)], PIXEL_COLUMNS), 1, 8)[0]
    return dataclasses.replace(BatchGenerator(lanes, 0, 8, SIZE, 7, False, engine), **changes)


def single(batch: Batch, i: int) -> Batch:
    return Batch(
        {name: tap[i] for name, tap in batch.taps.items()}, batch.masks[i], batch.weights[i]
    )


def counted(batches: Iterable[Batch]) -> list[Batch]:
    """The rows that count, each alone, in order."""
    lanes = zip(*([single(batch, i) for i in range(8)] for batch in batches), strict=True)
    return [row for lane in lanes for row in lane if row.weights]


@pytest.mark.train
@pytest.mark.parametrize("copy", [0, 1])
def test_cached_and_computed_features_give_the_same_rows(
    images_file: Path,
    features_files: dict[str, dict[bool, Path]],
    engine: BackboneEngine,
    copy: int,
) -> None:
    stored = counted(feeds(features_files["train"][True], 1, shuffle=False)[0].batches(0))
    stored = stored[len(MASKED) * copy :][: len(MASKED)]
    mirrored = np.array([bool(row.masks[0, 0, 0]) for row in stored])
    assert mirrored.tolist() == [bool(copy)] * len(MASKED)
    # Flips are random: epochs are read until every image came as this copy.
    batches: dict[int, Batch] = {}
    feed = uncached(images_file, engine, flip=True)
    for epoch in range(20):
        for i, row in enumerate(counted(feed.batches(epoch))):
            if bool(row.masks[0, 0, 0]) == bool(copy):
                batches[i] = row
        if len(batches) == len(MASKED):
            break
    for i, row in enumerate(stored):
        assert np.array_equal(batches[i].masks, row.masks)
        for name, tap in row.taps.items():
            expected = tap.astype(np.float32)
            np.testing.assert_allclose(
                batches[i].taps[name].astype(np.float32),
                expected,
                atol=2e-3 * np.abs(expected).max(),
            )


@pytest.mark.train
def test_about_half_of_the_images_are_mirrored_with_their_masks(
    images_file: Path, engine: BackboneEngine
) -> None:
    mirrored = total = 0
    feed = uncached(images_file, engine, flip=True, shuffle=True)
    for epoch in range(4):
        for batch in feed.batches(epoch):
            mirrored += int(batch.masks[:, 0, 0, 0].sum())
            total += int(batch.masks.any(axis=(1, 2, 3)).sum())
    assert 0.3 < mirrored / total < 0.7
    again = [batch.masks for batch in feed.batches(3)]
    assert all(
        np.array_equal(a, b.masks) for a, b in zip(again[5:], feed.batches(3, 5), strict=True)
    )


@pytest.mark.train
def test_the_class_head_gets_the_same_samples_from_images_and_features(
    images_file: Path, features_files: dict[str, dict[bool, Path]], engine: BackboneEngine
) -> None:
    computed = labelled(images_file, engine=engine)
    once = labelled(images_file, engine=engine, copies=1)
    assert (len(computed.labels), len(once.labels)) == (100, 50)
    assert np.array_equal(
        computed.statistics[:50], once.statistics
    )  # fewer rows than one call of the backbone
    parts = {masked: labelled(features_files["train"][masked]) for masked in (True, False)}
    order = [i + 50 * copy for copy in (0, 1) for i in MASKED]
    order += [i + 50 * copy for copy in (0, 1) for i in range(0, 50, 5)]
    for values, *stored in zip(computed, parts[True], parts[False], strict=True):
        expected = np.concatenate(stored)
        np.testing.assert_allclose(values[order], expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.train
def test_images_of_another_size_are_refused(images_file: Path, engine: BackboneEngine) -> None:
    with pytest.raises(InputError, match="4096 pixels, wanted 32x32"):
        list(uncached(images_file, engine, size=32).batches(0))


@pytest.mark.train
def test_the_dataset_holds_the_same_batches_epoch_after_epoch(drawn_file: Path) -> None:
    feed = feeds(drawn_file, 2)[1]
    expected = [*feed.batches(1, 4), *feed.batches(2)]
    batches = [
        Batch({name: tap.numpy() for name, tap in taps.items()}, masks.numpy(), weights.numpy())
        for taps, masks, weights in feed.dataset(4, range(1, 3))
    ]
    assert len(batches) == len(expected) == 22
    assert all(equal(a, b) for a, b in zip(batches, expected, strict=True))
