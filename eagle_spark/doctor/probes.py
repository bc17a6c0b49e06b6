"""What is looked at, on the driver and on every executor."""

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

from eagle_spark.doctor.checks import Report, Yarn
from eagle_spark.errors import EagleError
from eagle_spark.io import absolute_uri, join, list_folder, locate, split_uri
from eagle_spark.tables import versions

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.accumulators import AccumulatorParam
    from pyspark.sql import SparkSession

_NOT_LOADED = re.compile(r"UnsatisfiedLinkError|NoClassDefFoundError|org\.xerial")
LEAST_SECONDS = 5.0  # that executors which are there have for their answer


def report(warehouse: str, seen: str | None = None) -> Report:
    """Look at this process and its machine.

    Args:
        warehouse: where it writes, renames, reads and deletes a file of its own.
        seen: URI of a file that the driver wrote, to be read as well.
    """
    local = os.environ.get("LOCAL_DIRS", tempfile.gettempdir()).split(",")[0]
    return Report(
        place=" ".join([socket.gethostname(), os.environ.get("CONTAINER_ID", "")]).strip(),
        versions={**versions(), "java": java_version()},
        clock=time.time(),
        storage=try_storage(warehouse, seen),
        free=shutil.disk_usage(local).free,
        native=try_library(),
    )


def try_library() -> str | None:
    """Load a native library of Python's; return what went wrong, or None."""
    try:
        import pyarrow.lib  # noqa: F401
    except ImportError as error:
        return (str(error).splitlines() or ["ImportError"])[0]
    return None


def try_java_library(spark: SparkSession, warehouse: str, seconds: float) -> str | None:
    """Let Java compress with Snappy, whose library it unpacks into its temporary folder first.

    Args:
        warehouse: where every executor writes a Parquet file into a folder of the doctor's own.
        seconds: how long they may take.

    Returns:
        What went wrong on the driver or an executor; empty where it could not be tried in time;
        None where nothing did.
    """
    context, folder = spark.sparkContext, join(absolute_uri(warehouse), f"doctor-{uuid4().hex}")
    tasks = context.defaultParallelism
    try:
        with _cancelled_after(context, seconds):
            context._jvm.org.xerial.snappy.Snappy.maxCompressedLength(1)  # type: ignore[union-attr]
            rows = spark.range(tasks, numPartitions=tasks)
            rows.write.option("compression", "snappy").parquet(folder)
    except Exception as error:  # others than these are for other checks
        lines = [line for line in str(error).splitlines() if _NOT_LOADED.search(line)]
        return " ".join(lines[0].split())[:200] if lines else ""
    finally:
        storage, path = locate(folder)
        with suppress(OSError):
            storage.delete(path)
    return None


@contextmanager
def _cancelled_after(context: SparkContext, seconds: float) -> Iterator[Event]:
    """Cancel the jobs of the block when the time is up; the event is set then."""
    group, is_late = uuid4().hex, Event()

    def give_up() -> None:
        is_late.set()
        # Also where Spark has not begun with the job yet.
        context._jsc.sc().cancelJobGroupAndFutureJobs(group)

    context.setJobGroup(group, "doctor")
    late = Timer(seconds, give_up)
    late.start()
    try:
        yield is_late
    finally:
        late.cancel()
        context._jsc.clearJobGroup()  # else later jobs of this thread are cancelled too


