"""The doctor job: run every check and log a table with the fix of each failed one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from threading import Thread
from typing import TYPE_CHECKING

from eagle_spark.doctor.checks import (
    EXECUTOR_LOGS,
    Check,
    check_arrow_batch,
    check_clocks,
    check_driver_storage,
    check_executor_storage,
    check_executors,
    check_hadoop_conf,
    check_memory_overhead,
    check_native_libraries,
    check_space,
    check_speculation,
    check_versions,
    check_yarn,
)
from eagle_spark.doctor.probes import (
    collect_executor_reports,
    delete_probe_file,
    find_hadoop_conf,
    probe_java_library,
    probe_process,
    probe_yarn,
    read_java_version,
    read_warehouse_free,
    wait_for_executors,
    write_probe_file,
)
from eagle_spark.errors import EagleError, PlatformError, UserError, require_extra
from eagle_spark.model.weights import fetch_weights
from eagle_spark.settings import DoctorSettings
from eagle_spark.spark.session import check_java, open_session, use_own_spark
from eagle_spark.tables import Warehouse
from eagle_spark.training.job import TRAINING_CONF
from eagle_spark.training.ranks.launcher import check_ranks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIDE = 224  # default image size of the jobs
# Seconds after the doctor's start. With spark-submit and the driver's start the job stays below a
# minute.
REGISTRATION_DEADLINE = 22.0
RESPONSE_DEADLINE = 42.0
LIBRARY_DEADLINE = 44.0
TIMEOUT = 45.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DoctorResult:
    """Result of the doctor job.

    Attributes:
        checks: number of checks.
        failed: number of failed checks.
        failed_checks: names of the failed checks.
        not_run: names of checks that were not run.
        seconds: wall time.
    """

    checks: int
    failed: int
    failed_checks: list[str]
    not_run: list[str]
    seconds: float


class ChecksFailedError(UserError):
    """Raised when a check failed; `figures` is the result of the job."""

    def __init__(self, result: DoctorResult) -> None:
        super().__init__(f"checks failed: {', '.join(result.failed_checks)}")
        self.figures = asdict(result)


def run_doctor(settings: DoctorSettings) -> DoctorResult:
    """Run all checks and log their table; a check that hangs fails after `TIMEOUT` seconds.

    Raises:
        ChecksFailedError: when a check failed.
    """
    started = time.monotonic()
    finished: list[Check] = []
    worker = Thread(target=_collect_checks, args=(settings, started, finished), daemon=True)
    worker.start()
    worker.join(TIMEOUT)
    checks = [*finished, *([timeout_check(finished)] if worker.is_alive() else [])]
    _log.info("%s", format_table(checks))
    failed = [check.name for check in checks if check.ok is False]
    result = DoctorResult(
        checks=len(checks),
        failed=len(failed),
        failed_checks=failed,
        not_run=[check.name for check in checks if check.ok is None],
        seconds=round(time.monotonic() - started, 2),
    )
    if failed:
        raise ChecksFailedError(result)
    return result


def _collect_checks(settings: DoctorSettings, started: float, checks: list[Check]) -> None:
    """Append each check to `checks` as soon as it is finished."""
    try:
        for check in run_local_checks(settings):
            checks.append(check)
        start_without_executors()
        with open_session("doctor", settings.warehouse, TRAINING_CONF) as spark:
            for check in run_spark_checks(spark, settings, started):
                checks.append(check)
    except EagleError as error:
        checks.append(Check("spark", False, str(error), fix_for_start_failure(str(error))))
        checks.append(Check("tables, executors", None, "Spark does not run"))
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        checks.append(Check("doctor", False, f"{type(error).__name__}: {line}"))


def start_without_executors() -> None:
    """Let Spark start without executors; `check_executors` counts them."""
    check_java()
    use_own_spark()
    from pyspark import SparkContext

    SparkContext.setSystemProperty("spark.scheduler.maxRegisteredResourcesWaitingTime", "0s")


def timeout_check(finished: Sequence[Check]) -> Check:
    """Return the failed check of a doctor that exceeded its timeout."""
    if any(check.name == "spark" for check in finished):
        return Check("the rest", False, f"no response within {TIMEOUT:.0f} s", EXECUTOR_LOGS)
    fix = "a less busy machine; on YARN, free capacity: yarn node -list, yarn application -list"
    return Check("spark", False, f"does not start within {TIMEOUT:.0f} s", fix)


def run_local_checks(settings: DoctorSettings) -> Iterator[Check]:
    """Run the checks that need no Spark."""
    folder, has_core_site = find_hadoop_conf()
    yield run_check("java", check_java, f"version {read_java_version()}")
    yield check_hadoop_conf(folder, settings.warehouse.startswith("hdfs:"), has_core_site)
    yield check_driver_storage(probe_process(settings.warehouse))
    if missing := find_missing_training():
        yield Check("weights, ranks", None, f"train cannot run here: {missing}")
    else:
        usable = f"{settings.weights}: usable"
        yield run_check("weights", lambda: _open_weights(settings.weights), usable)


def find_missing_training() -> str | None:
    """Return what this Python lacks for training, which scoring does not need; or None."""
    try:
        require_extra("train")
    except PlatformError as error:
        return str(error)
    return None


def _open_weights(choice: str) -> None:
    with fetch_weights(choice):
        pass


def run_spark_checks(
    spark: SparkSession, settings: DoctorSettings, started: float
) -> Iterator[Check]:
    """Check settings, tables, executors and YARN.

    Args:
        started: monotonic time of the doctor's start.
    """
    context = spark.sparkContext
    conf = dict(context.getConf().getAll())
    master = context.master or "local"
    local = master.startswith("local")
    yield Check("spark", True, f"{spark.version}, {master}")
    yield run_check("tables", lambda: Warehouse(spark), f"catalog eagle in {settings.warehouse}")
    if not find_missing_training():
        yield run_check("ranks", lambda: check_ranks(spark, settings.ranks), "one slot per rank")
    yield check_arrow_batch(conf, SIDE)
    yield check_speculation(conf)
    yield from check_memory_overhead(conf, master)
    expected = 0 if local else int(conf.get("spark.executor.instances", "2"))
    registered = wait_for_executors(spark, expected, started + REGISTRATION_DEADLINE)
    if master.startswith("yarn"):
        queue = conf.get("spark.yarn.queue", "default")
        yield from check_yarn(conf, probe_yarn(spark, queue), registered)
    probes_started = time.time()
    probe_uri, storage_clock = write_probe_file(settings.warehouse)
    try:
        driver = probe_process(settings.warehouse)
        slots = int(conf.get("spark.executor.cores", "1"))
        remaining = started + RESPONSE_DEADLINE - time.monotonic()
        reports = (
            collect_executor_reports(
                spark, settings.warehouse, probe_uri, registered, slots, remaining
            )
            if local or registered > 0
            else []
        )
    except EagleError as error:
        yield Check("executors", False, str(error), EXECUTOR_LOGS)
        return
    finally:
        delete_probe_file(probe_uri)
    if not (local and reports):
        yield check_executors(max(expected, 1), registered or int(local), reports)
    if not reports:
        yield Check("versions, libraries, storage, clocks, space", None, "no executor responded")
        return
    yield check_versions(driver, reports)
    yield check_executor_storage(reports, settings.warehouse)
    yield check_clocks(probes_started, time.time(), reports, storage_clock)
    yield from check_space(driver, reports, read_warehouse_free(spark, settings.warehouse))
    remaining = started + LIBRARY_DEADLINE - time.monotonic()
    java = probe_java_library(spark, settings.warehouse, remaining)
    yield check_native_libraries(java, [driver, *reports])


def run_check(name: str, attempt: Callable[[], object], observed: str) -> Check:
    """Return a check that passes unless `attempt` raises; an EagleError names its fix itself."""
    try:
        attempt()
    except EagleError as error:
        return Check(name, False, str(error))
    return Check(name, True, observed)


def fix_for_start_failure(message: str) -> str:
    """Return the fix for an error of Spark's start; empty for a message that names it itself."""
    if "max threshold" in message:
        return (
            "--conf spark.executor.memory=1g --conf spark.executor.memoryOverhead=3g, or a higher "
            "yarn.scheduler.maximum-allocation-mb"
        )
    return "the driver's log: yarn logs -applicationId ID" if "did not start" in message else ""


def format_table(checks: Sequence[Check]) -> str:
    """Return one line per check, and a line with the fix below a failed one."""
    states = {True: "ok", False: "FAILED", None: "not run"}
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.name:{width}}  {states[check.ok]:7}  {check.observed}")
        if check.ok is False and check.fix:
            lines.append(f"{'':{width}}  fix:     {check.fix}")
    return "\n".join(lines)
