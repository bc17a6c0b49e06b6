"""The doctor: every check in turn, as a table, with what mends each one that fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eagle_spark.doctor.checks import (
    Check,
    check_clocks,
    check_driver_storage,
    check_executors,
    check_hadoop_conf,
    check_overhead,
    check_rows,
    check_space,
    check_storage,
    check_versions,
    check_writes,
    check_yarn,
)
from eagle_spark.doctor.probes import (
    ask_executors,
    ask_yarn,
    executors,
    hadoop_conf,
    leave_file,
    remove_file,
    report,
    warehouse_space,
)
from eagle_spark.errors import EagleError, UserError
from eagle_spark.model.weights import weights_file
from eagle_spark.session import check_java, open_session
from eagle_spark.settings import DoctorSettings
from eagle_spark.tables import Warehouse
from eagle_spark.training.launcher import check_ranks
from eagle_spark.training.train import RULES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIDE = 224  # of the images that the jobs work on, if not told otherwise


class ChecksFailed(UserError):
    """Raised when the environment is not fit; carries the doctor's figures."""

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__(f"checks failed: {', '.join(figures['failed_checks'])}")
        self.figures = figures


def examine(settings: DoctorSettings) -> dict[str, Any]:
    """Run all checks, print their table on standard error, and return the figures.

    Raises:
        ChecksFailed: when one of them failed.
    """
    started = time.monotonic()
    checks = before_spark(settings)
    try:
        with open_session("doctor", settings.warehouse, RULES) as spark:
            checks += with_spark(spark, settings)
    except EagleError as error:
        checks.append(Check("spark", False, str(error), mend_of_start(str(error))))
        checks.append(Check("tables, executors", None, "Spark does not run"))
    print(table(checks), file=sys.stderr, flush=True)
    failed = [check.name for check in checks if check.ok is False]
    figures = {
        "checks": len(checks),
        "failed": len(failed),
        "failed_checks": failed,
        "not_run": [check.name for check in checks if check.ok is None],
        "seconds": round(time.monotonic() - started, 2),
    }
    if failed:
        raise ChecksFailed(figures)
    return figures


def before_spark(settings: DoctorSettings) -> list[Check]:
    """Check what can be seen without Spark."""
    folder, is_there = hadoop_conf()
    here = report(settings.warehouse)
    return [
        tried("java", check_java, f"version {here.versions['java']}"),
        check_hadoop_conf(folder, settings.warehouse.startswith("hdfs:"), is_there),
        check_driver_storage(here),
        tried("weights", lambda: _open_weights(settings.weights), f"{settings.weights}: usable"),
    ]


def _open_weights(choice: str) -> None:
    with weights_file(choice):
        pass


def with_spark(spark: SparkSession, settings: DoctorSettings) -> list[Check]:
    """Check settings, tables, executors and YARN."""
    context = spark.sparkContext
    conf = dict(context.getConf().getAll())
    master = context.master or "local"
    local = master.startswith("local")
    checks = [
        Check("spark", True, f"{spark.version}, {master}"),
        tried("tables", lambda: Warehouse(spark), f"catalog eagle in {settings.warehouse}"),
        tried("ranks", lambda: check_ranks(spark, settings.ranks), "every rank has its slot"),
        check_rows(conf, SIDE),
        check_writes(conf),
        *check_overhead(conf, master),
    ]
    wanted = 0 if local else int(conf.get("spark.executor.instances", "2"))
    there = executors(spark, wanted)
    started = time.time()
    seen, stored = leave_file(settings.warehouse)
    try:
        driver = report(settings.warehouse)
        slots = int(conf.get("spark.executor.cores", "1"))
        answered = local or there > 0
        reports = ask_executors(spark, settings.warehouse, seen, there, slots) if answered else []
    except EagleError as error:
        mend = "their logs: yarn logs -applicationId ID"
        return [*checks, Check("executors", False, str(error), mend)]
    finally:
        remove_file(seen)
    checks += [
        *([] if local else [check_executors(wanted, reports)]),
        check_versions(driver, reports),
        check_storage(reports, settings.warehouse),
        check_clocks(started, time.time(), reports, stored),
        *check_space(driver, reports, warehouse_space(spark, settings.warehouse)),
    ]
    if master.startswith("yarn"):
        queue = conf.get("spark.yarn.queue", "default")
        checks += check_yarn(conf, ask_yarn(spark, queue), there)
    return checks


def tried(name: str, attempt: Callable[[], object], found: str) -> Check:
    """Return a check that holds when `attempt` raises nothing; our errors say what mends them."""
    try:
        attempt()
    except EagleError as error:
        return Check(name, False, str(error))
    return Check(name, True, found)


def mend_of_start(message: str) -> str:
    """Return what lets Spark start, where its message does not say so itself."""
    if "max threshold" in message:
        return (
            "--conf spark.executor.memory=1g --conf spark.executor.memoryOverhead=3g, or a higher "
            "yarn.scheduler.maximum-allocation-mb"
        )
    return ""


def table(checks: Sequence[Check]) -> str:
    """Return the table, one line a check, and below a failed one what mends it."""
    words = {True: "ok", False: "FAILED", None: "not run"}
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.name:{width}}  {words[check.ok]:7}  {check.found}")
        if check.ok is False and check.mend:
            lines.append(f"{'':{width}}  mend:    {check.mend}")
    return "\n".join(lines)
