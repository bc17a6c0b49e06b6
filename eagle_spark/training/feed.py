"""Rows of a table as batches: a `tf.data` pipeline in bounded memory.

The descendant of `MultiTaskDataGenerator`. It reads the table `features`, or `images` and asks the
backbone itself. What is random (order, flips) is drawn per lane from (seed, epoch, lane), so any
epoch of any lane can be replayed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import InputError
from eagle_spark.imaging.mask import decode_mask
from eagle_spark.io import locate
from eagle_spark.model.backbone import BackboneEngine, Features
from eagle_spark.model.network import STATISTICS, TAPS
from eagle_spark.training.features import COPIES
from eagle_spark.training.plan import Lane, RankRows, RowSlice, steps_of

READ_ROWS = 16  # rows decoded at a time by each lane
BUFFER_ROWS = 1024  # rows that wait, still coded, in the shuffle buffers of all lanes together
READ_BYTES = 1 << 20
PREFETCH = 2  # batches
STATISTICS_ROWS = 64  # images that the backbone is asked about at a time

FEATURE_COLUMNS = (*TAPS, "mask", "copy")
PIXEL_COLUMNS = ("pixels", "mask")
LABEL_COLUMNS = ("label", "source")

Row = dict[str, Any]


class Batch(NamedTuple):
    """The rows of one rank in one step.

    Attributes:
        taps: float16 `(n, height, width, channels)` of each tap.
        masks: uint8, 0 or 1, `(n, size, size, 1)`; zeros where there is none.
        weights: float32 `(n,)`; 0 for rows without a mask and rows that only fill the batch.
    """

    taps: dict[str, NDArray[np.float16]]
    masks: NDArray[np.uint8]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Feed:
    """Where batches come from.

    Attributes:
        lanes: this rank's lanes.
        first_lane: the number of its first lane among all lanes.
        batch: the number of lanes of all ranks.
        size: pixels per side.
        seed: of the shuffles and flips.
        shuffle: draw another order in each epoch.
        engine: what makes features of `images`; None where the rows are of `features`.
        flip: mirror half of the images; only where there is an engine.
    """

    lanes: RankRows
    first_lane: int
    batch: int
    size: int
    seed: int
    shuffle: bool
    engine: BackboneEngine | None = field(default=None, compare=False)
    flip: bool = False

    @property
    def buffer_rows(self) -> int:
        """Rows in one lane's shuffle buffer; of the whole batch, so the same for any ranks."""
        return max(READ_ROWS, BUFFER_ROWS // self.batch)

    @property
    def columns(self) -> tuple[str, ...]:
        return PIXEL_COLUMNS if self.engine else FEATURE_COLUMNS

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches from number `first` on, one row of each lane in each.

        Raises:
            InputError: when a row is not of `size`.
        """
        draws = [
            np.random.default_rng((self.seed, epoch, self.first_lane + lane))
            for lane in range(len(self.lanes))
        ]
        streams = [
            shuffled_rows(lane, self.columns, draw, self.buffer_rows)
            if self.shuffle
            else lane_rows(lane, self.columns)
            for lane, draw in zip(self.lanes, draws, strict=True)
        ]
        for number, rows in enumerate(zip(*streams, strict=True)):
            mirrored = [self.flip and bool(draw.integers(2)) for draw in draws]
            if number < first:
                continue
            if self.engine:
                rows = ask(self.engine, rows, mirrored, self.size)
            yield assemble(rows, self.size)

    def dataset(self, first: int, epochs: range) -> Any:
        """Return the batches of these epochs in turn, the first one's from number `first` on.

        As a prefetching `tf.data.Dataset`.
        """
        import tensorflow as tf

        n = len(self.lanes)
        kinds = Batch(dict.fromkeys(TAPS, tf.float16), tf.uint8, tf.float32)
        shapes = [(n, *TAPS[name].shape(self.size)) for name in sorted(TAPS)]
        shapes += [(n, self.size, self.size, 1)]
        source = chain.from_iterable(
            self.batches(epoch, first if epoch == epochs.start else 0) for epoch in epochs
        )

        def read(_: Any) -> Any:
            flat = tf.nest.flatten(kinds)
            found = tf.numpy_function(lambda: tf.nest.flatten(next(source)), [], flat)
            for tensor, shape in zip(found, [*shapes, (n,)], strict=True):
                tensor.set_shape(shape)
            return tf.nest.pack_sequence_as(kinds, found)

        options = tf.data.Options()
        # Nothing here is left to tune; and the tuner's thread, once it sleeps for long, holds up
        # the end of an iterator for 20 s and more (TensorFlow 2.21).
        options.autotune.enabled = False
        steps = len(epochs) * steps_of(self.lanes) - first
        return tf.data.Dataset.range(steps).map(read).prefetch(PREFETCH).with_options(options)


class Labelled(NamedTuple):
    """What the class head reads.

    Attributes:
        statistics: float32 `(n, STATISTICS)`.
        labels: int64 `(n,)`, numbers in the order of the classes.
        weights: float64 `(n,)`, of each row in the loss.
    """

    statistics: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]


def read_labelled(
    lane: Lane,
    classes: Sequence[str],
    row_weights: Mapping[tuple[str, str], float],
    engine: BackboneEngine | None,
    size: int,
    copies: int = COPIES,
    tick: Callable[[], object] = lambda: None,
) -> Labelled:
    """Read the rows of the class head into memory; with an engine they are `images`, and asked.

    Args:
        copies: of each image: as it is, and mirrored; what an engine is asked about.
        tick: called after each piece of work.

    Raises:
        InputError: when a row is not of `size`, or its label is not among the classes.
    """
    rows: Iterable[Row] = lane_rows(lane, ("statistics", *LABEL_COLUMNS))
    if engine:
        rows = _asked(engine, lane_rows(lane, ("pixels", *LABEL_COLUMNS)), size, copies, tick)
    return label_rows(rows, classes, row_weights)


def label_rows(
    rows: Iterable[Row], classes: Sequence[str], row_weights: Mapping[tuple[str, str], float]
) -> Labelled:
    """Return rows of `statistics`, `label` and `source` as the class head reads them.

    Raises:
        InputError: when the statistics are not as many as wanted, or a label is not of the classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    statistics: list[NDArray[np.float16]] = []
    labels: list[int] = []
    weights: list[float] = []
    for row in rows:
        if row["label"] not in numbers:
            raise InputError(f"the table holds the label {row['label']!r}, not in {list(numbers)}")
        statistics.append(_array(row["statistics"], (1, STATISTICS), "statistics"))
        labels.append(numbers[row["label"]])
        weights.append(row_weights.get((row["source"], row["label"]), 1.0))
    found = np.concatenate(statistics or [np.zeros((0, STATISTICS), np.float16)])
    return Labelled(
        found.astype(np.float32), np.array(labels, np.int64), np.array(weights, np.float64)
    )


def _asked(
    engine: BackboneEngine, rows: Iterator[Row], size: int, copies: int, tick: Callable[[], object]
) -> Iterator[Row]:
    """Yield rows of `images`, and their copies, with the statistics that the engine gives."""
    while some := list(islice(rows, STATISTICS_ROWS)):
        for copy in range(copies):
            found = engine.features(_pixels(some, [copy == 1] * len(some), size))
            for row, values in zip(some, found["statistics"].astype(np.float16), strict=True):
                yield {**row, "statistics": values.tobytes()}
            tick()


def slice_rows(part: RowSlice, columns: Sequence[str]) -> Iterator[Row]:
    """Read one slice, a few rows at a time; each row also holds `weight`."""
    import pyarrow.parquet as pq

    storage, path = locate(part.uri)
    with storage.open(path) as stream:
        file = pq.ParquetFile(stream, buffer_size=READ_BYTES)
        position = 0
        for batch in file.iter_batches(READ_ROWS, [part.row_group], columns=list(columns)):
            low, high = max(part.start - position, 0), min(part.stop - position, batch.num_rows)
            position += batch.num_rows
            if low < high:
                for row in batch.slice(low, high - low).to_pylist():
                    yield {**row, "weight": 0.0 if part.repeat else 1.0}
            if position >= part.stop:
                return


def lane_rows(lane: Lane, columns: Sequence[str]) -> Iterator[Row]:
    """Read a lane in file order."""
    for part in lane:
        yield from slice_rows(part, columns)


def shuffled_rows(
    lane: Lane, columns: Sequence[str], draw: np.random.Generator, size: int
) -> Iterator[Row]:
    """Read a lane's slices in random order, through a shuffle buffer of `size` rows."""
    buffer: list[Row] = []
    for row in lane_rows(tuple(lane[int(i)] for i in draw.permutation(len(lane))), columns):
        if len(buffer) < size:
            buffer.append(row)
            continue
        place = int(draw.integers(size))
        yield buffer[place]
        buffer[place] = row
    yield from (buffer[int(i)] for i in draw.permutation(len(buffer)))


def ask(
    engine: BackboneEngine, rows: Sequence[Row], mirrored: Sequence[bool], size: int
) -> tuple[Row, ...]:
    """Turn rows of `images` into rows of `features`; those without a mask are not asked about."""
    masked = [i for i, row in enumerate(rows) if row["mask"] is not None]
    found: Features = {}
    if masked:
        some = [rows[i] for i in masked]
        found = engine.features(_pixels(some, [mirrored[i] for i in masked], size))
    asked = [
        {"mask": row["mask"], "copy": int(mirror), "weight": row["weight"]}
        for row, mirror in zip(rows, mirrored, strict=True)
    ]
    for place, i in enumerate(masked):
        asked[i] |= {name: found[name][place].astype(np.float16).tobytes() for name in TAPS}
    return tuple(asked)


def assemble(rows: Sequence[Row], size: int) -> Batch:
    """Decode rows of `features` into one batch; the mask is mirrored as its copy is."""
    n = len(rows)
    taps = {name: np.zeros((n, *tap.shape(size)), np.float16) for name, tap in TAPS.items()}
    masks = np.zeros((n, size, size, 1), np.uint8)
    weights = np.zeros(n, np.float32)
    for i, row in enumerate(rows):
        if row["mask"] is None:
            continue
        mask = decode_mask(row["mask"])
        if mask.shape != (size, size):
            raise InputError(f"the table holds a mask of {mask.shape}, wanted {size}x{size}")
        masks[i, :, :, 0] = mask[:, :: -1 if row["copy"] else 1]
        weights[i] = row["weight"]
        for name, into in taps.items():
            into[i] = _array(row[name], into.shape[1:], name)
    return Batch(taps, masks, weights)


def _array(data: bytes, shape: tuple[int, ...], name: str) -> NDArray[np.float16]:
    found = np.frombuffer(data, np.float16)
    if found.size != np.prod(shape):
        raise InputError(f"the table holds {found.size} values of {name}, wanted {shape}")
    return found.reshape(shape)


def _pixels(rows: Sequence[Row], mirrored: Sequence[bool], size: int) -> NDArray[np.uint8]:
    pixels = np.empty((len(rows), size, size), np.uint8)
    for i, (row, mirror) in enumerate(zip(rows, mirrored, strict=True)):
        if len(row["pixels"]) != size * size:
            raise InputError(
                f"the table holds an image of {len(row['pixels'])} pixels, wanted {size}x{size}"
            )
        image = np.frombuffer(row["pixels"], np.uint8).reshape(size, size)
        pixels[i] = image[:, :: -1 if mirror else 1]
    return pixels
