"""The listing of an archive: files and archive members, written to Parquet part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice, takewhile
from threading import Event
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, join, list_folder, resolve, to_utf8
from eagle_spark.io.archives import is_archive, list_members
from eagle_spark.scoring.slices import Piece, Slice, write_piece
from eagle_spark.tables import PREDICTIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ENTRIES_PER_PART = 100_000

LISTING = pa.schema(
    [
        *PREDICTIONS.arrow_schema("path", "file_length"),
        ("file_modified", pa.timestamp("ms", tz="UTC")),
        ("archive", pa.string()),
        ("position", pa.int64()),
    ]
)
LISTING_ORDER = ("archive", "position", "file_length", "path")
"""Of the rows of a part, nulls last: members of an archive are read in their order, and files of
one length, and so mostly those with the same bytes, share a task."""

ListedRow = tuple[str, int, int, str | None, int | None]
"""A row of `LISTING`."""


class ListedFile(TypedDict):
    """A row of `LISTING`; `archive` and `position` are None for a file outside of archives."""

    path: str
    file_length: int
    file_modified: int
    archive: str | None
    position: int | None


def list_images(images: str) -> Iterator[FileEntry]:
    """Yield the files of a folder, or the one archive that `images` is.

    Raises:
        InputError: when there is no such folder, or it may not be read.
    """
    if is_archive(images):
        storage, path = resolve(images)
        try:
            yield storage.stat(path)
            return
        except (FileNotFoundError, IsADirectoryError):
            pass  # list_folder raises the error
        except OSError as error:
            raise InputError(f"archive cannot be read: {images}: {error}") from error
    yield from list_folder(images)


def write_listing(entries: Iterator[FileEntry], staging: str) -> Slice:
    """Write Parquet parts of `LISTING` below `staging`, each in the order of `LISTING_ORDER`.

    Each member of an archive has a row of its own.

    Returns:
        The rows: all parts in their order.
    """
    rows = (row for entry in entries for row in expand_entry(entry))
    pieces: list[Piece] = []
    for number in count():
        part = list(islice(rows, ENTRIES_PER_PART))
        if number and not part:  # an empty folder leaves one empty part: readers need a file
            break
        uri = join(staging, f"part-{number:06d}.parquet")
        table = to_table(part).sort_by([(name, "ascending") for name in LISTING_ORDER])
        pieces.append(write_piece(table, uri))
    return tuple(pieces)


@contextmanager
def list_in_background(images: str, staging: str) -> Iterator[Future[Slice]]:
    """Yield the future result of `write_listing` of a folder; it is written beside the block.

    A block that ends before the listing ends it: what it has written is incomplete.
    """
    stopped = Event()
    entries = takewhile(lambda _: not stopped.is_set(), list_images(images))
    with ThreadPoolExecutor(1, "listing") as pool:
        try:
            yield pool.submit(write_listing, entries, staging)
        finally:
            stopped.set()


def to_table(rows: Sequence[ListedRow]) -> pa.Table:
    """Return rows of `LISTING` as a table."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(LISTING)
    arrays = [pa.array(values, kind) for values, kind in zip(columns, LISTING.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=LISTING)


def expand_entry(entry: FileEntry) -> Iterator[ListedRow]:
    """Yield the row of a file, or those of the members of an archive."""
    if not is_archive(entry.name):
        yield to_utf8(entry.uri), entry.length, entry.modified, None, None
        return
    archive = to_utf8(entry.uri)
    for member in list_members(entry):
        # Members have the time of their archive: unchanged bytes are not scored again.
        yield member.path, member.length, entry.modified, archive, member.position


def read_listing(spark: SparkSession, staging: str) -> DataFrame:
    """Return the rows of `LISTING` that `write_listing` wrote."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return spark.read.schema(from_arrow_schema(LISTING)).parquet(staging)