def java_version() -> str:
    """Return what the Java of this process' environment calls itself, or why it does not."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    try:
        shown = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=20
        ).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"none ({error})"
    found = re.search(r'version "([^"]+)"', shown)
    return found.group(1) if found else "none"


def try_storage(warehouse: str, seen: str | None) -> str | None:
    """Write, rename, read and delete a file in the warehouse; return what went wrong, or None."""
    name = f".eagle-doctor-{uuid4().hex}"
    try:
        storage, path = locate(join(absolute_uri(warehouse), name))
        try:
            storage.write(path, b"doctor")
            storage.rename(path, f"{path}-renamed")
            if storage.read(f"{path}-renamed", 16) != b"doctor":
                return "what was written is not what is read"
            if seen:
                there, place = locate(seen)
                there.read(place, 16)
        finally:
            storage.delete(path)
            storage.delete(f"{path}-renamed")
    except (OSError, EagleError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def leave_file(warehouse: str) -> tuple[str, float]:
    """Leave a file for executors to read; return its URI and its time by the storage's clock."""
    folder = join(absolute_uri(warehouse), f"doctor-{uuid4().hex}")
    uri = join(folder, "driver")
    storage, path = locate(uri)
    storage.write(path, b"doctor")
    (entry,) = list_folder(folder)
    return uri, entry.modified / 1000


def remove_file(uri: str) -> None:
    storage, path = locate(uri)
    storage.delete(path.rsplit("/", 1)[0])


def executors(spark: SparkSession, wanted: int, deadline: float) -> int:
    """Wait until so many executors have come, or the deadline; return how many there are."""
    while True:
        infos = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
        if len(infos) - 1 >= wanted or time.monotonic() > deadline:
            return len(infos) - 1
        time.sleep(0.5)


def _together() -> AccumulatorParam[list[Report]]:
    """Return how an accumulator gathers a list: what has answered is there even if a job is not."""
    from pyspark.accumulators import AccumulatorParam

    class Together(AccumulatorParam[list[Report]]):
        def zero(self, value: list[Report]) -> list[Report]:
            return value[:0]

        def addInPlace(  # noqa: N802 (Spark's name)
            self, value1: list[Report], value2: list[Report]
        ) -> list[Report]:
            return [*value1, *value2]

    return Together()


def ask_executors(
    spark: SparkSession, warehouse: str, seen: str, there: int, slots: int, seconds: float
) -> list[Report]:
    """Return a report of each executor that answers in time: of the one process on one machine.

    Args:
        there: executors that have come.
        slots: tasks that each runs at a time.
        seconds: how long they may take.

    Raises:
        EagleError: when they cannot be asked.
    """
    context = spark.sparkContext
    answers = context.accumulator(list[Report](), _together())

    def look(_: Iterable[int]) -> Iterator[None]:
        time.sleep(1)  # so that no executor takes the tasks of another
        answers.add([report(warehouse, seen)])
        return iter(())

    tasks = 2 * max(there * slots, 1)
    with _cancelled_after(context, max(seconds, LEAST_SECONDS)) as is_late:
        try:
            context.parallelize(range(tasks), tasks).mapPartitions(look).count()
        except Exception as error:
            if not is_late.is_set() and not answers.value:
                raise EagleError(
                    f"executors do not answer: {str(error).splitlines()[0]}"
                ) from error
    return list({one.place: one for one in answers.value}.values())


def warehouse_space(spark: SparkSession, warehouse: str) -> int:
    """Return the free bytes of the file system that holds the warehouse."""
    scheme, _, place = split_uri(warehouse)
    if scheme == "file":
        return shutil.disk_usage(place).free
    jvm: Any = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(absolute_uri(warehouse))
    files = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    return int(files.getStatus(path).getRemaining())


def ask_yarn(spark: SparkSession, queue: str) -> Yarn:
    """Return what the ResourceManager says now."""
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
            has, used = node.getCapability(), node.getUsed()
            memory += has.getMemorySize() - used.getMemorySize()
            cores += has.getVirtualCores() - used.getVirtualCores()
        found = client.getQueueInfo(queue)
        state = f"{queue} is {found.getQueueState()}" if found is not None else None
    finally:
        client.stop()
    return Yarn(len(nodes), memory * 2**20, cores, state)


def hadoop_conf() -> tuple[str | None, bool]:
    """Return `HADOOP_CONF_DIR` and whether it holds a core-site.xml."""
    folder = os.environ.get("HADOOP_CONF_DIR")
    return folder, bool(folder) and Path(str(folder), "core-site.xml").is_file()
