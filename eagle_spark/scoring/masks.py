"""Masks as files: a PNG for each scored image, in a folder tree like that of the images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from eagle_spark.errors import InputError, OutputError, SettingsError
from eagle_spark.progress import watch_tasks
from eagle_spark.scoring.inventory import read_listing, spool_listing
from eagle_spark.session import tasks_for
from eagle_spark.storage import absolute_uri, join, list_folder, locate
from eagle_spark.storage.archives import is_archive

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_TOLD = pa.schema([("files", pa.int64()), ("problem", pa.string())])
SUFFIX = ".mask.png"  # after the whole name: a.png and a.jpg have masks of their own
MARK, MARK_BYTES = ".model", 256  # a hidden file that says whose masks these are
FILES_PER_TASK = 1024


def check_masks_folder(images: str, masks: str) -> None:
    """Look at the folder for masks before anything heavy starts.

    Raises:
        SettingsError: when masks would be listed as images the next night.
        OutputError: when it is there and no folder, or may not be read.
    """
    inside, folder = absolute_uri(masks), absolute_uri(images)
    if inside == folder or inside.startswith(folder + "/"):
        raise SettingsError(
            f"--masks-out: wanted a folder outside of --images {images}; got {masks}"
        )
    storage, place = locate(masks)
    try:
        if storage.exists(place):
            next(list_folder(masks), None)
    except InputError as error:
        raise OutputError(f"--masks-out {masks}: {error}") from error


def write_masks(rows: DataFrame, images: str, target: str, model_id: str, staging: str) -> int:
    """Write the masks that `target` lacks, or holds from before the row was; return their number.

    Each file is whole or not there. A run that was killed is gone on with by the next. Files that
    cannot be written are told of, and lack.

    Args:
        rows: `path`, `mask`, `scored_at` of published rows of files below the folder `images`.
        model_id: whose masks they are; those of another model are written anew.
        staging: URI of a folder for the listing of what is there.

    Raises:
        OutputError: when none can be written.
    """
    from pyspark.sql.functions import col, concat, lit, substring

    listed = join(staging, "masks")
    storage, place = locate(target)
    mark = f"{place}/{MARK}"
    ours = storage.exists(mark) and storage.read(mark, MARK_BYTES) == model_id.encode()
    there = ours and spool_listing(list_folder(target), listed)
    if not ours:
        storage.delete(mark)  # a run that is killed now leaves masks of two models
    root = absolute_uri(images)
    root = root.rpartition("/")[0] if is_archive(root) else root
    inside = substring(col("path"), len(root) + 1, 2**31 - 1)
    wanted = rows.withColumn("target", concat(lit(absolute_uri(target)), inside, lit(SUFFIX)))
    if there:
        found = read_listing(rows.sparkSession, listed)
        done = (wanted["target"] == found["path"]) & (found["file_modified"] >= wanted["scored_at"])
        wanted = wanted.join(found, done, "left_anti")
    wanted = wanted.select("target", "mask")
    count = wanted.count()
    files = _write(wanted, count, target) if count else 0
    storage.write(mark, model_id.encode())
    return files


def _write(wanted: DataFrame, count: int, target: str) -> int:
    """Write rows of `target` and `mask`, of which there are `count`; return the number written."""
    spark = wanted.sparkSession
    with watch_tasks(spark, "masks", count):
        shared = wanted.repartition(tasks_for(spark, count, FILES_PER_TASK))
        told = shared.mapInArrow(write_batches, "files BIGINT, problem STRING")
        files, problem, failed = told.selectExpr(
            "sum(files)", "min(problem)", "count(problem)"
        ).collect()[0]
    if failed:
        line = f"--masks-out {target}: {failed} of {count} masks could not be written: {problem}"
        if not files:
            raise OutputError(line)
        print(line, file=sys.stderr, flush=True)
    return int(files)


def write_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write batches of `target` and `mask`; yield a row for each, with the problem if any."""
    for batch in batches:
        told: list[dict[str, int | str | None]] = []
        for row in batch.to_pylist():
            storage, path = locate(row["target"])
            try:
                storage.write(path, row["mask"])
                told.append({"files": 1, "problem": None})
            except OSError as error:  # such as a name that has grown too long
                told.append({"files": 0, "problem": str(error)})
        yield pa.RecordBatch.from_pylist(told, schema=_TOLD)
