"""The doctor: every check in turn, as a table, with what mends each one that fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any

from eagle_spark.doctor.checks import (
    SEE_LOGS,
    Check,
    check_clocks,
    check_driver_storage,
    check_executors,
    check_hadoop_conf,
    check_native,
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
    java_version,
    leave_file,
    remove_file,
    report,
    try_java_library,
    warehouse_space,
)
from eagle_spark.errors import EagleError, UserError
from eagle_spark.model.weights import weights_file
from eagle_spark.settings import DoctorSettings
from eagle_spark.spark.session import check_java, open_session, use_own_spark
from eagle_spark.tables import Warehouse
from eagle_spark.training.job import RULES
from eagle_spark.training.ranks.launcher import check_ranks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIDE = 224  # of the images that the jobs work on, if not told otherwise
# Seconds after the doctor's start. With spark-submit and a driver's start all is told in a minute.
EXECUTORS_COME = 22.0
EXECUTORS_ANSWER = 42.0
LIBRARIES_LOADED = 44.0
SECONDS = 45.0


class ChecksFailed(UserError):
    """Raised when the environment is not fit; carries the doctor's figures."""

    def __init__(self, figures: dict[str, Any]) -> None:
        super().__init__(f"checks failed: {', '.join(figures['failed_checks'])}")
        self.figures = figures


def examine(settings: DoctorSettings) -> dict[str, Any]:
    """Run all checks, print their table on standard error, and return the figures.

    What hangs is not waited for: after `SECONDS` the table says so.

    Raises:
        ChecksFailed: when one of them failed.
    """
    started = time.monotonic()
    found: list[Check] = []
    worker = Thread(target=_collect, args=(settings, started, found), daemon=True)
    worker.start()
    worker.join(SECONDS)
    checks = [*found, *([unfinished(found)] if worker.is_alive() else [])]
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


def _collect(settings: DoctorSettings, started: float, found: list[Check]) -> None:
    """Append every check to `found` as soon as it is made."""
    try:
        for check in before_spark(settings):
            found.append(check)
        start_without_executors()
        with open_session("doctor", settings.warehouse, RULES) as spark:
            for check in with_spark(spark, settings, started):
                found.append(check)
    except EagleError as error:
        found.append(Check("spark", False, str(error), mend_of_start(str(error))))
        found.append(Check("tables, executors", None, "Spark does not run"))
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        found.append(Check("doctor", False, f"{type(error).__name__}: {line}"))


def start_without_executors() -> None:
    """Let Spark start although no executor comes: how many do is for the doctor to say."""
    check_java()
    use_own_spark()
    from pyspark import SparkContext

    SparkContext.setSystemProperty("spark.scheduler.maxRegisteredResourcesWaitingTime", "0s")


def unfinished(found: Sequence[Check]) -> Check:
    """Return what is to be said when time is up and these checks have been made."""
    if any(check.name == "spark" for check in found):
        return Check("the rest", False, f"no answer after {SECONDS:.0f} s", SEE_LOGS)
    mend = "a machine less busy; on YARN: yarn node -list, yarn application -list: is there room?"
    return Check("spark", False, f"does not start within {SECONDS:.0f} s", mend)


def before_spark(settings: DoctorSettings) -> Iterator[Check]:
    """Check what can be seen without Spark."""
    folder, is_there = hadoop_conf()
    yield tried("java", check_java, f"version {java_version()}")
    yield check_hadoop_conf(folder, settings.warehouse.startswith("hdfs:"), is_there)
    yield check_driver_storage(report(settings.warehouse))
    yield tried("weights", lambda: _open_weights(settings.weights), f"{settings.weights}: usable")


def _open_weights(choice: str) -> None:
    with weights_file(choice):
        pass


def with_spark(spark: SparkSession, settings: DoctorSettings, started: float) -> Iterator[Check]:
    """Check settings, tables, executors and YARN; `started`: when the doctor did."""
    context = spark.sparkContext
    conf = dict(context.getConf().getAll())
    master = context.master or "local"
    local = master.startswith("local")
    yield Check("spark", True, f"{spark.version}, {master}")
    yield tried("tables", lambda: Warehouse(spark), f"catalog eagle in {settings.warehouse}")
    yield tried("ranks", lambda: check_ranks(spark, settings.ranks), "every rank has its slot")
    yield check_rows(conf, SIDE)
    yield check_writes(conf)
    yield from check_overhead(conf, master)
    wanted = 0 if local else int(conf.get("spark.executor.instances", "2"))
    there = executors(spark, wanted, started + EXECUTORS_COME)
    if master.startswith("yarn"):
        queue = conf.get("spark.yarn.queue", "default")
        yield from check_yarn(conf, ask_yarn(spark, queue), there)
    asked = time.time()
    seen, stored = leave_file(settings.warehouse)
    try:
        driver = report(settings.warehouse)
        slots = int(conf.get("spark.executor.cores", "1"))
        left = started + EXECUTORS_ANSWER - time.monotonic()
        answered = local or there > 0
        reports = (
            ask_executors(spark, settings.warehouse, seen, there, slots, left) if answered else []
        )
    except EagleError as error:
        yield Check("executors", False, str(error), SEE_LOGS)
        return
    finally:
        remove_file(seen)
    if not (local and reports):
        yield check_executors(max(wanted, 1), there or int(local), reports)
    if not reports:
        yield Check("versions, libraries, storage, clocks, space", None, "no executor answers")
        return
    yield check_versions(driver, reports)
    yield check_storage(reports, settings.warehouse)
    yield check_clocks(asked, time.time(), reports, stored)
    yield from check_space(driver, reports, warehouse_space(spark, settings.warehouse))
    left = started + LIBRARIES_LOADED - time.monotonic()
    java = try_java_library(spark, settings.warehouse, left)
    yield check_native(java, [driver, *reports])


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
    return "the driver's log: yarn logs -applicationId ID" if "did not start" in message else ""


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
