"""Data files of `images` by workers: staged rows in, a file a split out, no JVM between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.datasets.leakage import SPLIT_COLUMNS
from eagle_spark.datasets.rows import complete_rows
from eagle_spark.errors import AuditError
from eagle_spark.io import join, resolve
from eagle_spark.spark.batches import tasks_for
from eagle_spark.spark.tasks import run_tasks
from eagle_spark.tables import IMAGES
from eagle_spark.tables.data_files import (
    FileLayout,
    WrittenFile,
    split_partitions,
    write_data_file,
)

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

    from eagle_spark.tables.branch import Branch

# Pixels of a task: at most, for the memory of a worker; at least, where there are many slots: a row
# group of the table, as each file costs its readers time.
MAX_TASK_BYTES = 64 * 2**20
MIN_TASK_BYTES = 16 * 2**20
SPLIT_SCHEMA = IMAGES.arrow_schema(*SPLIT_COLUMNS)


@dataclass(frozen=True)
class StagedRows:
    """Rows of a staged file.

    Attributes:
        name: of the file in the staging folder.
        rows: their positions in the file.
        splits: of each.
    """

    name: str
    rows: tuple[int, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class WriteReport:
    """What a task wrote.

    Attributes:
        files: one for each split.
        rows: `SPLIT_SCHEMA`, as they were read back.
    """

    files: tuple[WrittenFile, ...]
    rows: pa.Table


@dataclass(frozen=True)
class WriteTask:
    """Writes staged rows to a data file for each split. Picklable.

    A task that is repeated writes other files; only those of the attempt whose report the driver
    got are committed.

    Attributes:
        staging: URI of the folder of the staged files.
        layout: of the table.
        constants: column -> value in all rows; `run_id` begins the names of the files.
    """

    staging: str
    layout: FileLayout
    constants: Mapping[str, object]

    def __call__(self, staged: Sequence[StagedRows]) -> WriteReport:
        parts: defaultdict[str, list[pa.Table]] = defaultdict(list)
        for rows in map(self._read, staged):
            for part in split_partitions(rows, self.layout):
                parts[part["split"][0].as_py()].append(part)
        files, written = [], []
        while parts:  # frees the rows of a split when they are written
            rows = pa.concat_tables(parts.popitem()[1])
            file, copy = write_data_file(rows, self.layout, str(self.constants["run_id"]))
            files.append(file)
            written.append(copy.select(SPLIT_SCHEMA.names).cast(SPLIT_SCHEMA))
        return WriteReport(tuple(files), pa.concat_tables(written))

    def _read(self, staged: StagedRows) -> pa.Table:
        storage, path = resolve(join(self.staging, staged.name))
        with storage.open(path) as stream, pq.ParquetFile(stream) as file:
            rows = file.read(use_threads=False)
        if staged.rows != tuple(range(rows.num_rows)):
            rows = rows.take(pa.array(staged.rows, pa.int32()))
        splits = pa.array(staged.splits, pa.string())
        return complete_rows(rows.append_column("split", splits), self.constants)


def write_files(
    spark: SparkSession,
    branch: Branch,
    written: pd.DataFrame,
    size: int,
    task: WriteTask,
    rejected: pa.Table,
) -> pd.DataFrame:
    """Write data files and append them to the branch, in one commit.

    Args:
        spark: session.
        branch: of `images`.
        written: `path`, `split`, `staged` and `row` of each image to write.
        size: pixels per side.
        task: is called for the images of each task.
        rejected: further rows of `images`, which the driver writes.

    Returns:
        `SPLIT_COLUMNS` of the images, as they were read back.

    Raises:
        AuditError: when the files do not hold each image once, in its split; nothing is committed.
    """
    shares = share_rows(written, count_tasks(spark, len(written), size**2))
    reports = run_tasks(spark.sparkContext, shares, task)
    rows = pa.concat_tables([SPLIT_SCHEMA.empty_table(), *(report.rows for report in reports)])
    copy: pd.DataFrame = rows.to_pandas()
    wanted, got = (Counter(zip(one["path"], one["split"], strict=True)) for one in (written, copy))
    if wanted != got:
        path, split = next(iter((wanted - got) + (got - wanted)))
        raise AuditError(
            f"data files of images: wanted {path} in {split} {wanted[path, split]} times; "
            f"got it {got[path, split]} times"
        )
    files = [file for report in reports for file in report.files]
    if rejected.num_rows:
        files.append(write_data_file(rejected, task.layout, str(task.constants["run_id"]))[0])
    if files:
        branch.append_files(files)
    return copy


def count_tasks(spark: SparkSession, rows: int, bytes_per_row: int) -> int:
    """Return the number of tasks that write these rows.

    Args:
        spark: session.
        rows: number of rows.
        bytes_per_row: of the pixels.
    """
    fewest = tasks_for(spark, rows, max(1, MAX_TASK_BYTES // bytes_per_row))
    return min(fewest, max(1, rows * bytes_per_row // MIN_TASK_BYTES))


def share_rows(written: pd.DataFrame, tasks: int) -> list[tuple[StagedRows, ...]]:
    """Return the staged rows of each task; a staged file belongs to one task.

    Args:
        written: `split`, `staged` and `row` of each image to write, staged file by staged file.
        tasks: at most.
    """
    shares: list[list[StagedRows]] = [[] for _ in range(tasks)]
    first = 0
    for name, rows in written.groupby("staged", sort=False):
        staged = StagedRows(str(name), tuple(rows["row"].tolist()), tuple(rows["split"]))
        shares[first * tasks // len(written)].append(staged)
        first += len(rows)
    return [tuple(share) for share in shares if share]
