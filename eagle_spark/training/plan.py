"""Rows of each rank: equal steps on every rank, the same global batches for any number of ranks.

The rows of a split, in file order, are cut into as many equal *lanes* as the global batch has rows.
Step k takes one row of each lane; rank r owns lanes r*b to (r+1)*b, b = batch/ranks. So a batch
never depends on the number of ranks, every rank does the same steps, and a table sorted by class
still gives mixed batches. Rows that fill the last lanes are repeats from the beginning; they carry
weight 0, so that every row counts exactly once per epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eagle_spark.errors import InputError, SettingsError
from eagle_spark.io import resolve
from eagle_spark.training.frozen import Backbone
from eagle_spark.training.pair_norm import PAIR
from eagle_spark.training.ranks.watchdog import STALL_SECONDS

LABEL_ROWS = 100_000  # at most; the class head holds them in memory, 8 kB each
CHECKPOINT_STEPS = 100
COPIES = 2  # of an image of the train split: original and mirrored


@dataclass(frozen=True)
class RowGroup:
    """One row group of one Parquet file: its number in the file and its rows."""

    uri: str
    index: int
    rows: int


@dataclass(frozen=True)
class RowSlice:
    """Rows `start` (inclusive) to `stop` (exclusive) of a row group.

    Attributes:
        repeat: whether another slice holds these rows, too, and these only fill a lane.
    """

    uri: str
    row_group: int
    start: int
    stop: int
    repeat: bool = False

    @property
    def rows(self) -> int:
        return self.stop - self.start


Lane = tuple[RowSlice, ...]
RankLanes = tuple[Lane, ...]


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split.

    Attributes:
        masks: lanes of each rank, from `plan_rows`; the mask head reads them step by step.
        labels: rows of each rank, from `share_rows`; the class head reads them once.
    """

    masks: tuple[RankLanes, ...]
    labels: tuple[Lane, ...]


@dataclass(frozen=True)
class TrainPlan:
    """The settings of a training run; made on the driver, sent to every rank.

    Attributes:
        training: rows of the train split.
        validation: rows of the val split; its lanes are empty when the split is.
        cached: whether the rows are of the table `features`, else of `images`.
        classes: class names in the order of the label head.
        row_weights: (source, class) -> weight of one such row in the loss of the class head.
        backbone: computes features of pixels.
        batch: rows per step over all ranks.
        staging: URI of a new folder that all ranks reach; holds `rank-<i>.json` and `heads.npz`.
        checkpoints: URI of the folder that rank 0 writes its state to.
        threads: TensorFlow threads per rank.
        stall: seconds without a step after which a rank is abandoned.
        start: URI of the checkpoint to resume from; None for the beginning.
        learning_rate: the peak, after the warm-up.
        checkpoint_steps: steps from one checkpoint to the next; one more follows each epoch. The
            last bits of the weights depend on it: ranks average their moving statistics then.
        use_gpu: whether TensorFlow uses the GPUs that Spark assigned to the task.
    """

    training: SplitRows
    validation: SplitRows
    cached: bool
    classes: tuple[str, ...]
    row_weights: Mapping[tuple[str, str], float]
    backbone: Backbone
    batch: int
    epochs: int
    seed: int
    staging: str
    checkpoints: str
    threads: int
    stall: float = STALL_SECONDS
    start: str | None = None
    learning_rate: float = 5e-3
    checkpoint_steps: int = CHECKPOINT_STEPS
    use_gpu: bool = False

    @property
    def ranks(self) -> int:
        return len(self.training.masks)

    @property
    def size(self) -> int:
        """Pixels per side of the images in the table and of the model."""
        return self.backbone.size

    @property
    def steps(self) -> int:
        """Steps of the mask head in one epoch, equal on every rank."""
        return count_steps(self.training.masks[0])

    @property
    def label_rows(self) -> int:
        """Rows that the class head is trained on, over all ranks."""
        rows = sum(part.rows for lane in self.training.labels for part in lane)
        return rows if self.cached else COPIES * rows


def count_steps(lanes: RankLanes) -> int:
    """Return the number of steps in the lanes of a rank."""
    return sum(part.rows for part in lanes[0])


