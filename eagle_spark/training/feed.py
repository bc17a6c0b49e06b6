"""Rows of the `images` table as batches: a `tf.data` pipeline in bounded memory.

The descendant of `MultiTaskDataGenerator`. What is random (order, flips) is drawn per lane from
(seed, epoch, lane), so any epoch of any lane can be replayed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import InputError
from eagle_spark.images.masks import decode_mask
from eagle_spark.storage import locate
from eagle_spark.training.plan import COLUMNS, Lane, RankRows, RowSlice, steps_of

READ_ROWS = 16  # rows decoded at a time by each lane
BUFFER_ROWS = 2048  # rows that wait, still coded, in the shuffle buffers of all lanes together
READ_BYTES = 1 << 20
PREFETCH = 2  # batches


class Row(NamedTuple):
    """One row as the table holds it."""

    pixels: bytes
    mask: bytes | None
    label: str
    weight: float


class Batch(NamedTuple):
    """The rows of one rank in one step.

    Attributes:
        pixels: uint8 `(n, size, size, 1)`.
        masks: uint8, 0 or 1, `(n, size, size, 1)`; zeros where there is none.
        has_mask: float32 `(n,)`, 1 where there is a mask.
        labels: int32 `(n,)`, numbers in the order of the classes.
        weights: float32 `(n,)`; 0 for rows that only fill the batch.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    has_mask: NDArray[np.float32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Feed:
    """Where batches come from.

    Attributes:
        lanes: this rank's lanes.
        first_lane: the number of its first lane among all lanes.
        batch: the number of lanes of all ranks.
        classes: class names in the order of the labels.
        size: pixels per side.
        seed: of the shuffles and flips.
        shuffle: draw another order in each epoch.
        flip: mirror half of the images.
    """

    lanes: RankRows
    first_lane: int
    batch: int
    classes: tuple[str, ...]
    size: int
    seed: int
    shuffle: bool
    flip: bool

    @property
    def buffer_rows(self) -> int:
        """Rows in one lane's shuffle buffer; of the whole batch, so the same for any ranks."""
        return max(READ_ROWS, BUFFER_ROWS // self.batch)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the epoch's batches, one row of each lane in each.

        Raises:
            InputError: when a row is not of `size`, or its label is not among the classes.
        """
        numbers = {name: number for number, name in enumerate(self.classes)}
        draws = [
            np.random.default_rng((self.seed, epoch, self.first_lane + lane))
            for lane in range(len(self.lanes))
        ]
        streams = [
            shuffled_rows(lane, draw, self.buffer_rows) if self.shuffle else lane_rows(lane)
            for lane, draw in zip(self.lanes, draws, strict=True)
        ]
        for rows in zip(*streams, strict=True):
            mirrored = [self.flip and bool(draw.integers(2)) for draw in draws]
            yield assemble(rows, numbers, self.size, mirrored)

    def dataset(self, epochs: range) -> Any:
        """Return the batches of these epochs in turn, as a prefetching `tf.data.Dataset`."""
        import tensorflow as tf

        n, image = len(self.lanes), (self.size, self.size, 1)
        kinds = Batch(tf.uint8, tf.uint8, tf.float32, tf.int32, tf.float32)
        shapes = Batch((n, *image), (n, *image), (n,), (n,), (n,))  # type: ignore[arg-type]
        source = chain.from_iterable(self.batches(epoch) for epoch in epochs)

        def read(_: Any) -> Any:
            found = tf.numpy_function(lambda: tuple(next(source)), [], list(kinds))
            for tensor, shape in zip(found, shapes, strict=True):
                tensor.set_shape(shape)
            return Batch(*found)

        options = tf.data.Options()
        # Nothing here is left to tune; and the tuner's thread, once it sleeps for long, holds up
        # the end of an iterator for 20 s and more (TensorFlow 2.21).
        options.autotune.enabled = False
        steps = len(epochs) * steps_of(self.lanes)
        return tf.data.Dataset.range(steps).map(read).prefetch(PREFETCH).with_options(options)


def slice_rows(part: RowSlice) -> Iterator[Row]:
    """Read one slice, a few rows at a time."""
    import pyarrow.parquet as pq

    storage, path = locate(part.uri)
    with storage.open(path) as stream:
        file = pq.ParquetFile(stream, buffer_size=READ_BYTES)
        position = 0
        for batch in file.iter_batches(READ_ROWS, [part.row_group], columns=list(COLUMNS)):
            low, high = max(part.start - position, 0), min(part.stop - position, batch.num_rows)
            position += batch.num_rows
            if low < high:
                columns = (batch.column(name).slice(low, high - low) for name in COLUMNS)
                weight = 0.0 if part.repeat else 1.0
                for pixels, mask, label in zip(*(c.to_pylist() for c in columns), strict=True):
                    yield Row(pixels, mask, label, weight)
            if position >= part.stop:
                return


def lane_rows(lane: Lane) -> Iterator[Row]:
    """Read a lane in file order."""
    for part in lane:
        yield from slice_rows(part)


def shuffled_rows(lane: Lane, draw: np.random.Generator, size: int) -> Iterator[Row]:
    """Read a lane's slices in random order, through a shuffle buffer of `size` rows."""
    buffer: list[Row] = []
    for row in lane_rows(tuple(lane[int(i)] for i in draw.permutation(len(lane)))):
        if len(buffer) < size:
            buffer.append(row)
            continue
        place = int(draw.integers(size))
        yield buffer[place]
        buffer[place] = row
    yield from (buffer[int(i)] for i in draw.permutation(len(buffer)))


def assemble(
    rows: Sequence[Row], numbers: dict[str, int], size: int, mirrored: Sequence[bool]
) -> Batch:
    """Decode rows into one batch; `mirrored` ones are flipped left to right, mask and image."""
    n = len(rows)
    pixels = np.empty((n, size, size, 1), np.uint8)
    masks = np.zeros((n, size, size, 1), np.uint8)
    for i, (row, mirror) in enumerate(zip(rows, mirrored, strict=True)):
        step = -1 if mirror else 1
        if len(row.pixels) != size * size:
            raise InputError(
                f"the table holds an image of {len(row.pixels)} pixels, wanted {size}x{size}"
            )
        image = np.frombuffer(row.pixels, np.uint8).reshape(size, size)
        pixels[i, :, :, 0] = image[:, ::step]
        if row.mask is not None:
            mask = decode_mask(row.mask)
            if mask.shape != (size, size):
                raise InputError(f"the table holds a mask of {mask.shape}, wanted {size}x{size}")
            masks[i, :, :, 0] = mask[:, ::step]
        if row.label not in numbers:
            raise InputError(f"the table holds the label {row.label!r}, not in {list(numbers)}")
    return Batch(
        pixels,
        masks,
        np.array([row.mask is not None for row in rows], np.float32),
        np.array([numbers[row.label] for row in rows], np.int32),
        np.array([row.weight for row in rows], np.float32),
    )
