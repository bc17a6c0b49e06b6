"""Rows of a table as batches: a `tf.data` pipeline in bounded memory.

The descendant of `MultiTaskDataGenerator`. It reads the table `features`, or reads `images` and
computes their features. Order and flips are drawn per lane from (seed, epoch, lane), so any epoch
of any lane can be replayed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import InputError
from eagle_spark.imaging.mask import decode_mask
from eagle_spark.io import resolve
from eagle_spark.model.backbone import BackboneEngine, Features
from eagle_spark.model.network import STATISTICS_COUNT, TAPS
from eagle_spark.training.plan import COPIES, Lane, RankLanes, RowSlice, count_steps

if TYPE_CHECKING:
    import tensorflow as tf

READ_ROWS = 16  # rows decoded at a time by each lane
BUFFER_ROWS = 1024  # encoded rows in the shuffle buffers of all lanes together
READ_BYTES = 1 << 20
PREFETCH = 2  # batches
STATISTICS_ROWS = 64  # images per call of the backbone

FEATURE_COLUMNS = (*TAPS, "mask", "copy")
PIXEL_COLUMNS = ("pixels", "mask")
LABEL_COLUMNS = ("label", "source")

Row = dict[str, Any]  # of a table: bytes, text and numbers


class Batch(NamedTuple):
    """The rows of one rank in one step.

    Attributes:
        taps: float16 `(n, height, width, channels)` of each tap.
        masks: uint8, 0 or 1, `(n, size, size, 1)`; zeros for rows without a mask.
        weights: float32 `(n,)`; 0 for rows without a mask and rows that only fill the batch.
    """

    taps: dict[str, NDArray[np.float16]]
    masks: NDArray[np.uint8]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class BatchGenerator:
    """Generates the batches of one rank.

    Attributes:
        lanes: this rank's lanes.
        first_lane: the number of its first lane among all lanes.
        batch: the number of lanes of all ranks.
        size: pixels per side.
        seed: of the shuffles and flips.
        shuffle: draw another order in each epoch.
        engine: backbone that computes features of `images`; None for rows of `features`.
        flip: mirror half of the images; only with an engine.
    """

    lanes: RankLanes
    first_lane: int
    batch: int
    size: int
    seed: int
    shuffle: bool
    engine: BackboneEngine | None = field(default=None, compare=False)
    flip: bool = False

    @property
    def buffer_rows(self) -> int:
        """Rows in one lane's shuffle buffer; the same for any number of ranks."""
        return max(READ_ROWS, BUFFER_ROWS // self.batch)

    @property
    def columns(self) -> tuple[str, ...]:
        return PIXEL_COLUMNS if self.engine else FEATURE_COLUMNS

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches from number `first` on; a batch has one row of each lane.

        Raises:
            InputError: when a row is not of `size`.
        """
        rngs = [
            np.random.default_rng((self.seed, epoch, self.first_lane + lane))
            for lane in range(len(self.lanes))
        ]
        streams = [
            read_shuffled(lane, self.columns, rng, self.buffer_rows)
            if self.shuffle
            else read_lane(lane, self.columns)
            for lane, rng in zip(self.lanes, rngs, strict=True)
        ]
        for number, rows in enumerate(zip(*streams, strict=True)):
            mirrored = [self.flip and bool(rng.integers(2)) for rng in rngs]
            if number < first:
                continue
            if self.engine:
                rows = compute_features(self.engine, rows, mirrored, self.size)
            yield decode_batch(rows, self.size)

    def dataset(self, first: int, epochs: range) -> tf.data.Dataset:
        """Return the batches of these epochs in turn, prefetched.

        Args:
            first: number of the batch that the first epoch begins with.
        """
        import tensorflow as tf

        n = len(self.lanes)
        dtypes = Batch(dict.fromkeys(TAPS, tf.float16), tf.uint8, tf.float32)
        shapes = [(n, *TAPS[name].shape(self.size)) for name in sorted(TAPS)]
        shapes += [(n, self.size, self.size, 1)]
        source = chain.from_iterable(
            self.batches(epoch, first if epoch == epochs.start else 0) for epoch in epochs
        )

        def read(_: tf.Tensor) -> Batch:
            flat = tf.nest.flatten(dtypes)
            tensors = tf.numpy_function(lambda: tf.nest.flatten(next(source)), [], flat)
            for tensor, shape in zip(tensors, [*shapes, (n,)], strict=True):
                tensor.set_shape(shape)
            batch: Batch = tf.nest.pack_sequence_as(dtypes, tensors)
            return batch

        options = tf.data.Options()
        # There is nothing to tune, and the tuner's thread, once it sleeps for long, delays the end
        # of an iterator by 20 s and more (TensorFlow 2.21).
        options.autotune.enabled = False
        steps = len(epochs) * count_steps(self.lanes) - first
        return tf.data.Dataset.range(steps).map(read).prefetch(PREFETCH).with_options(options)


class Samples(NamedTuple):
    """Samples of the class head.

    Attributes:
        statistics: float32 `(n, STATISTICS_COUNT)`.
        labels: int64 `(n,)`, class numbers.
        weights: float64 `(n,)`, of each row in the loss.
    """

    statistics: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]


def read_samples(
    lane: Lane,
    classes: Sequence[str],
    row_weights: Mapping[tuple[str, str], float],
    engine: BackboneEngine | None,
    size: int,
    copies: int = COPIES,
    tick: Callable[[], object] = lambda: None,
) -> Samples:
    """Read the samples of the class head into memory.

    Args:
        lane: rows of `features`; with an engine rows of `images`.
        row_weights: (source, class) -> weight of a row.
        engine: backbone that computes the statistics of `images`.
        copies: of each image that the engine computes: 1 is the original, 2 adds the mirrored one.
        tick: called after each call of the engine.

    Raises:
        InputError: when a row is not of `size`, or its label is not among the classes.
    """
    rows: Iterable[Row] = read_lane(lane, ("statistics", *LABEL_COLUMNS))
    if engine:
        images = read_lane(lane, ("pixels", *LABEL_COLUMNS))
        rows = _computed_features(engine, images, size, copies, tick)
    return to_samples(rows, classes, row_weights)


def to_samples(
    rows: Iterable[Row], classes: Sequence[str], row_weights: Mapping[tuple[str, str], float]
) -> Samples:
    """Return rows of `statistics`, `label` and `source` as samples of the class head.

    Raises:
        InputError: when a row does not have `STATISTICS_COUNT` values, or an unknown label.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    statistics: list[NDArray[np.float16]] = []
    labels: list[int] = []
    weights: list[float] = []
    for row in rows:
        if row["label"] not in numbers:
            raise InputError(f"the table holds the label {row['label']!r}, not in {list(numbers)}")
        statistics.append(_decode_array(row["statistics"], (1, STATISTICS_COUNT), "statistics"))
        labels.append(numbers[row["label"]])
        weights.append(row_weights.get((row["source"], row["label"]), 1.0))
    table = np.concatenate(statistics or [np.zeros((0, STATISTICS_COUNT), np.float16)])
    return Samples(
        table.astype(np.float32), np.array(labels, np.int64), np.array(weights, np.float64)
    )


def _computed_features(
    engine: BackboneEngine, rows: Iterator[Row], size: int, copies: int, tick: Callable[[], object]
) -> Iterator[Row]:
    """Yield rows of `images`, and their copies, with statistics that the engine computes."""
    while chunk := list(islice(rows, STATISTICS_ROWS)):
        for copy in range(copies):
            features = engine.compute_features(
                _decode_pixels(chunk, [copy == 1] * len(chunk), size)
            )
            for row, values in zip(chunk, features["statistics"].astype(np.float16), strict=True):
                yield {**row, "statistics": values.tobytes()}
            tick()


def read_slice(part: RowSlice, columns: Sequence[str]) -> Iterator[Row]:
    """Read one slice, a few rows at a time; each row also holds `weight`."""
    import pyarrow.parquet as pq

    storage, path = resolve(part.uri)
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


def read_lane(lane: Lane, columns: Sequence[str]) -> Iterator[Row]:
    """Read a lane in file order."""
    for part in lane:
        yield from read_slice(part, columns)


def read_shuffled(
    lane: Lane, columns: Sequence[str], rng: np.random.Generator, size: int
) -> Iterator[Row]:
    """Read a lane's slices in random order, through a shuffle buffer of `size` rows."""
    buffer: list[Row] = []
    for row in read_lane(tuple(lane[int(i)] for i in rng.permutation(len(lane))), columns):
        if len(buffer) < size:
            buffer.append(row)
            continue
        index = int(rng.integers(size))
        yield buffer[index]
        buffer[index] = row
    yield from (buffer[int(i)] for i in rng.permutation(len(buffer)))


def compute_features(
    engine: BackboneEngine, rows: Sequence[Row], mirrored: Sequence[bool], size: int
) -> tuple[Row, ...]:
    """Turn rows of `images` into rows of `features`; rows without a mask get no taps.

    Args:
        mirrored: whether each image is mirrored.
    """
    masked = [i for i, row in enumerate(rows) if row["mask"] is not None]
    features: Features = {}
    if masked:
        images = [rows[i] for i in masked]
        features = engine.compute_features(
            _decode_pixels(images, [mirrored[i] for i in masked], size)
        )
    result = [
        {"mask": row["mask"], "copy": int(mirror), "weight": row["weight"]}
        for row, mirror in zip(rows, mirrored, strict=True)
    ]
    for index, i in enumerate(masked):
        result[i] |= {name: features[name][index].astype(np.float16).tobytes() for name in TAPS}
    return tuple(result)


def decode_batch(rows: Sequence[Row], size: int) -> Batch:
    """Decode rows of `features` into one batch; masks of mirrored copies are mirrored."""
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
        for name, tap in taps.items():
            tap[i] = _decode_array(row[name], tap.shape[1:], name)
    return Batch(taps, masks, weights)


def _decode_array(data: bytes, shape: tuple[int, ...], name: str) -> NDArray[np.float16]:
    values = np.frombuffer(data, np.float16)
    if values.size != np.prod(shape):
        raise InputError(f"the table holds {values.size} values of {name}, wanted {shape}")
    return values.reshape(shape)


def _decode_pixels(rows: Sequence[Row], mirrored: Sequence[bool], size: int) -> NDArray[np.uint8]:
    pixels = np.empty((len(rows), size, size), np.uint8)
    for i, (row, mirror) in enumerate(zip(rows, mirrored, strict=True)):
        if len(row["pixels"]) != size * size:
            raise InputError(
                f"the table holds an image of {len(row['pixels'])} pixels, wanted {size}x{size}"
            )
        image = np.frombuffer(row["pixels"], np.uint8).reshape(size, size)
        pixels[i] = image[:, :: -1 if mirror else 1]
    return pixels
