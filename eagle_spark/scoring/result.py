"""The figures of a run of `score`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eagle_spark.scoring.monitor import Drift


@dataclass(frozen=True)
class ScoreResult:
    """The figures of a run: the JSON line of the job, and `result` in the table `runs`.

    `listed == already_scored + scored + rejected`.

    Attributes:
        listed: files and archive members in the folder.
        already_scored: files that had a prediction before this run.
        scored: files that have a prediction since this run.
        rejected: files whose row holds a reason.
        already_rejected: rejected files that had a row before this run.
        deduplicated: files whose prediction was copied from a row of the same bytes.
        masks_written: number of mask files, PNG.
        masks_failed: masks that could not be written.
        seconds: wall time of the run.
        images_per_second: `scored` divided by `seconds`.
        engine: engine that computed the predictions.
        drift: largest population stability index from the validation split; None without a
            reference, or with fewer than 100 new scored images.
        drift_from_recent_runs: largest population stability index from recent runs of the model;
            None with fewer than 100 images on either side.
        drift_by: reference -> column -> population stability index.
        flagged: review reason -> number of rows.
        exit_code: 0, or `EXIT_NEEDS_ATTENTION`.
        stage_seconds: stage -> wall time.
        task_seconds: stage of a task -> time summed over tasks.
        model_id: id of the model.
        run_id: id of this run.
        published_run_ids: runs that wrote the published rows: this one, and killed ones before it.
        application: id of the Spark application.
        snapshot_id: published snapshot of the table `predictions`.
        finished: whether the run reached its end. False in the record that it publishes with its
            rows; that record remains if the run is killed before its end.
        masks_error: reason why masks could not be written; None without one.
    """

    listed: int
    already_scored: int
    scored: int
    rejected: int
    already_rejected: int
    deduplicated: int
    masks_written: int
    masks_failed: int
    seconds: float
    images_per_second: float
    engine: str
    drift: float | None
    drift_from_recent_runs: float | None
    drift_by: Mapping[str, Drift]
    flagged: Mapping[str, int]
    exit_code: int
    stage_seconds: Mapping[str, float]
    task_seconds: Mapping[str, float]
    model_id: str
    run_id: str
    published_run_ids: list[str]
    application: str
    snapshot_id: int | None = None
    finished: bool = False
    masks_error: str | None = None
