"""What stands in the archive, listed without ever holding the list in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, join, list_folder, locate, printable
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


def list_images(images: str) -> Iterator[FileEntry]:
    """Yield the files of a folder, or the one archive that `images` is.

    Raises:
        InputError: when there is no such folder, or it may not be read.
    """
    if is_archive(images):
        storage, path = locate(images)
        try:
            yield storage.find(path)
            return
        except (FileNotFoundError, IsADirectoryError):
            pass  # what list_folder says of it
        except OSError as error:
            raise InputError(f"archive cannot be read: {images}: {error}") from error
    yield from list_folder(images)


def spool_listing(entries: Iterator[FileEntry], staging: str) -> int:
    """Write what is listed into Parquet parts below `staging`; return the number of files.

    Archives stand there by their members.
    """
    storage, folder = locate(staging)
    rows = (row for entry in entries for row in listed_rows(entry))
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


def listed_rows(entry: FileEntry) -> Iterator[dict[str, Any]]:
    """Yield the row of a file, or those of the members of an archive; see `LISTING`."""
    if not is_archive(entry.name):
        yield {
            "path": printable(entry.uri),
            "file_length": entry.length,
            "file_modified": entry.modified,
        }
        return
    for member in list_members(entry):
        # A member is as new as its archive: bytes that have not changed are not scored again.
        yield {
            "path": member.path,
            "file_length": member.length,
            "file_modified": entry.modified,
            "archive": printable(entry.uri),
            "position": member.position,
        }


def read_listing(spark: SparkSession, staging: str) -> DataFrame:
    """Return what `spool_listing` wrote.

    `path`, `file_length`, `file_modified`; of members also `archive` and `position` in it.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    return spark.read.schema(from_arrow_schema(LISTING)).parquet(staging)