def read_footers(uris: Iterable[str], columns: Iterable[str]) -> list[RowGroup]:
    """Read the row groups of Parquet files from their footers, in the order of `uris`.

    Raises:
        InputError: when a file is no Parquet, or has not all columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = []
    for uri in uris:
        storage, path = resolve(uri)
        with storage.open(path) as stream:
            try:
                file = pq.ParquetFile(stream)
            except pa.ArrowInvalid as error:
                raise InputError(f"{uri}: not a Parquet file: {error}") from error
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f"{uri}: columns are missing: {', '.join(missing)}")
            groups += [
                RowGroup(uri, index, file.metadata.row_group(index).num_rows)
                for index in range(file.metadata.num_row_groups)
            ]
    return groups


def plan_rows(row_groups: Sequence[RowGroup], ranks: int, batch: int) -> tuple[RankLanes, ...]:
    """Split rows over `ranks`, by the rule in the docstring of this module.

    Args:
        batch: rows per step over all ranks.

    Returns:
        For each rank its `batch / ranks` lanes. All lanes hold the same number of rows,
        ceil(rows / batch).

    Raises:
        SettingsError: when `batch` is no multiple of `PAIR` times `ranks`.
    """
    _check_batch(ranks, batch)
    total = sum(group.rows for group in row_groups)
    steps = -(-total // batch)
    lanes = [
        tuple(_cut_slices(row_groups, total, lane * steps, (lane + 1) * steps))
        for lane in range(batch)
    ]
    share = batch // ranks
    return tuple(tuple(lanes[rank * share : (rank + 1) * share]) for rank in range(ranks))


def share_rows(row_groups: Sequence[RowGroup], ranks: int) -> tuple[Lane, ...]:
    """Split the first `LABEL_ROWS` rows over the ranks, as equally as possible.

    The order of rows does not depend on the content of their images, so the first rows are a
    sample of all.
    """
    total = min(sum(group.rows for group in row_groups), LABEL_ROWS)
    edges = [total * rank // ranks for rank in range(ranks + 1)]
    return tuple(tuple(_cut_slices(row_groups, total, low, high)) for low, high in pairwise(edges))


def class_source_weights(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], float]:
    """Return (source, class) -> weight of a row: one over the square root of its images.

    A compromise between equal rows and equal groups, both of which were measured beside it: small
    sources count, and large ones are not lost. The weights of all rows sum up to their number.

    Args:
        counts: (source, class) -> images.
    """
    raw = {key: count**-0.5 for key, count in counts.items() if count}
    mean = sum(raw[key] * counts[key] for key in raw) / sum(counts.values())
    return {key: weight / mean for key, weight in raw.items()}


def _check_batch(ranks: int, batch: int) -> None:
    if ranks < 1 or batch < 1 or batch % (PAIR * ranks):
        raise SettingsError(
            f"`batch_size`: wanted a multiple of {PAIR * ranks}, {PAIR} images for each of the "
            f"{ranks} ranks, got {batch}"
        )


def _cut_slices(
    groups: Sequence[RowGroup], total: int, start: int, stop: int
) -> Iterator[RowSlice]:
    """Yield the slices of rows `start` to `stop`; after row `total` the rows repeat."""
    position = 0
    while start < stop:
        offset = position  # first row of this pass over all groups
        for group in groups:
            low, high = max(start, offset), min(stop, offset + group.rows)
            if low < high:
                yield RowSlice(group.uri, group.index, low - offset, high - offset, position > 0)
                start = high
            offset += group.rows
        position += total


def check_batch_fits(rows: int, ranks: int, batch: int) -> None:
    """Check the batch against the ranks and the masks of the train split.

    Args:
        rows: images of the train split with a mask.

    Raises:
        InputError: when they do not fill one batch.
        SettingsError: when `batch` is no multiple of `PAIR` times `ranks`.
    """
    _check_batch(ranks, batch)
    if rows < batch:
        raise InputError(
            f"the train split holds {rows} images with a mask, fewer than one batch of {batch} "
            f"({ranks} ranks x {batch // ranks}); lower `batch_size` or add images"
        )
