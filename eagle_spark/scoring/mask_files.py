"""Masks as PNG files, one per scored image, in a folder tree like that of the images."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from eagle_spark.errors import InputError, OutputError, SettingsError
from eagle_spark.io import absolute_uri, join, list_folder, resolve
from eagle_spark.io.archives import is_archive
from eagle_spark.scoring.listing import read_listing, write_listing
from eagle_spark.scoring.slices import count_slice
from eagle_spark.spark.batches import map_batches, tasks_for
from eagle_spark.spark.progress import watch_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_log = logging.getLogger(__name__)

_REPORT = pa.schema([("files", pa.int64()), ("name", pa.string()), ("problem", pa.string())])
SUFFIX = ".mask.png"  # appended to the whole name: a.png and a.jpg have different masks
OWNER_FILE = ".model"  # hidden: holds the model id and the folder of the images
FILES_PER_TASK = 1024
NAME_ERRNOS = (errno.ENAMETOOLONG, errno.EINVAL)  # of the name, not of the storage


@dataclass(frozen=True)
class Masks:
    """Numbers of masks that were and could not be written, and the error to be fixed."""

    written: int = 0
    failed: int = 0
    problem: OutputError | None = None


def check_masks_folder(images: str, masks: str) -> None:
    """Check the folder for masks before Spark starts.

    Raises:
        SettingsError: when masks would be listed as images by the next run.
        OutputError: when it exists and is no folder, or may not be read.
    """
    inside, folder = absolute_uri(masks), absolute_uri(images)
    if inside == folder or inside.startswith(folder + "/"):
        raise SettingsError(
            f"`masks_out`: wanted a folder outside of `images` {images}; got {masks}"
        )
    storage, place = resolve(masks)
    try:
        if storage.exists(place):
            next(list_folder(masks), None)
    except InputError as error:
        raise OutputError(f"`masks_out` {masks}: {error}") from error


def write_masks(rows: DataFrame, images: str, target: str, model_id: str, staging: str) -> Masks:
    """Write the masks that are missing in `target`, or older than their rows.

    Each file is written whole or not at all. The next run continues after one that was killed or
    could not write all. If appending `.mask.png` exceeds the file-name limit, that mask is skipped
    and counted as failed.

    Args:
        rows: `path`, `mask`, `scored_at` of published rows of files below the folder `images`.
        model_id: of the model; masks of another model or another folder of images are replaced.
        staging: URI of a folder for the listing of the existing masks.
    """
    try:
        return _write_missing(rows, images, target, model_id, staging)
    except Exception as error:  # Spark's too: the run is published, and has to be recorded
        text = " ".join(str(error).split())[:300]
        return Masks(problem=OutputError(f"`masks_out` {target}: {text}"))


def _write_missing(rows: DataFrame, images: str, target: str, model_id: str, staging: str) -> Masks:
    from pyspark.sql.functions import col, concat, lit, substring, timestamp_millis

    root = absolute_uri(images)
    root = root.rpartition("/")[0] if is_archive(root) else root
    listed = join(staging, "masks")
    storage, folder = resolve(target)
    owner_file, owner = f"{folder}/{OWNER_FILE}", f"{model_id}\n{root}".encode()
    has_owner = storage.exists(owner_file)
    is_owner = has_owner and storage.read(owner_file, len(owner) + 1) == owner
    existing = is_owner and count_slice(write_listing(list_folder(target), listed))
    if has_owner and not is_owner:
        _log.warning(
            "`masks_out` %s held masks of another model or folder of images; all are replaced",
            target,
        )
    if not is_owner:
        storage.write(owner_file, owner)
    # Older files may be masks of another owner.
    since = timestamp_millis(lit(storage.stat(owner_file).modified))
    relative_path = substring(col("path"), len(root) + 1, 2**31 - 1)
    missing = rows.withColumn(
        "target", concat(lit(absolute_uri(target)), relative_path, lit(SUFFIX))
    )
    if existing:
        files = read_listing(rows.sparkSession, listed)
        written = files["file_modified"]
        current = (written >= since) & (written >= missing["scored_at"])
        missing = missing.join(files, current & (missing["target"] == files["path"]), "left_anti")
    missing = missing.select("target", "mask")
    count = missing.count()
    return _write(missing, count, target) if count else Masks()


def _write(masks: DataFrame, count: int, target: str) -> Masks:
    """Write `count` rows of `target` and `mask`."""
    spark = masks.sparkSession
    with watch_rows(spark, "masks", count, "masks") as count_rows:
        shared = masks.repartition(tasks_for(spark, count, FILES_PER_TASK))
        report = map_batches(shared, count_rows(write_batches), _REPORT)
        sums = report.selectExpr("sum(files)", "min(name)", "min(problem)")
        files, name, problem = sums.collect()[0]
    failed = count - int(files)
    line = (
        f"`masks_out` {target}: {failed} of {count} masks could not be written: {problem or name}"
    )
    if failed and not problem:
        _log.warning("%s", line)
    return Masks(int(files), failed, OutputError(line) if problem else None)


def write_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write batches of `target` and `mask`; yield a row of `_REPORT` for each.

    An error of the file's name is in the column `name`, another in `problem`.
    """
    for batch in batches:
        report: list[dict[str, int | str | None]] = []
        for row in batch.to_pylist():
            storage, path = resolve(row["target"])
            try:
                storage.write(path, row["mask"])
                report.append({"files": 1})
            except OSError as error:
                column = "name" if error.errno in NAME_ERRNOS else "problem"
                report.append({"files": 0, column: str(error)})
        yield pa.RecordBatch.from_pylist(report, schema=_REPORT)
