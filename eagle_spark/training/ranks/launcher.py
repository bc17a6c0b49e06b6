"""Start the ranks in one Spark barrier stage, after all that can be checked has been checked."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from eagle_spark.errors import EagleError, PlatformError
from eagle_spark.progress import Progress
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.failure import RankLost, explain
from eagle_spark.training.ranks.watchdog import Watch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOCAL_RANKS = 2
SLOT_SECONDS = 300.0  # how long a cluster may take to replace executors


def check_ranks(spark: SparkSession, wanted: int | None) -> int:
    """Return how many ranks to start, once Spark can hold them all at the same time.

    Args:
        wanted: what the user asked for; None gives one rank per executor, two on one machine.

    Raises:
        PlatformError: names the conf key to change, and its value.
    """
    context = spark.sparkContext
    conf = dict(context.getConf().getAll())
    return count_ranks(context.master or "local", conf, wanted, context.defaultParallelism)


def count_ranks(master: str, conf: Mapping[str, str], wanted: int | None, found: int) -> int:
    """See `check_ranks`; `conf` is Spark's configuration, `found` the cores behind `local[*]`."""
    if conf.get("spark.dynamicAllocation.enabled", "false").lower() == "true":
        raise PlatformError(
            "training needs all its ranks at once: give spark-submit "
            "--conf spark.dynamicAllocation.enabled=false (it is true)"
        )
    if conf.get("spark.python.worker.reuse", "true").lower() == "true":
        raise PlatformError(
            "training needs fresh Python workers: give spark-submit "
            "--conf spark.python.worker.reuse=false (it is true)"
        )
    per_task = int(conf.get("spark.task.cpus", "1"))
    executors, each = _sizes(master, conf, found)
    slots = executors * each
    if _local(master):
        default = LOCAL_RANKS
        source = f"spark.master={master}"
        mend = f"--master local[{(wanted or default) * per_task}]"
    else:
        default = executors
        cores = conf.get("spark.executor.cores", "1")
        source = f"spark.executor.instances={executors}, spark.executor.cores={cores}"
        mend = f"--conf spark.executor.instances={wanted or default}"
    ranks = wanted or max(min(default, slots), 1)
    if ranks > slots:
        raise PlatformError(
            f"--ranks {ranks}: Spark has {slots} task slots ({source}, "
            f"spark.task.cpus={per_task}); give spark-submit {mend}"
        )
    return ranks


def _local(master: str) -> re.Match[str] | None:
    return re.fullmatch(r"local(?:\[(\*|\d+)(?:,\s*\d+)?\])?", master)


def _sizes(master: str, conf: Mapping[str, str], found: int) -> tuple[int, int]:
    """Return how many executors Spark was asked for, and the task slots of each."""
    per_task = int(conf.get("spark.task.cpus", "1"))
    if local := _local(master):
        cores = local.group(1) or "1"
        return 1, (found if cores == "*" else int(cores)) // per_task
    executors = int(conf.get("spark.executor.instances", "2"))
    return executors, int(conf.get("spark.executor.cores", "1")) // per_task


def wait_for_slots(spark: SparkSession, ranks: int, seconds: float = SLOT_SECONDS) -> None:
    """Wait until no task of an earlier attempt runs and there is an executor for every rank.

    Raises:
        EagleError: when that takes longer than `seconds`.
    """
    context = spark.sparkContext
    conf = dict(context.getConf().getAll())
    master = context.master or "local"
    _, each = _sizes(master, conf, context.defaultParallelism)
    deadline, told = time.monotonic() + seconds, False
    while True:
        infos = context._jsc.sc().statusTracker().getExecutorInfos()
        executors = len(infos) - (0 if _local(master) else 1)  # the driver is among them
        running = sum(info.numRunningTasks() for info in infos)
        if executors * each >= ranks and not running:
            return
        have = f"{executors * each} task slots for {ranks} ranks, {running} old tasks running"
        if time.monotonic() > deadline:
            raise EagleError(f"after {seconds:.0f} s Spark has {have}")
        if not told:
            print(f"waiting for executors: {have}", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.5)


class Teller:
    """Shows on the driver what rank 0 tells of its steps, wherever it runs."""

    def __init__(self, progress: Progress, plan: TrainPlan) -> None:
        self._progress, self._plan, self._begun = progress, plan, False

    def __call__(self, beat: Mapping[str, Any]) -> None:
        step, plan = beat["step"], self._plan
        if not step:
            return
        if not self._begun:
            self._progress.begin(step * plan.batch)
            self._begun = True
        epoch = -(-step // plan.steps)
        note = f"; epoch {epoch} of {plan.epochs}, step {step - (epoch - 1) * plan.steps} of "
        self._progress.update(step * plan.batch, f"{note}{plan.steps}, loss {beat['loss']:.3f}")


def run_ranks(spark: SparkSession, plan: TrainPlan) -> None:
    """Run `train_rank` on every rank, one barrier task each, in new processes.

    Raises:
        RankLost: when a rank died, failed or hung; all of them are ended then.
        UserError: what a rank raised of that kind: trying again would not help.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from spark_tensorflow_distributor import MirroredStrategyRunner

    from eagle_spark.training.ranks.rank import train_rank

    context, group = spark.sparkContext, uuid4().hex
    # The strategy is made by the rank itself, after it has capped TensorFlow's threads.
    runner = MirroredStrategyRunner(
        num_slots=plan.ranks, use_gpu=plan.use_gpu, use_custom_strategy=True
    )
    context.setJobGroup(group, f"train on {plan.ranks} ranks")
    progress = Progress("train", plan.steps * plan.epochs * plan.batch)
    watch = Watch(
        *(plan.staging, plan.ranks, plan.stall, lambda: context.cancelJobGroup(group)),
        Teller(progress, plan),
    )
    try:
        with progress, watch:
            runner.run(train_rank, plan=plan)
    except (Py4JJavaError, PySparkException) as error:
        text = watch.complaint
        raise (RankLost(text) if text else explain(str(error))) from error
    finally:
        context._jsc.clearJobGroup()
