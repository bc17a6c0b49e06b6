"""Training that goes on when ranks die: the driver starts them anew from the last checkpoint.

Spark never tries a barrier stage again that returns a result, so this is the driver's work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eagle_spark.errors import EagleError
from eagle_spark.io import join, locate
from eagle_spark.training.checkpoint import newest_checkpoint
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.failure import RankLost, RankRaised
from eagle_spark.training.ranks.launcher import run_ranks, wait_for_slots

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Trained:
    """How the ranks came to their end.

    Attributes:
        staging: URI of the folder in which the last attempt left its results.
        restart_reasons: why each restart was needed, in order.
        resumed_from: steps that a driver before this one had left a checkpoint of.
    """

    staging: str
    restart_reasons: tuple[str, ...]
    resumed_from: int


def train_ranks(
    spark: SparkSession,
    plan: TrainPlan,
    max_restarts: int,
    resume: bool,
    check: Callable[[], None] = lambda: None,
) -> Trained:
    """Train to the plan's end, with at most `max_restarts` new starts of all ranks.

    Args:
        resume: go on from checkpoints that a driver before this one left; else they are removed.
        check: raises where another driver has taken up this training; asked before each start.

    Raises:
        UserError: what a rank raised of that kind, see `run_ranks`.
        EagleError: when the last attempt that is allowed has failed.
    """
    check()
    resumed_from = _begin(plan, resume)
    reasons: list[str] = []
    while True:
        wait_for_slots(spark, plan.ranks)
        check()
        start = newest_checkpoint(plan.checkpoints)
        attempt = replace(
            plan,
            staging=join(plan.staging, f"attempt-{len(reasons) + 1}"),
            start=start.uri if start else None,
        )
        try:
            run_ranks(spark, attempt)
            return Trained(attempt.staging, tuple(reasons), resumed_from)
        except RankLost as error:
            lost = error
        done = newest_checkpoint(plan.checkpoints)
        finished = f"{done.step if done else 0} of {plan.steps * plan.epochs} steps are kept"
        again = isinstance(lost, RankRaised) and reasons[-1:] == [str(lost)] and done == start
        if again or len(reasons) == max_restarts:
            raise EagleError(
                f"training stopped after {len(reasons)} restarts (--max-restarts {max_restarts}): "
                f"{lost}{', twice at the same step' if again else ''}; {finished}; "
                "--resume goes on from there"
            ) from lost
        reasons.append(str(lost))
        _tell(
            f"training was interrupted: {lost}; restart {len(reasons)} of {max_restarts}; "
            f"{finished}"
        )


def _begin(plan: TrainPlan, resume: bool) -> int:
    """Keep or remove what a driver before this one left; return the steps kept."""
    left = newest_checkpoint(plan.checkpoints)
    if left is None:
        if resume:
            _tell("no checkpoint of this training to resume from; starting at the beginning")
        return 0
    done = f"{left.step} of {plan.steps * plan.epochs} steps"
    if resume:
        _tell(f"resuming after {done}")
        return left.step
    _tell(f"this training was stopped after {done}; starting anew, for want of --resume")
    forget(plan)
    return 0


def forget(plan: TrainPlan) -> None:
    """Remove the checkpoints of the training."""
    storage, path = locate(plan.checkpoints)
    storage.delete(path)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
