"""Masks as files: a PNG for each scored image, in a folder tree like that of the images."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from eagle_spark.errors import InputError, OutputError, SettingsError
from eagle_spark.io import absolute_uri, join, list_folder, locate
from eagle_spark.io.archives import is_archive
from eagle_spark.scoring.listing import read_listing, spool_listing
from eagle_spark.spark.progress import watch_tasks
from eagle_spark.spark.session import tasks_for

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_TOLD = pa.schema([("files", pa.int64()), ("name", pa.string()), ("problem", pa.string())])
SUFFIX = ".mask.png"  # after the whole name: a.png and a.jpg have masks of their own
MARK = ".model"  # a hidden file that says whose masks these are, and of which folder's images
FILES_PER_TASK = 1024
OF_NAMES = (errno.ENAMETOOLONG, errno.EINVAL)  # what no mending of the storage helps against


@dataclass(frozen=True)
class Masks:
    """How many masks were written and could not be, and what a person has to mend for it."""

    written: int = 0
    failed: int = 0
    problem: OutputError | None = None


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


def write_masks(rows: DataFrame, images: str, target: str, model_id: str, staging: str) -> Masks:
    """Write the masks that `target` lacks, or holds from before the row was.

    Each file is whole or not there. A run that was killed, or could not write all, is gone on with
    by the next. Files whose names are too long are told of, and lack.

    Args:
        rows: `path`, `mask`, `scored_at` of published rows of files below the folder `images`.
        model_id: whose masks they are; those of another model, or of another folder's images, are
            written anew.
        staging: URI of a folder for the listing of what is there.
    """
    try:
        return _bring_up_to_date(rows, images, target, model_id, staging)
    except Exception as error:  # Spark's too: the night is published, and has to be recorded
        told = " ".join(str(error).split())[:300]
        return Masks(problem=OutputError(f"--masks-out {target}: {told}"))


def _bring_up_to_date(
    rows: DataFrame, images: str, target: str, model_id: str, staging: str
) -> Masks:
    from pyspark.sql.functions import col, concat, lit, substring, timestamp_millis

    root = absolute_uri(images)
    root = root.rpartition("/")[0] if is_archive(root) else root
    listed = join(staging, "masks")
    storage, place = locate(target)
    mark, whose = f"{place}/{MARK}", f"{model_id}\n{root}".encode()
    held = storage.exists(mark)
    ours = held and storage.read(mark, len(whose) + 1) == whose
    there = ours and spool_listing(list_folder(target), listed)
    if held and not ours:
        print(
            f"warning: --masks-out {target} held masks of another model or folder of images; "
            "all are written anew",
            file=sys.stderr,
            flush=True,
        )
    if not ours:
        storage.write(mark, whose)
    since = timestamp_millis(lit(storage.find(mark).modified))  # what is older may be another's
    inside = substring(col("path"), len(root) + 1, 2**31 - 1)
    wanted = rows.withColumn("target", concat(lit(absolute_uri(target)), inside, lit(SUFFIX)))
    if there:
        found = read_listing(rows.sparkSession, listed)
        written = found["file_modified"]
        done = (written >= since) & (written >= wanted["scored_at"])
        wanted = wanted.join(found, done & (wanted["target"] == found["path"]), "left_anti")
    wanted = wanted.select("target", "mask")
    count = wanted.count()
    return _write(wanted, count, target) if count else Masks()


def _write(wanted: DataFrame, count: int, target: str) -> Masks:
    """Write rows of `target` and `mask`, of which there are `count`."""
    spark = wanted.sparkSession
    with watch_tasks(spark, "masks", count):
        shared = wanted.repartition(tasks_for(spark, count, FILES_PER_TASK))
        told = shared.mapInArrow(write_batches, "files BIGINT, name STRING, problem STRING")
        found = told.selectExpr("sum(files)", "min(name)", "min(problem)")
        files, name, problem = found.collect()[0]
    lack = count - int(files)
    line = f"--masks-out {target}: {lack} of {count} masks could not be written: {problem or name}"
    if lack and not problem:
        print(line, file=sys.stderr, flush=True)
    return Masks(int(files), lack, OutputError(line) if problem else None)


def write_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write batches of `target` and `mask`; yield a row for each, with what was wrong if anything.

    That is of its `name` alone, or a `problem` of the storage.
    """
    for batch in batches:
        told: list[dict[str, int | str | None]] = []
        for row in batch.to_pylist():
            storage, path = locate(row["target"])
            try:
                storage.write(path, row["mask"])
                told.append({"files": 1})
            except OSError as error:
                wrong = "name" if error.errno in OF_NAMES else "problem"
                told.append({"files": 0, wrong: str(error)})
        yield pa.RecordBatch.from_pylist(told, schema=_TOLD)
