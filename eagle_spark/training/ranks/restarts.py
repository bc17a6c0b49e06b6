"""Restarts of the ranks: when one dies, the driver starts all of them from the last checkpoint.

Spark does not retry a barrier stage that returns a result, so the driver does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eagle_spark.errors import EagleError
from eagle_spark.io import join, resolve
from eagle_spark.training.checkpoint import newest_checkpoint
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.failure import RankLostError, RankRaisedError
from eagle_spark.training.ranks.launcher import run_ranks, wait_for_slots

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOutcome:
    """The end of a training on all ranks.

    Attributes:
        staging: URI of the folder with the results of the last attempt.
        restart_reasons: the reason of each restart, in order.
        resumed_from: steps in the checkpoint of an earlier driver; 0 without one.
    """

    staging: str
    restart_reasons: tuple[str, ...]
    resumed_from: int


def train_ranks(
    spark: SparkSession,
    plan: TrainPlan,
    max_restarts: int,
    resume: bool,
    check_lease: Callable[[], None] = lambda: None,
) -> TrainingOutcome:
    """Train to the end of the plan, with at most `max_restarts` restarts of all ranks.

    Args:
        resume: continue from the checkpoints of an earlier driver; else they are deleted.
        check_lease: raises when another driver has taken over this training; called before each
            start.

    Raises:
        UserError: an error of that class that a rank raised, see `run_ranks`.
        EagleError: when the last permitted attempt failed.
    """
    check_lease()
    resumed_from = _resume_or_reset(plan, resume)
    reasons: list[str] = []
    while True:
        wait_for_slots(spark, plan.ranks)
        check_lease()
        start = newest_checkpoint(plan.checkpoints)
        attempt = replace(
            plan,
            staging=join(plan.staging, f"attempt-{len(reasons) + 1}"),
            start=start.uri if start else None,
        )
        try:
            run_ranks(spark, attempt)
            return TrainingOutcome(attempt.staging, tuple(reasons), resumed_from)
        except RankLostError as error:
            failure = error
        last = newest_checkpoint(plan.checkpoints)
        progress = f"{last.step if last else 0} of {plan.steps * plan.epochs} steps are kept"
        repeated = (
            isinstance(failure, RankRaisedError)
            and reasons[-1:] == [str(failure)]
            and last == start
        )
        if repeated or len(reasons) == max_restarts:
            raise EagleError(
                f"training stopped after {len(reasons)} restarts (`max_restarts` {max_restarts}): "
                f"{failure}{', twice at the same step' if repeated else ''}; {progress}; "
                "`resume` continues from there"
            ) from failure
        reasons.append(str(failure))
        _log.info(
            "training was interrupted: %s; restart %d of %d; %s",
            *(failure, len(reasons), max_restarts, progress),
        )


def _resume_or_reset(plan: TrainPlan, resume: bool) -> int:
    """Keep or delete the checkpoints of an earlier driver; return the number of steps kept."""
    checkpoint = newest_checkpoint(plan.checkpoints)
    if checkpoint is None:
        if resume:
            _log.info("no checkpoint of this training to resume from; starting at the beginning")
        return 0
    progress = f"{checkpoint.step} of {plan.steps * plan.epochs} steps"
    if resume:
        _log.info("resuming after %s", progress)
        return checkpoint.step
    _log.info(
        "this training was stopped after %s; starting over because `resume` was not given",
        progress,
    )
    delete_checkpoints(plan)
    return 0


def delete_checkpoints(plan: TrainPlan) -> None:
    """Delete the checkpoints of the training."""
    storage, path = resolve(plan.checkpoints)
    storage.delete(path)
