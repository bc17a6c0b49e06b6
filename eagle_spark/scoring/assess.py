"""The audit and the drift of a run before it is published, by its tasks' figures or by SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eagle_spark.errors import EXIT_NEEDS_ATTENTION
from eagle_spark.metrics.distribution import Distribution
from eagle_spark.scoring.audit import audit, audit_figures, filter_runs, select_new_run_ids
from eagle_spark.scoring.chunks import Appended
from eagle_spark.scoring.context import ScoreRun
from eagle_spark.scoring.diff import StatusCounts
from eagle_spark.scoring.figures import Figures
from eagle_spark.scoring.monitor import (
    RECENT_RUNS,
    TRAINING,
    Drift,
    compute_drift,
    count_flags,
    find_alerts,
    measure_distribution,
    measure_drift,
    measure_recent_drift,
    merge_drift,
    merge_flags,
    read_previous_attempts,
)
from eagle_spark.scoring.result import ScoreResult
from eagle_spark.tables import PREDICTIONS, StageTimer
from eagle_spark.tables.branch import Branch
from eagle_spark.tables.iceberg import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SCORED_ROWS = "status = 'scored'"
"""SQL condition on the rows of `predictions` that have a prediction."""


@dataclass(frozen=True)
class Baseline:
    """The branch before a run appends rows.

    Attributes:
        before: listed files with a published row, by status.
        valid: listed files with a valid row on the branch, by status.
        start: the snapshot that the run appends to. None where the branch has rows that were not
            published, of a killed run, or where the deletion of outdated rows did not delete the
            number of rows that it was given.
    """

    before: StatusCounts
    valid: StatusCounts
    start: Snapshot | None


@dataclass(frozen=True)
class Assessment:
    """What the audit and the drift of the rows of a branch say.

    Attributes:
        counts: listed files by status.
        new_run_ids: runs that wrote the rows that are not published yet.
        drift_by: reference to drift of these rows.
        flagged: review reason to number of these rows.
        distribution: of these rows.
    """

    counts: StatusCounts
    new_run_ids: list[str]
    drift_by: Mapping[str, Drift]
    flagged: Mapping[str, int]
    distribution: Distribution


@dataclass(frozen=True)
class AuditedRun:
    """What a run records in `runs`.

    Attributes:
        result: figures of the run.
        distribution: of the scored rows that it publishes.
    """

    result: ScoreResult
    distribution: Distribution


def audit_run(
    context: ScoreRun,
    timer: StageTimer,
    branch: Branch,
    baseline: Baseline,
    appended: Appended,
    rows: DataFrame,
) -> AuditedRun:
    """Check the rows of the branch and measure their drift; return the figures of the run.

    The figures of the tasks decide where the branch has nothing but what they wrote and what was
    published before; otherwise SQL reads the rows.

    Args:
        context: of the run.
        timer: of its stages.
        branch: of `predictions`.
        baseline: of the branch.
        appended: by this run.
        rows: of the branch.
    """
    run, bundle, rows = context.run, context.bundle, context.select(rows)
    assessment = None
    if appended.figures is not None:
        assessment = assess_figures(context, timer, branch, baseline, appended.figures, rows)
    if assessment is None:
        assessment = assess_rows(context, timer, rows)
    previous = read_previous_attempts(
        context.spark, context.warehouse, bundle.metadata.model_id, run.settings.images
    )
    drift_by = merge_drift([assessment.drift_by, *(attempt.drift_by for attempt in previous)])
    before, counts = baseline.before, assessment.counts
    scored = counts.get("scored", 0) - before.get("scored", 0)
    timer.end("drift")
    result = ScoreResult(
        listed=context.listed,
        already_scored=before.get("scored", 0),
        scored=scored,
        rejected=counts.get("rejected", 0),
        already_rejected=before.get("rejected", 0),
        deduplicated=appended.copied,
        masks_written=0,
        masks_failed=0,
        seconds=run.seconds,
        images_per_second=round(scored / run.seconds, 1),
        engine=context.model.engine,
        drift=max(drift_by.get(TRAINING, {}).values(), default=None),
        drift_from_recent_runs=max(drift_by.get(RECENT_RUNS, {}).values(), default=None),
        drift_by=drift_by,
        flagged=merge_flags([assessment.flagged, *(attempt.flagged for attempt in previous)]),
        exit_code=EXIT_NEEDS_ATTENTION if find_alerts(drift_by) else 0,
        stage_seconds=dict(timer.seconds),
        task_seconds={name: round(clock.value, 3) for name, clock in context.clocks.items()},
        model_id=bundle.metadata.model_id,
        run_id=run.run_id,
        published_run_ids=assessment.new_run_ids,
        application=str(context.spark.sparkContext.applicationId),
    )
    return AuditedRun(result, assessment.distribution)


def assess_figures(
    context: ScoreRun,
    timer: StageTimer,
    branch: Branch,
    baseline: Baseline,
    figures: Figures,
    rows: DataFrame,
) -> Assessment | None:
    """Check and measure by the figures of the tasks.

    Args:
        context: of the run.
        timer: of its stages.
        branch: of `predictions`.
        baseline: of the branch.
        figures: of the rows that the run appended.
        rows: of the model on the branch.

    Returns:
        None where the branch has rows that neither were published nor are this run's.
    """
    if baseline.start is None:
        return None
    appended = branch.count_appended(baseline.start)
    if appended is None:
        return None
    counts = audit_figures(
        figures,
        baseline.valid,
        appended,
        listed=context.listed,
        max_failure_rate=context.run.settings.max_failure_rate,
    )
    timer.end("audit")
    new_run_ids = [context.run.run_id] if figures.rows else []
    reference, drift_by, new = context.bundle.metadata.reference, {}, figures.distribution
    if figures.rows and reference.images:
        drift_by[TRAINING] = compute_drift(reference, new.images, new.labels, figures.bins)
    if baseline.start.rows:
        drift_by |= measure_drift_of_runs(context, rows, new_run_ids, new)
    return Assessment(counts, new_run_ids, drift_by, figures.flags, new)


def assess_rows(context: ScoreRun, timer: StageTimer, rows: DataFrame) -> Assessment:
    """Check and measure by SQL.

    Args:
        context: of the run.
        timer: of its stages.
        rows: of the model on the branch.
    """
    metadata = context.bundle.metadata
    published = context.select(context.warehouse.read(PREDICTIONS))
    new_run_ids = select_new_run_ids(rows, published)
    counts = audit(
        rows,
        context.listing,
        new_run_ids,
        listed=context.listed,
        size=metadata.input.size,
        max_failure_rate=context.run.settings.max_failure_rate,
    )
    timer.end("audit")
    new, drift_by, distribution = filter_runs(rows, new_run_ids), {}, Distribution()
    if new_run_ids:
        scored = new.where(SCORED_ROWS)
        distribution = measure_distribution(scored)
        if metadata.reference.images:
            drift_by[TRAINING] = measure_drift(scored, metadata.reference)
        drift_by |= measure_drift_of_runs(context, rows, new_run_ids, distribution)
    return Assessment(counts, new_run_ids, drift_by, count_flags(new), distribution)


def measure_drift_of_runs(
    context: ScoreRun, rows: DataFrame, run_ids: Sequence[str], distribution: Distribution
) -> dict[str, Drift]:
    """Return the drift of what these runs scored from recent runs; see `measure_recent_drift`."""
    metadata = context.bundle.metadata
    return measure_recent_drift(
        context.warehouse,
        metadata.model_id,
        metadata.classes,
        distribution,
        rows.where(SCORED_ROWS),
        run_ids,
    )
