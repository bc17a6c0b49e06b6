"""The changes of a run of preprocess, written to its branch of `images`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import pandas as pd
import pyarrow as pa

from eagle_spark.datasets.changes import REJECTED, REJECTION, Changes, Rejection
from eagle_spark.datasets.leakage import SPLIT_COLUMNS
from eagle_spark.datasets.rows import accepted_constants, rejected_rows
from eagle_spark.datasets.write_files import WriteTask, write_files
from eagle_spark.datasets.write_rows import write_rows
from eagle_spark.io import absolute_uri
from eagle_spark.settings import PreprocessSettings
from eagle_spark.tables import ACCEPTED, Run
from eagle_spark.tables.branch import Branch
from eagle_spark.tables.data_files import FileLayout
from eagle_spark.tables.iceberg import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestRun:
    """What the steps of a run share.

    Attributes:
        run: identity and settings.
        spark: session.
        staging: URI of a folder of this run.
        layout: of the data files that workers write; None where Spark writes them.
        head: snapshot of `images` before the run; None without one.
        present: facts of its accepted rows.
    """

    run: Run[PreprocessSettings]
    spark: SparkSession
    staging: str
    layout: FileLayout | None
    head: Snapshot | None
    present: pd.DataFrame


def write_changes(context: IngestRun, branch: Branch, changes: Changes) -> pd.DataFrame | None:
    """Write the changes to the branch.

    Returns:
        `SPLIT_COLUMNS` of all accepted rows of the branch; None where a query has to read them:
        SQL changed rows, Spark wrote some, or the branch does not begin at `head`.
    """
    spark, start = context.spark, branch.head
    if changes.removed:
        branch.delete_paths(_to_paths(spark, changes.removed), ACCEPTED)
    for split, paths in changes.moved.groupby("to")["path"]:
        branch.update_paths(
            _to_paths(spark, list(paths)), {"split": f"'{split}'"}, f"target.{ACCEPTED}"
        )
    new, outdated = changes.rejections, list[str]()
    if start is None or start.rows != 0:  # else without a query
        new, outdated = compare_rejections(context, branch, changes.rejections)
    if outdated:
        branch.delete_paths(_to_paths(spark, outdated), REJECTED)
    if not changes.written.empty:
        _log.info("writing %d images into the table images", len(changes.written))
    constants = accepted_constants(context.run)
    rejected = rejected_rows(new, context.run)
    if context.layout is None:
        write_rows(spark, branch, changes.written, context.staging, constants, rejected)
        return None
    task = WriteTask(context.staging, context.layout, constants)
    size = context.run.settings.size
    copy = write_files(spark, branch, changes.written, size, task, rejected)
    if not _begins_at(start, context.head) or branch.count_appended(start) != len(copy) + len(new):
        return None
    return pd.concat([context.present[[*SPLIT_COLUMNS]], copy])


def _begins_at(start: Snapshot | None, head: Snapshot | None) -> TypeGuard[Snapshot]:
    """Return whether a branch with this start begins at a snapshot of `main`."""
    if start is None:
        return False
    return start.rows == 0 if head is None else start.id == head.id


def compare_rejections(
    context: IngestRun, branch: Branch, rejections: Sequence[Rejection]
) -> tuple[list[Rejection], list[str]]:
    """Compare the rejections of this input with the rejected rows of the branch.

    Returns:
        The rejections to write, and the paths of the rows that they replace or that are outdated.
    """
    root = absolute_uri(context.run.settings.input) + "/"
    rows = branch.read().where(REJECTED).select(*REJECTION.names).collect()
    present = {Rejection(**row.asDict()) for row in rows}
    outdated = {
        rejection.path for rejection in present - set(rejections) if rejection.path.startswith(root)
    }
    new = [entry for entry in rejections if entry not in present or entry.path in outdated]
    return new, sorted(outdated)


def _to_paths(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    return spark.createDataFrame(pa.table({"path": pa.array(paths, pa.string())}))
