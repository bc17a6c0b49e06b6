"""The listing of an archive: files and archive members, written to Parquet part by part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, join, list_folder, resolve, to_utf8
from eagle_spark.io.archives import is_archive, list_members
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


def write_listing(entries: Iterator[FileEntry], staging: str) -> int:
    """Write Parquet parts of `LISTING` below `staging`; return the number of rows.

    Each member of an archive has a row of its own.
    """
    storage, folder = resolve(staging)
    rows = (row for entry in entries for row in expand_entry(entry))
    total = 0
    for number in count():
        part = list(islice(rows, ENTRIES_PER_PART))
        if number and not part:  # an empty folder leaves one empty part: readers need a file
            break
        stream = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(part, schema=LISTING), stream)
        storage.write(join(folder, f"part-{number:06d}.parquet"), stream.getvalue().to_pybytes())
        total += len(part)
    return total


def expand_entry(entry: FileEntry) -> Iterator[ListedFile]:
    """Yield the row of a file, or those of the members of an archive."""
    if not is_archive(entry.name):
        yield ListedFile(
            path=to_utf8(entry.uri),
            file_length=entry.length,
            file_modified=entry.modified,
            archive=None,
            position=None,
        )
        return
    for member in list_members(entry):
        # Members have the time of their archive: unchanged bytes are not scored again.
        yield ListedFile(
            path=member.path,
            file_length=member.length,
            file_modified=entry.modified,
            archive=to_utf8(entry.uri),
            position=member.position,
        )


def read_listing(spark: SparkSession, staging: str) -> DataFrame:
    """Return the rows of `LISTING` that `write_listing` wrote."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return spark.read.schema(from_arrow_schema(LISTING)).parquet(staging)
