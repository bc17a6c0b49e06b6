"""Start the ranks in one Spark barrier stage, after all checks that need no rank."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from eagle_spark.errors import EagleError, PlatformError
from eagle_spark.progress import Progress
from eagle_spark.training.plan import TrainPlan
from eagle_spark.training.ranks.failure import RankLostError, parse_stage_failure
from eagle_spark.training.ranks.watchdog import Heartbeat, Watchdog

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOCAL_RANKS = 2
SLOT_TIMEOUT_SECONDS = 300.0  # a cluster may take this long to replace executors

_log = logging.getLogger(__name__)


def check_ranks(spark: SparkSession, requested: int | None) -> int:
    """Return the number of ranks to start, all of which Spark can run at the same time.

    Args:
        requested: the option `--ranks`; None gives one rank per executor, two on one machine.

    Raises:
        PlatformError: names the conf key to change, and its value.
    """
    context = spark.sparkContext
    conf = dict(context.getConf().getAll())
    return count_ranks(context.master or "local", conf, requested, context.defaultParallelism)


def count_ranks(
    master: str, conf: Mapping[str, str], requested: int | None, local_cores: int
) -> int:
    """See `check_ranks`; `conf` is Spark's configuration, `local_cores` those of `local[*]`."""
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
    task_cpus = int(conf.get("spark.task.cpus", "1"))
    executors, slots_each = _executor_slots(master, conf, local_cores)
    slots = executors * slots_each
    if _match_local(master):
        default = LOCAL_RANKS
        source = f"spark.master={master}"
        fix = f"--master local[{(requested or default) * task_cpus}]"
    else:
        default = executors
        cores = conf.get("spark.executor.cores", "1")
        source = f"spark.executor.instances={executors}, spark.executor.cores={cores}"
        fix = f"--conf spark.executor.instances={requested or default}"
    ranks = requested or max(min(default, slots), 1)
    if ranks > slots:
        raise PlatformError(
            f"`ranks` {ranks}: Spark has {slots} task slots ({source}, "
            f"spark.task.cpus={task_cpus}); give spark-submit {fix}"
        )
    return ranks


def _match_local(master: str) -> re.Match[str] | None:
    return re.fullmatch(r"local(?:\[(\*|\d+)(?:,\s*\d+)?\])?", master)


def _executor_slots(master: str, conf: Mapping[str, str], local_cores: int) -> tuple[int, int]:
    """Return the configured number of executors, and the task slots of each."""
    task_cpus = int(conf.get("spark.task.cpus", "1"))
    if local := _match_local(master):
        cores = local.group(1) or "1"
        return 1, (local_cores if cores == "*" else int(cores)) // task_cpus
    executors = int(conf.get("spark.executor.instances", "2"))
    return executors, int(conf.get("spark.executor.cores", "1")) // task_cpus


def wait_for_slots(spark: SparkSession, ranks: int, seconds: float = SLOT_TIMEOUT_SECONDS) -> None:
    """Wait until no task of an earlier attempt runs and there is an executor for every rank.

    Raises:
        EagleError: when that takes longer than `seconds`.
    """
    context = spark.sparkContext
    conf = dict(context.getConf().getAll())
    master = context.master or "local"
    _, slots_each = _executor_slots(master, conf, context.defaultParallelism)
    deadline, logged = time.monotonic() + seconds, False
    while True:
        infos = context._jsc.sc().statusTracker().getExecutorInfos()
        executors = len(infos) - (0 if _match_local(master) else 1)  # the driver is among them
        running = sum(info.numRunningTasks() for info in infos)
        slots = executors * slots_each
        if slots >= ranks and not running:
            return
        state = f"{slots} task slots for {ranks} ranks, {running} old tasks running"
        if time.monotonic() > deadline:
            raise EagleError(f"after {seconds:.0f} s Spark has {state}")
        if not logged:
            _log.info("waiting for executors: %s", state)
            logged = True
        time.sleep(0.5)


class ProgressReporter:
    """Shows the progress of rank 0 on the driver."""

    def __init__(self, progress: Progress, plan: TrainPlan) -> None:
        self._progress, self._plan, self._started = progress, plan, False

    def __call__(self, heartbeat: Heartbeat) -> None:
        step, plan = heartbeat["step"], self._plan
        if not step:
            return
        if not self._started:
            self._progress.begin(step * plan.batch)
            self._started = True
        epoch = -(-step // plan.steps)
        note = f"; epoch {epoch} of {plan.epochs}, step {step - (epoch - 1) * plan.steps} of "
        note += f"{plan.steps}, loss {heartbeat['loss']:.3f}"
        self._progress.update(step * plan.batch, note)


def run_ranks(spark: SparkSession, plan: TrainPlan) -> None:
    """Run `train_rank` on every rank, one barrier task each, in new processes.

    Raises:
        RankLostError: when a rank died, failed or hung; the other ranks are ended as well.
        UserError: an error of that class that a rank raised; a restart would not help.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException
    from spark_tensorflow_distributor import MirroredStrategyRunner

    from eagle_spark.training.ranks.rank import train_rank

    context, group = spark.sparkContext, uuid4().hex
    # The rank itself makes the strategy, after it has capped TensorFlow's threads.
    runner = MirroredStrategyRunner(
        num_slots=plan.ranks, use_gpu=plan.use_gpu, use_custom_strategy=True
    )
    context.setJobGroup(group, f"train on {plan.ranks} ranks")
    progress = Progress("train", plan.steps * plan.epochs * plan.batch)
    watchdog = Watchdog(
        *(plan.staging, plan.ranks, plan.stall, lambda: context.cancelJobGroup(group)),
        ProgressReporter(progress, plan),
    )
    try:
        with progress, watchdog:
            runner.run(train_rank, plan=plan)
    except (Py4JJavaError, PySparkException) as error:
        reason = watchdog.stall_reason
        raise (RankLostError(reason) if reason else parse_stage_failure(str(error))) from error
    finally:
        context._jsc.clearJobGroup()
