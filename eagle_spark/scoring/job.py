"""The score job: a folder is listed; new files are predicted, audited and published."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial

from eagle_spark.io import absolute_uri, join, temporary_folder
from eagle_spark.io.lock import lease
from eagle_spark.model.engines import PREDICTION_IMPORTS
from eagle_spark.model.predictor import ModelRef
from eagle_spark.scoring.assess import SCORED_ROWS, AuditedRun, audit_run
from eagle_spark.scoring.chunks import Appended, score_chunks
from eagle_spark.scoring.context import ScoreRun, name_branch, name_staging, open_inputs
from eagle_spark.scoring.dedupe import broadcast_scored_hashes
from eagle_spark.scoring.diff import match_listing
from eagle_spark.scoring.listing import list_in_background
from eagle_spark.scoring.mask_files import Masks, check_masks_folder, write_masks
from eagle_spark.scoring.monitor import warn_of_drift
from eagle_spark.scoring.plan import ScorePlan, plan_score
from eagle_spark.scoring.predict import STAGES, ScoreWorker
from eagle_spark.scoring.prepare import compare_branch, find_left, prepare
from eagle_spark.scoring.result import ScoreResult
from eagle_spark.scoring.slices import Slice
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.session import (
    check_warehouse,
    open_session,
    start_context,
    threads_per_task,
)
from eagle_spark.spark.tasks import warm_workers
from eagle_spark.tables import PREDICTIONS, Run, RunRecord, StageTimer, Warehouse
from eagle_spark.tables.branch import Branch
from eagle_spark.tables.writer import choose_layout
from eagle_spark.testing.failpoints import failpoint

WORKER_IMPORTS = (
    *PREDICTION_IMPORTS,
    "eagle_spark.scoring.compare_files",
    "eagle_spark.scoring.write_files",
)


def score(settings: ScoreSettings) -> ScoreResult | ScorePlan:
    """Predict every new image of a folder into the table `predictions`.

    `ScoreRun.parts` fixes the files that a run accounts for, from the comparison to the masks: an
    option that limits the work narrows it before `prepare`.

    Args:
        settings: of the job.

    Returns:
        The figures of the run; with `plan` those of the run that would follow, and nothing is done.

    Raises:
        ModelError: when the model folder is incomplete or altered, or has no such engine.
        InputError: when the folder of images cannot be listed.
        AlreadyRunningError: when another run scores the same folder with the same model.
        FailureRateError: when more than `max_failure_rate` of the listed files are rejected.
        AuditError: when the audit fails; nothing is published.
        OutputError: when masks cannot be written; all else is done.

    Example::

        score(ScoreSettings(images="hdfs:///ward", model="hdfs:///m1", warehouse="hdfs:///w"))
    """
    if settings.plan:
        return plan_score(settings)
    run = Run.begin("score", settings)
    timer = StageTimer(run)
    bundle, engine = open_inputs(settings)
    if settings.masks_out:
        check_masks_folder(settings.images, settings.masks_out)
    branch_name = name_branch(bundle.metadata.model_id, settings.images)
    place = name_staging(settings.warehouse)
    check_warehouse(settings.warehouse)
    with (
        lease(join(place, f"{branch_name}.lease"), run.run_id) as lock,
        temporary_folder(join(place, run.run_id)) as staging,
        list_in_background(settings.images, join(staging, "listing")) as listing,
        start_context("score", imports=WORKER_IMPORTS) as spark_context,
    ):
        threads = threads_per_task(spark_context)
        model = ModelRef(absolute_uri(settings.model), bundle.metadata.model_id, engine, threads)
        with (
            warm_workers(spark_context, model.load),
            open_session("score", settings.warehouse) as spark,
        ):
            lock.check()
            parts = listing.result()
            timer.end("list")
            warehouse = Warehouse(spark)
            warehouse.create_or_migrate(PREDICTIONS)
            context = ScoreRun(
                run,
                spark,
                warehouse,
                bundle,
                model,
                staging,
                parts,
                choose_layout(settings.writer, warehouse.iceberg(PREDICTIONS), PREDICTIONS),
                {name: spark.sparkContext.accumulator(0.0) for name in STAGES},
            )
            with warehouse.branch(PREDICTIONS, branch_name, carry=context.condition) as branch:
                baseline, left = prepare(context, branch)
                timer.end("compare")
                failpoint("before write")
                appended = predict_new(context, branch, left)
                timer.end("score")
                failpoint("written")
                audited, snapshot = branch.publish(
                    partial(audit_run, context, timer, branch, baseline, appended),
                    partial(create_record, context),
                    lock.check,
                )
                timer.end("publish")
            result = replace(audited.result, snapshot_id=snapshot)
            return finish(context, timer, replace(audited, result=result))


def predict_new(context: ScoreRun, branch: Branch, left: Slice) -> Appended:
    """Append a row for each file that has none to the branch, chunk by chunk.

    Args:
        context: of the run.
        branch: of `predictions`.
        left: the files, rows of `LISTING`.
    """
    worker = ScoreWorker(
        context.model,
        context.run.run_id,
        context.run.settings.keep_patient_id,
        clocks=context.clocks,
    )
    known = None
    if left and context.warehouse.snapshot(PREDICTIONS) is not None:
        published = context.select(context.warehouse.read(PREDICTIONS)).where(SCORED_ROWS)
        known = broadcast_scored_hashes(published)
    appended = score_chunks(context, branch, left, replace(worker, scored_hashes=known))
    if appended.unmatched:  # other images, whose ids have the same prefix
        diff = compare_branch(context, branch.name, "scored", "never")
        done = context.listed - appended.unmatched
        again = find_left(context, branch, diff, done, "unmatched")
        score_chunks(context, branch, again, worker)
    return appended


def create_record(context: ScoreRun, audited: AuditedRun) -> RunRecord:
    """Return the row of the run in `runs`."""
    return context.run.record(
        audited.result,
        model_id=context.bundle.metadata.model_id,
        distribution=audited.distribution.dumps(),
    )


def finish(context: ScoreRun, timer: StageTimer, audited: AuditedRun) -> ScoreResult:
    """Write the masks, warn of drift, record the run; return its final figures.

    Raises:
        OutputError: when masks cannot be written; the run is recorded.
    """
    run, result = context.run, audited.result
    masks = write_missing_masks(context)
    timer.end("masks")
    warn_of_drift(result.drift_by)
    result = replace(
        result,
        masks_written=masks.written,
        masks_failed=masks.failed,
        seconds=run.seconds,
        images_per_second=round(result.scored / run.seconds, 1),
        stage_seconds=timer.seconds,
        finished=True,
    )
    if problem := masks.problem:
        problem.exit_code = result.exit_code or problem.exit_code
        result = replace(result, exit_code=problem.exit_code, masks_error=str(problem))
        problem.figures = asdict(result)
    record = create_record(context, replace(audited, result=result))
    context.warehouse.record_run(record, result.snapshot_id)
    if problem:
        raise problem
    return result


def write_missing_masks(context: ScoreRun) -> Masks:
    """Write the masks of published rows that are missing in the folder `masks_out`."""
    settings = context.run.settings
    if not settings.masks_out:
        return Masks()
    published = context.select(context.warehouse.read(PREDICTIONS))
    rows = match_listing(published, context.listing).where(SCORED_ROWS)
    return write_masks(
        rows.select("path", "mask", "scored_at"),
        settings.images,
        settings.masks_out,
        context.bundle.metadata.model_id,
        context.staging,
    )
