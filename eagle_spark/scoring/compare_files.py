"""The comparison of a listing with the data files of `predictions`, by tasks of workers, no SQL.

Paths are shared out to buckets by a hash. A first round of tasks writes listed files and rows by
bucket, a second one compares each bucket: none holds more than about `BUCKET_ROWS`, however many
images are known. Where all are one bucket there is no first round. Paths and positions go through
files of the staging folder; the driver receives counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eagle_spark.errors import AuditError
from eagle_spark.io import join
from eagle_spark.scoring.compare import (
    ENTRIES,
    KNOWN_COLUMNS,
    Group,
    Retry,
    Size,
    assign_buckets,
    compare,
    convert_known,
    convert_listed,
    merge_groups,
)
from eagle_spark.scoring.listing import LISTING
from eagle_spark.scoring.regroup import read_group, write_groups
from eagle_spark.scoring.slices import Piece, Slice, count_slice, read_slice, write_piece
from eagle_spark.spark.tasks import run_tasks
from eagle_spark.tables.data_files import DataFileRef, read_batches

if TYPE_CHECKING:
    from pyspark import SparkContext

BUCKET_ROWS = 250_000
"""Of a bucket, listed files and rows together: 150 MB of a worker, with paths of 50 bytes."""
SHARE_BYTES = 2**28  # of long paths
POSITIONS = pa.schema([ENTRIES.field("position")])


@dataclass(frozen=True)
class Known:
    """The rows that a listing is compared with. Picklable.

    Attributes:
        schema: of the table, with field ids.
        model_id: of the rows.
        retry: rejected rows that are computed again.
        prefix: of all listed paths; files without rows of such a path may have been left out.
    """

    schema: pa.Schema
    model_id: str
    retry: Retry
    prefix: str


@dataclass(frozen=True)
class ListedPart:
    """A part of the listing.

    Attributes:
        number: from 0.
        piece: its rows, of `LISTING`.
    """

    number: int
    piece: Piece


Source = ListedPart | DataFileRef


@dataclass(frozen=True)
class Place:
    """Where the tasks of a comparison write. Picklable.

    Attributes:
        parts: number of parts of the listing.
        folder: URI.
    """

    parts: int
    folder: str


@dataclass(frozen=True)
class Left:
    """Where the positions of the listed files without a valid row are.

    Attributes:
        positions: URIs of files of `write_groups`, each with one group for each part of the
            listing.
        parts: the parts of the listing that have such files.
    """

    positions: tuple[str, ...]
    parts: tuple[ListedPart, ...]


@dataclass(frozen=True)
class FileDiff:
    """A listing compared with data files.

    Attributes:
        groups: paths that are listed and have a row.
        outdated: URIs of Parquet files with a column `path`: the paths of the outdated groups.
        left: listed files without a valid row.
    """

    groups: Mapping[Group, Size]
    outdated: tuple[str, ...]
    left: Left


@dataclass(frozen=True)
class BucketReport:
    """Report of a task on a bucket.

    Attributes:
        groups: of the bucket.
        outdated: URI of the paths of the outdated groups; None without any.
        positions: URI of the positions of listed files without a valid row; None without any.
        is_left: whether there are any, for each part of the listing.
    """

    groups: Mapping[Group, Size]
    outdated: str | None
    positions: str | None
    is_left: NDArray[np.bool_]


def diff_against_files(
    context: SparkContext,
    parts: Slice,
    files: Sequence[DataFileRef],
    known: Known,
    folder: str,
    bucket_rows: int = BUCKET_ROWS,
) -> FileDiff:
    """Compare a listing with the rows of a model in data files.

    Args:
        context: of Spark.
        parts: the listing.
        files: that may hold rows of the model.
        known: the rows in these files.
        folder: URI, for files between the tasks; is created.
        bucket_rows: rows of a bucket.

    Raises:
        InputError: in a task, when a data file cannot be read.
        AuditError: in a task, when a listed path has another prefix than that of `known`.
    """
    listed = [ListedPart(number, piece) for number, piece in enumerate(parts)]
    sources: list[Source] = [*listed, *files]
    buckets = -(-(count_slice(parts) + sum(file.rows for file in files)) // bucket_rows)
    place = Place(len(listed), folder)
    if buckets <= 1:
        reports = run_tasks(context, [sources], partial(_compare_sources, known=known, place=place))
    else:
        shares = list(enumerate(_share_out(sources, bucket_rows)))
        scatter = partial(_scatter, known=known, folder=folder, buckets=buckets, rows=bucket_rows)
        uris = [uri for share in run_tasks(context, shares, scatter) for uri in share]
        reports = run_tasks(
            context, range(buckets), partial(_compare_bucket, uris=uris, place=place)
        )
    is_left = np.any([report.is_left for report in reports], axis=0)
    return FileDiff(
        merge_groups(report.groups for report in reports),
        tuple(report.outdated for report in reports if report.outdated),
        Left(
            tuple(report.positions for report in reports if report.positions),
            tuple(part for part in listed if is_left[part.number]),
        ),
    )


def write_left(context: SparkContext, left: Left, folder: str) -> Slice:
    """Write the listed files without a valid row to Parquet parts below `folder`.

    Returns:
        The rows of these parts, of `LISTING`, in the order of the listing.
    """
    write = partial(_write_left_part, positions=left.positions, folder=folder)
    return tuple(run_tasks(context, left.parts, write))


def read_entries(sources: Iterable[Source], known: Known) -> Iterator[pa.Table]:
    """Yield `ENTRIES` of parts of a listing and of data files, some thousands at a time."""
    for source in sources:
        if isinstance(source, DataFileRef):
            for batch in read_batches(source, KNOWN_COLUMNS, known.schema):
                yield convert_known(batch, known.model_id, known.retry)
        else:
            rows = read_slice((source.piece,), LISTING)
            _check_paths(rows["path"], known.prefix)
            yield convert_listed(rows, source.number)


def write_comparison(entries: pa.Table, number: int, place: Place) -> BucketReport:
    """Compare the entries of a bucket; write outdated paths and positions of files to be predicted.

    Args:
        entries: `ENTRIES`.
        number: of the bucket.
        place: of the files.
    """
    comparison = compare(entries)
    outdated = positions = None
    if len(comparison.outdated):
        outdated = join(place.folder, "outdated", f"{number:06d}.parquet")
        write_piece(pa.table({"path": comparison.outdated}), outdated)
    left_parts = comparison.left["part"].to_numpy()
    if len(left_parts):
        positions = join(place.folder, "positions", f"{number:06d}.arrow")
        write_groups(comparison.left.select(["position"]), left_parts, place.parts, positions)
    is_left = np.bincount(left_parts, minlength=place.parts) > 0
    return BucketReport(comparison.groups, outdated, positions, is_left)


def _compare_sources(sources: Sequence[Source], *, known: Known, place: Place) -> BucketReport:
    return write_comparison(pa.concat_tables(read_entries(sources, known)), 0, place)


def _scatter(
    share: tuple[int, Sequence[Source]], *, known: Known, folder: str, buckets: int, rows: int
) -> list[str]:
    """Write the entries of a numbered share of the sources by bucket; return the files."""
    number, sources = share
    uris = []
    for count, entries in enumerate(_collect(read_entries(sources, known), rows)):
        uri = join(folder, "entries", f"{number:06d}-{count:06d}.arrow")
        write_groups(entries, assign_buckets(entries["path"], buckets), buckets, uri)
        uris.append(uri)
    return uris


def _compare_bucket(number: int, *, uris: Sequence[str], place: Place) -> BucketReport:
    return write_comparison(read_group(uris, number, ENTRIES), number, place)


def _write_left_part(part: ListedPart, *, positions: Sequence[str], folder: str) -> Piece:
    left = read_group(positions, part.number, POSITIONS)["position"].to_numpy()
    rows = read_slice((part.piece,), LISTING).take(pa.array(np.sort(left)))
    return write_piece(rows, join(folder, f"part-{part.number:06d}.parquet"))


def _check_paths(paths: pa.ChunkedArray, prefix: str) -> None:
    others = paths.filter(pc.invert(pc.starts_with(paths, prefix)))
    if len(others):
        raise AuditError(f"listed {others[0]}; wanted a path that begins with {prefix}")


def _share_out(sources: Sequence[Source], rows: int) -> Iterator[tuple[Source, ...]]:
    """Yield consecutive sources of at most this number of rows together, or a larger one alone."""
    share: list[Source] = []
    total = 0
    for source in sources:
        count = source.rows if isinstance(source, DataFileRef) else source.piece.rows
        if share and total + count > rows:
            yield tuple(share)
            share, total = [], 0
        share.append(source)
        total += count
    yield tuple(share)


def _collect(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of consecutive tables together, from this number of rows or 256 MB up."""
    share: list[pa.Table] = []
    count = size = 0
    for table in tables:
        share.append(table)
        count, size = count + table.num_rows, size + table.nbytes
        if count >= rows or size >= SHARE_BYTES:
            yield pa.concat_tables(share)
            share, count, size = [], 0, 0
    if count:
        yield pa.concat_tables(share)
