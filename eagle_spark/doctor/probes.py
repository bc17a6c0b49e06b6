"""Probes of the doctor, on the driver and on every executor."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Timer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from eagle_spark.doctor.checks import ProcessReport, YarnCapacity
from eagle_spark.errors import EagleError
from eagle_spark.io import absolute_uri, join, list_folder, resolve, split_uri
from eagle_spark.tables import versions

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.accumulators import AccumulatorParam
    from pyspark.sql import SparkSession

_NATIVE_ERROR = re.compile(r"UnsatisfiedLinkError|NoClassDefFoundError|org\.xerial")
MIN_RESPONSE_SECONDS = 5.0  # response time of registered executors, even after the deadline


def probe_process(warehouse: str, probe_uri: str | None = None) -> ProcessReport:
    """Probe this process and its machine.

    Args:
        warehouse: folder in which the process writes, renames, reads and deletes a file.
        probe_uri: URI of a file of the driver, read as well.
    """
    local = os.environ.get("LOCAL_DIRS", tempfile.gettempdir()).split(",")[0]
    return ProcessReport(
        place=" ".join([socket.gethostname(), os.environ.get("CONTAINER_ID", "")]).strip(),
        versions={**versions(), "java": read_java_version()},
        clock=time.time(),
        storage=probe_storage(warehouse, probe_uri),
        free=shutil.disk_usage(local).free,
        native=probe_python_library(),
    )


def probe_python_library() -> str | None:
    """Load a native library of Python; return the error, or None."""
    try:
        import pyarrow.lib  # noqa: F401
    except ImportError as error:
        return (str(error).splitlines() or ["ImportError"])[0]
    return None


def probe_java_library(spark: SparkSession, warehouse: str, seconds: float) -> str | None:
    """Compress with Snappy in Java, which unpacks its library into its temporary folder first.

    Args:
        warehouse: folder in which every executor writes a Parquet file.
        seconds: time limit.

    Returns:
        The error of the driver or an executor; empty when the time limit is exceeded; None without
        error.
    """
    context, folder = spark.sparkContext, join(absolute_uri(warehouse), f"doctor-{uuid4().hex}")
    tasks = context.defaultParallelism
    try:
        with _cancelled_after(context, seconds):
            context._jvm.org.xerial.snappy.Snappy.maxCompressedLength(1)  # type: ignore[union-attr]
            rows = spark.range(tasks, numPartitions=tasks)
            rows.write.option("compression", "snappy").parquet(folder)
    except Exception as error:  # other checks cover other errors
        lines = [line for line in str(error).splitlines() if _NATIVE_ERROR.search(line)]
        return " ".join(lines[0].split())[:200] if lines else ""
    finally:
        storage, path = resolve(folder)
        with suppress(OSError):
            storage.delete(path)
    return None


@contextmanager
def _cancelled_after(context: SparkContext, seconds: float) -> Iterator[Event]:
    """Cancel the jobs of the block after a time limit; yields an event that is set then."""
    group, is_late = uuid4().hex, Event()

    def cancel() -> None:
        is_late.set()
        # Cancels a job that Spark has not started yet as well.
        context._jsc.sc().cancelJobGroupAndFutureJobs(group)

    context.setJobGroup(group, "doctor")
    timer = Timer(seconds, cancel)
    timer.start()
    try:
        yield is_late
    finally:
        timer.cancel()
        context._jsc.clearJobGroup()  # else later jobs of this thread are cancelled too


def read_java_version() -> str:
    """Return the version of this process' Java, or `none` with the error."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    try:
        output = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=20
        ).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"none ({error})"
    match = re.search(r'version "([^"]+)"', output)
    return match.group(1) if match else "none"


