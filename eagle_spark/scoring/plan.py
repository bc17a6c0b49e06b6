"""The dry run of `score`: the work and the time of a run, without a change of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from eagle_spark.io import absolute_uri, join, temporary_folder
from eagle_spark.scoring.context import (
    model_condition,
    name_branch,
    name_staging,
    open_inputs,
    select_retry,
)
from eagle_spark.scoring.diff import (
    StatusCounts,
    count_by_status,
    diff_against_table,
    match_listing,
)
from eagle_spark.scoring.listing import list_in_background, read_listing
from eagle_spark.scoring.monitor import Record, read_recent_records
from eagle_spark.scoring.slices import count_slice
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.batches import tasks_for
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from eagle_spark.tables.iceberg import IcebergTable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class ScorePlan:
    """The figures of `score --plan`: the JSON line of the job. No table holds them.

    `listed == already_scored + already_rejected + resumed + new`, but for files with a row that
    are processed again: they count in `new` or `resumed` too.

    Attributes:
        listed: files and archive members in the folder.
        already_scored: files with a published prediction.
        already_rejected: files whose published row holds a reason.
        outdated: rows that the run would replace.
        new: files that the run would process.
        chunks: commits of the run.
        tasks: tasks of all chunks, for the slots that Spark has now.
        images_per_second: rate of an earlier run while it scored; None if `runs` has none.
        seconds: estimated wall time of the run: `new` at this rate, and the seconds that the
            earlier run took beside scoring; None without a rate.
        from_run: id of that run: the newest one of the model that scored images of the folder,
            else of any folder; None without one.
        resumed: files whose row a killed run left on its branch: the run would not process them.
            While another run scores the folder, the rows that it has committed.
    """

    listed: int
    already_scored: int
    already_rejected: int
    outdated: int
    new: int
    chunks: int
    tasks: int
    images_per_second: float | None
    seconds: float | None
    from_run: str | None
    resumed: int


@dataclass(frozen=True)
class Rate:
    """The time of an earlier run.

    Attributes:
        run_id: of the run.
        images_per_second: scored images by the seconds of the stage `score`.
        other_seconds: seconds of the run outside of this stage.
    """

    run_id: str
    images_per_second: float
    other_seconds: float

    def estimate(self, images: int) -> float:
        """Return the seconds of a run that processes this number of images."""
        return self.other_seconds + images / self.images_per_second


@dataclass(frozen=True)
class Known:
    """The listed files that have a row.

    Attributes:
        published: with a published row of the same version of the file, by status.
        valid: with a row that need not be computed again; it may be on a branch alone.
        resumed: those of `valid` whose row is on the branch of a killed run.
        outdated: rows that are to be replaced.
    """

    published: StatusCounts = field(default_factory=dict)
    valid: int = 0
    resumed: int = 0
    outdated: int = 0


def plan_score(settings: ScoreSettings) -> ScorePlan:
    """Return the work of a run of `score` and its estimated time; change no table.

    It needs no lease: another run may score the same folder meanwhile.

    Args:
        settings: of the job.

    Raises:
        ModelError: when the model folder is incomplete or altered, or has no such engine.
        InputError: when the folder of images cannot be listed.
        OutputError: when the listing cannot be written to the warehouse for the time of the plan.
    """
    bundle, _ = open_inputs(settings)
    model_id = bundle.metadata.model_id
    with (
        temporary_folder(join(name_staging(settings.warehouse), f"plan-{uuid4().hex}")) as staging,
        list_in_background(settings.images, staging) as listing,
        open_session("score", settings.warehouse) as spark,
    ):
        listed, known = count_slice(listing.result()), Known()
        records: list[Record] = []
        if IcebergTable(spark, PREDICTIONS.full_name).exists():
            warehouse = Warehouse(spark)
            known = find_known(warehouse, read_listing(spark, staging), model_id, settings)
            records = read_recent_records(warehouse, model_id)
        rate = find_rate(records, settings.images)
        new = listed - known.valid
        chunks, tasks = count_work(spark, new, settings.chunk)
    return ScorePlan(
        listed=listed,
        already_scored=known.published.get("scored", 0),
        already_rejected=known.published.get("rejected", 0),
        outdated=known.outdated,
        new=new,
        chunks=chunks,
        tasks=tasks,
        images_per_second=round(rate.images_per_second, 1) if rate else None,
        seconds=round(rate.estimate(new), 1) if rate else None,
        from_run=rate.run_id if rate else None,
        resumed=known.resumed,
    )


def find_known(
    warehouse: Warehouse, listing: DataFrame, model_id: str, settings: ScoreSettings
) -> Known:
    """Compare a listing with the rows that a run would find on its branch.

    Args:
        warehouse: with the table `predictions`.
        listing: rows of `LISTING`.
        model_id: of the rows.
        settings: of the run.
    """
    retry, branch = select_retry(settings), name_branch(model_id, settings.images)
    preview = warehouse.preview_branch(PREDICTIONS, branch, model_condition(model_id))
    if preview.rows is None:
        return Known()
    diff = diff_against_table(preview.rows, listing, retry)
    published, resumed = diff.unchanged, 0
    if preview.unpublished is not None:
        left = diff_against_table(preview.unpublished, listing, retry)
        resumed, published = sum(left.valid.values()), {}
        if preview.published is not None:
            published = count_by_status(match_listing(preview.published, listing))
    return Known(published, sum(diff.valid.values()), resumed, diff.outdated_rows)


def count_work(spark: SparkSession, images: int, chunk: int) -> tuple[int, int]:
    """Return the numbers of chunks and of tasks for a number of images."""
    whole, rest = divmod(images, chunk)
    tasks = whole * tasks_for(spark, chunk) if whole else 0
    return whole + bool(rest), tasks + (tasks_for(spark, rest) if rest else 0)


def find_rate(records: Sequence[Record], images: str) -> Rate | None:
    """Return the rate of the newest run of a folder that has one, else of the newest of any folder.

    Args:
        records: of the runs of a model, the newest first.
        images: the folder.
    """
    rates = [
        (absolute_uri(settings["images"]), rate)
        for run_id, settings, result in records
        if (rate := measure_rate(run_id, result))
    ]
    here = [rate for folder, rate in rates if folder == absolute_uri(images)]
    return next(iter([*here, *(rate for _, rate in rates)]), None)


def measure_rate(run_id: str, result: Mapping[str, Any]) -> Rate | None:
    """Return the rate of a run from its figures in the table `runs`.

    Returns:
        None where the figures give no rate: of a run that was killed after it had published, that
        published rows of killed runs, which count as scored, or that scored no image.
    """
    seconds = result["stage_seconds"].get("score", 0.0)
    is_whole = result.get("finished", True) and result.get("published_run_ids") in (None, [run_id])
    if not (is_whole and result["scored"] and seconds):
        return None
    return Rate(run_id, result["scored"] / seconds, result["seconds"] - seconds)
