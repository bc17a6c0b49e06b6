"""The Spark session and the rules it runs by."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from eagle_spark.errors import OutputError, PlatformError
from eagle_spark.io import absolute_uri, join, resolve
from eagle_spark.spark.archive import add_archive
from eagle_spark.spark.daemon import IMPORTS_VARIABLE
from eagle_spark.spark.environment import (
    JAVA_REQUIREMENT,
    build_spark_environment,
    find_java,
    find_java_release,
    list_foreign_sparks,
)

if TYPE_CHECKING:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

CATALOG = "eagle"
GLOB_CHARACTERS = "*?[]{}"
ICEBERG_JAR = "iceberg-spark-runtime-4.1_2.13"
ICEBERG_EXTENSIONS = "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
DAEMON_MODULE = "eagle_spark.spark.daemon"
_GATEWAY_PORT = "PYSPARK_GATEWAY_PORT"  # a variable that spark-submit sets
_SUBMIT_ARGUMENTS = "PYSPARK_SUBMIT_ARGS"  # of the spark-submit that a Python process starts

# What stands here holds unless the site's own configuration says otherwise.
DEFAULT_CONF = {
    "spark.sql.extensions": ICEBERG_EXTENSIONS,
    "spark.sql.session.timeZone": "UTC",
    # 10,000 rows of images, the default, are gigabytes; 64 cost nothing in speed.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "64",
    # toPandas by Arrow instead of row by row.
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Spark sets it for tasks of rows alone, which then run in other workers: two models a slot.
    "spark.executorEnv.SPARK_SIMPLIFIED_TRACEBACK": "1",
    # A second copy of a task that writes would write twice.
    "spark.speculation": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "WARN",
}
LOCAL_CONF = {
    # As on a cluster, the job does not fail with the first task: workers are killed for memory.
    "spark.master": "local[*,4]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # A task whose HDFS blocks lie on another host name waits for an executor there; on one machine
    # none comes, and nobody offers the task again: it would wait for ever.
    "spark.locality.wait": "0s",
    # On one machine the web page would listen on every interface.
    "spark.ui.enabled": "false",
}


def check_java() -> None:
    """Raise PlatformError unless a Java of version 17 or newer is there.

    Java starts only if no file of its installation names the version. The Java of spark-submit runs
    Spark already.
    """
    if _GATEWAY_PORT in os.environ:
        return
    java = find_java(os.environ)
    shown = _read_java_version(java)
    version = re.search(r'(?:version |JAVA_VERSION=)"(\d+)', shown)
    if version is None or int(version.group(1)) < 17:
        raise PlatformError(f"{JAVA_REQUIREMENT}; {java} reports {shown.splitlines()[:1]}")


def _read_java_version(java: str) -> str:
    """Return the line of the installation with its version, or what `java -version` shows."""
    if release := find_java_release(java):
        lines = release.read_text(errors="replace").splitlines()
        if version := [line for line in lines if line.startswith("JAVA_VERSION=")]:
            return version[0]
    return subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr


def use_own_spark() -> None:
    """Let this process start the Spark of its environment, whatever its variables name.

    spark-submit has started it already, with the variables that it was given.
    """
    if _GATEWAY_PORT in os.environ or "pyspark" in sys.modules:
        return
    others = {os.path.realpath(entry) for entry in list_foreign_sparks(os.environ)}
    wanted = build_spark_environment(os.environ)
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) not in others]


@contextmanager
def _use_archive() -> Iterator[None]:
    """Let a JVM that starts in the block map the class-data archive, if there is one for it."""
    before = dict(os.environ)
    if _GATEWAY_PORT not in before and "SPARK_HOME" in before:
        release = find_java_release(find_java(before))
        given = shlex.split(before.get(_SUBMIT_ARGUMENTS, "pyspark-shell"))
        variables, words = add_archive(release, before, given)
        if words != given:
            os.environ.update(variables | {_SUBMIT_ARGUMENTS: shlex.join(words)})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def check_warehouse(uri: str) -> None:
    """Raise OutputError unless a file can be written and removed in the warehouse folder.

    Spark's readers take `* ? [ ] { }` in a path for patterns: such a folder is refused too.
    """
    storage, path = resolve(uri)
    if found := sorted(set(path) & set(GLOB_CHARACTERS)):
        raise OutputError(
            f"`warehouse` {uri} must hold none of {' '.join(GLOB_CHARACTERS)}, which Spark takes "
            f"for patterns; got {' '.join(found)}"
        )
    # A name of its own: several jobs may ask at the same time.
    probe = join(path, f".eagle-write-probe-{os.getpid()}-{uuid4().hex}")
    try:
        storage.write(probe, b"")
        storage.delete(probe)
    except OSError as error:
        raise OutputError(f"`warehouse` {uri} is not writable: {error}") from error


@contextmanager
def start_context(
    job: str, rules: Mapping[str, str] | None = None, imports: Sequence[str] = ()
) -> Iterator[SparkContext]:
    """Yield a Spark context that keeps the rules; stop it after.

    Work that needs no session can begin on it; `open_session` inside the block uses it.

    Settings given to spark-submit or in spark-defaults win over every rule. Inside a process that
    runs Spark already, that context is used with its own settings, and left running.

    Args:
        job: name of the job, for the name of the application.
        rules: settings beside `DEFAULT_CONF`.
        imports: modules that the tasks need. Spark's daemon imports them before it forks the Python
            workers, once an executor; a module that starts a thread or fails there changes nothing
            but the time. `openvino` comes after `eagle_spark.model.export`: its telemetry would
            start a thread.

    Raises:
        PlatformError: when Java is missing, or Spark does not start.
    """
    check_java()
    use_own_spark()
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    if running := SparkContext._active_spark_context:
        yield running
        return
    # Starts the JVM, so that the SparkConf below holds what spark-submit was given.
    with _use_archive():
        SparkContext.setSystemProperty("spark.eagle.job", job)
    conf = SparkConf()
    wanted = DEFAULT_CONF | dict(rules or {}) | {"spark.app.name": f"eagle_spark {job}"}
    # Files of spark-submit reach the path of a worker, but not always that of the daemon.
    if imports and not conf.get("spark.submit.pyFiles"):
        wanted["spark.python.daemon.module"] = DAEMON_MODULE
        wanted[f"spark.executorEnv.{IMPORTS_VARIABLE}"] = ",".join(imports)
    if (conf.get("spark.master") or "local").startswith("local"):
        wanted |= LOCAL_CONF
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for key, value in wanted.items():
        conf.setIfMissing(key, value)
    context = _start(conf)
    try:
        yield context
    finally:
        (SparkSession.getActiveSession() or context).stop()


@contextmanager
def open_session(
    job: str,
    warehouse: str | None,
    rules: Mapping[str, str] | None = None,
    imports: Sequence[str] = (),
) -> Iterator[SparkSession]:
    """Yield a Spark session whose catalog `eagle` keeps its tables in `warehouse`; stop it after.

    Without a warehouse there is no catalog: for jobs that touch no table.

    The context is that of `start_context`, which starts here unless it runs. A site with a Hive or
    REST catalog configures `spark.sql.catalog.eagle` itself. Inside a process that has a session
    already, a new session beside it is used.

    Args:
        job: see `start_context`, as `rules` and `imports`.
        warehouse: URI of the folder of the tables.
        rules: settings beside `DEFAULT_CONF`.
        imports: modules that the tasks need.

    Raises:
        PlatformError: when Java, the Iceberg jar or its extensions are missing, or Spark does not
            start.
        OutputError: when the warehouse cannot be written to, or its path holds a pattern.
    """
    if warehouse is not None:
        check_java()
        check_warehouse(warehouse)
    with start_context(job, rules, imports):
        from pyspark.sql import SparkSession

        running = _find_session()
        spark = running.newSession() if running else SparkSession.builder.getOrCreate()
        _check_iceberg(spark)
        if warehouse is not None:
            _set_catalog(spark, absolute_uri(warehouse))
        yield spark


def _find_session() -> SparkSession | None:
    """Return a session of this process; an active one is that of one thread."""
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession() or SparkSession._instantiatedSession
    is_alive = session is not None and session.sparkContext._jsc is not None
    return session if is_alive else None


def threads_per_task(spark: SparkSession | SparkContext) -> int:
    """Return how many cores Spark gives to a task."""
    from pyspark import SparkContext

    context = spark if isinstance(spark, SparkContext) else spark.sparkContext
    return int(context.getConf().get("spark.task.cpus") or 1)


def _start(conf: SparkConf) -> SparkContext:
    from pyspark import SparkContext

    try:
        return SparkContext.getOrCreate(conf)
    except Exception as error:
        # What Java raised says it shorter than the error that py4j wraps it in.
        cause = str(getattr(error, "java_exception", error)).strip()
        first = cause.partition("\n")[0] or type(error).__name__
        raise PlatformError(f"Spark did not start: {first}") from error


def is_second_attempt(spark: SparkSession) -> bool:
    """Whether YARN started this driver because the one before it ended or died."""
    attempt = spark.sparkContext._jsc.sc().applicationAttemptId()
    return bool(attempt.isDefined() and int(attempt.get()) > 1)


def _check_iceberg(spark: SparkSession) -> None:
    extensions = spark.conf.get("spark.sql.extensions") or ""
    if ICEBERG_EXTENSIONS not in extensions:
        raise PlatformError(
            f"spark.sql.extensions must hold {ICEBERG_EXTENSIONS}; got {extensions!r}"
        )
    loader = spark.sparkContext._jvm.java.lang.Thread.currentThread().getContextClassLoader()  # type: ignore[union-attr]
    if loader.getResource(ICEBERG_EXTENSIONS.replace(".", "/") + ".class") is None:
        raise PlatformError(
            f"Spark finds no Iceberg: run `make install`, or give spark-submit "
            f"--packages org.apache.iceberg:{ICEBERG_JAR}:1.12.0"
        )


def _set_catalog(spark: SparkSession, warehouse: str) -> None:
    key = f"spark.sql.catalog.{CATALOG}"
    if spark.conf.get(key, None) is None:
        spark.conf.set(key, "org.apache.iceberg.spark.SparkCatalog")
        spark.conf.set(f"{key}.type", "hadoop")
    if spark.conf.get(f"{key}.type", None) == "hadoop":
        spark.conf.set(f"{key}.warehouse", warehouse)
