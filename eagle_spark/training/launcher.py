"""Start the ranks in one Spark barrier stage, after all that can be checked has been checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eagle_spark.errors import PlatformError
from eagle_spark.training.plan import TrainPlan

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOCAL_RANKS = 2


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
    local = re.fullmatch(r"local(?:\[(\*|\d+)(?:,\s*\d+)?\])?", master)
    if local:
        cores = local.group(1) or "1"
        default = LOCAL_RANKS
        slots = (found if cores == "*" else int(cores)) // per_task
        source = f"spark.master={master}"
        mend = f"--master local[{(wanted or default) * per_task}]"
    else:
        default = int(conf.get("spark.executor.instances", "2"))
        each = int(conf.get("spark.executor.cores", "1"))
        slots = default * (each // per_task)
        source = f"spark.executor.instances={default}, spark.executor.cores={each}"
        mend = f"--conf spark.executor.instances={wanted or default}"
    ranks = wanted or max(min(default, slots), 1)
    if ranks > slots:
        raise PlatformError(
            f"--ranks {ranks}: Spark has {slots} task slots ({source}, "
            f"spark.task.cpus={per_task}); give spark-submit {mend}"
        )
    return ranks


def run_ranks(spark: SparkSession, plan: TrainPlan) -> dict[str, Any]:
    """Run `train_rank` on every rank, one barrier task each; return what rank 0 returns."""
    from spark_tensorflow_distributor import MirroredStrategyRunner

    from eagle_spark.training.loop import train_rank

    # The strategy is made by the rank itself, after it has capped TensorFlow's threads.
    runner = MirroredStrategyRunner(num_slots=plan.ranks, use_gpu=False, use_custom_strategy=True)
    spark.sparkContext.setJobDescription(f"train on {plan.ranks} ranks")
    record: dict[str, Any] = runner.run(train_rank, plan=plan)
    return record