def probe_storage(warehouse: str, probe_uri: str | None) -> str | None:
    """Write, rename, read and delete a file in the warehouse; return the error, or None."""
    name = f".eagle-doctor-{uuid4().hex}"
    try:
        storage, path = resolve(join(absolute_uri(warehouse), name))
        try:
            storage.write(path, b"doctor")
            storage.rename(path, f"{path}-renamed")
            if storage.read(f"{path}-renamed", 16) != b"doctor":
                return "the file read differs from the file written"
            if probe_uri:
                driver_storage, driver_path = resolve(probe_uri)
                driver_storage.read(driver_path, 16)
        finally:
            storage.delete(path)
            storage.delete(f"{path}-renamed")
    except (OSError, EagleError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def write_probe_file(warehouse: str) -> tuple[str, float]:
    """Write a file for the executors to read.

    Returns:
        URI, and modification time by the storage's clock in seconds since the epoch.
    """
    folder = join(absolute_uri(warehouse), f"doctor-{uuid4().hex}")
    uri = join(folder, "driver")
    storage, path = resolve(uri)
    storage.write(path, b"doctor")
    (entry,) = list_folder(folder)
    return uri, entry.modified / 1000


def delete_probe_file(uri: str) -> None:
    storage, path = resolve(uri)
    storage.delete(path.rsplit("/", 1)[0])


def wait_for_executors(spark: SparkSession, expected: int, deadline: float) -> int:
    """Wait until so many executors have registered, or the deadline; return their number."""
    while True:
        infos = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
        if len(infos) - 1 >= expected or time.monotonic() > deadline:
            return len(infos) - 1
        time.sleep(0.5)


def _list_accumulator() -> AccumulatorParam[list[ProcessReport]]:
    """Return the parameter of an accumulator that collects reports of unfinished jobs as well."""
    from pyspark.accumulators import AccumulatorParam

    class ListAccumulator(AccumulatorParam[list[ProcessReport]]):
        def zero(self, value: list[ProcessReport]) -> list[ProcessReport]:
            return value[:0]

        def addInPlace(  # noqa: N802 (Spark's name)
            self, value1: list[ProcessReport], value2: list[ProcessReport]
        ) -> list[ProcessReport]:
            return [*value1, *value2]

    return ListAccumulator()


def collect_executor_reports(
    spark: SparkSession, warehouse: str, probe_uri: str, executors: int, slots: int, seconds: float
) -> list[ProcessReport]:
    """Return the report of each executor that responds in time; with a local master, of one.

    Args:
        executors: registered executors.
        slots: simultaneous tasks of each executor.
        seconds: time limit.

    Raises:
        EagleError: when the job fails without a response.
    """
    context = spark.sparkContext
    reports = context.accumulator(list[ProcessReport](), _list_accumulator())

    def probe(_: Iterable[int]) -> Iterator[None]:
        time.sleep(1)  # so that no executor takes the tasks of another
        reports.add([probe_process(warehouse, probe_uri)])
        return iter(())

    tasks = 2 * max(executors * slots, 1)
    with _cancelled_after(context, max(seconds, MIN_RESPONSE_SECONDS)) as is_late:
        try:
            context.parallelize(range(tasks), tasks).mapPartitions(probe).count()
        except Exception as error:
            if not is_late.is_set() and not reports.value:
                raise EagleError(
                    f"executors do not respond: {str(error).splitlines()[0]}"
                ) from error
    return list({report.place: report for report in reports.value}.values())


def read_warehouse_free(spark: SparkSession, warehouse: str) -> int:
    """Return the free bytes of the warehouse's file system."""
    scheme, _, place = split_uri(warehouse)
    if scheme == "file":
        return shutil.disk_usage(place).free
    jvm: Any = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(absolute_uri(warehouse))
    file_system = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    return int(file_system.getStatus(path).getRemaining())


def probe_yarn(spark: SparkSession, queue: str) -> YarnCapacity:
    """Return the current state of the ResourceManager."""
    context: Any = spark.sparkContext
    jvm = context._jvm
    client = jvm.org.apache.hadoop.yarn.client.api.YarnClient.createYarnClient()
    client.init(
        jvm.org.apache.hadoop.yarn.conf.YarnConfiguration(context._jsc.hadoopConfiguration())
    )
    client.start()
    try:
        running = context._gateway.new_array(jvm.org.apache.hadoop.yarn.api.records.NodeState, 1)
        running[0] = jvm.org.apache.hadoop.yarn.api.records.NodeState.RUNNING
        nodes = list(client.getNodeReports(running))
        memory = cores = 0
        for node in nodes:
            capacity, used = node.getCapability(), node.getUsed()
            memory += capacity.getMemorySize() - used.getMemorySize()
            cores += capacity.getVirtualCores() - used.getVirtualCores()
        info = client.getQueueInfo(queue)
        state = f"{queue} is {info.getQueueState()}" if info is not None else None
    finally:
        client.stop()
    return YarnCapacity(len(nodes), memory * 2**20, cores, state)


def find_hadoop_conf() -> tuple[str | None, bool]:
    """Return `HADOOP_CONF_DIR` and whether it has a core-site.xml."""
    folder = os.environ.get("HADOOP_CONF_DIR")
    return folder, bool(folder) and Path(str(folder), "core-site.xml").is_file()
