"""What stands in the archive, listed without ever holding the list in memory."""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.storage import join, list_folder, locate, printable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ENTRIES_PER_PART = 100_000

_LISTING = pa.schema(
    [
        ("path", pa.string()),
        ("file_length", pa.int64()),
        ("file_modified", pa.timestamp("ms", tz="UTC")),
    ]
)


def spool_listing(images: str, staging: str) -> int:
    """List the folder `images` into Parquet parts below `staging`; return the number of files.

    Raises:
        InputError: when the folder does not exist or may not be read.
    """
    storage, folder = locate(staging)
    entries = list_folder(images)
    total = 0
    for number in count():
        part = list(islice(entries, ENTRIES_PER_PART))
        if number and not part:  # an empty folder leaves one empty part: readers need a file
            break
        table = pa.Table.from_pydict(
            {
                "path": [printable(entry.uri) for entry in part],
                "file_length": [entry.length for entry in part],
                "file_modified": [entry.modified for entry in part],
            },
            schema=_LISTING,
        )
        stream = pa.BufferOutputStream()
        pq.write_table(table, stream)
        storage.write(join(folder, f"part-{number:06d}.parquet"), stream.getvalue().to_pybytes())
        total += len(part)
    return total


def read_listing(spark: SparkSession, staging: str) -> DataFrame:
    """Return what `spool_listing` wrote: `path`, `file_length`, `file_modified`."""
    return spark.read.schema("path STRING, file_length BIGINT, file_modified TIMESTAMP").parquet(
        staging
    )
