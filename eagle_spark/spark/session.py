"""The Spark session and the rules it runs by."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from eagle_spark.errors import OutputError, PlatformError
from eagle_spark.io import absolute_uri, join, resolve
from eagle_spark.spark.environment import (
    JAVA_REQUIREMENT,
    build_spark_environment,
    find_java,
    list_foreign_sparks,
)

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

CATALOG = "eagle"
GLOB_CHARACTERS = "*?[]{}"
ICEBERG_JAR = "iceberg-spark-runtime-4.1_2.13"
ICEBERG_EXTENSIONS = "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
_GATEWAY_PORT = "PYSPARK_GATEWAY_PORT"  # a variable that spark-submit sets

# What stands here holds unless the site's own configuration says otherwise.
DEFAULT_CONF = {
    "spark.sql.extensions": ICEBERG_EXTENSIONS,
    "spark.sql.session.timeZone": "UTC",
    # 10,000 rows of images, the default, are gigabytes; 64 cost nothing in speed.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "64",
    # toPandas by Arrow instead of row by row.
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Tasks of rows and tasks without rows then run in the same Python workers, with one model each.
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
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

    The Java of spark-submit runs Spark already; no other one is started to print its version.
    """
    if _GATEWAY_PORT in os.environ:
        return
    java = find_java(os.environ)
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version.group(1)) < 17:
        raise PlatformError(f"{JAVA_REQUIREMENT}; {java} reports {shown.splitlines()[:1]}")


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
def open_session(
    job: str, warehouse: str | None, rules: dict[str, str] | None = None
) -> Iterator[SparkSession]:
    """Yield a Spark session whose catalog `eagle` keeps its tables in `warehouse`; stop it after.

    Without a warehouse there is no catalog: for jobs that touch no table.

    Settings given to spark-submit or in spark-defaults win over every rule here; a site with a
    Hive or REST catalog configures `spark.sql.catalog.eagle` itself. Inside a process that runs
    Spark already, that Spark is used, and left running.

    Raises:
        PlatformError: when Java, the Iceberg jar or its extensions are missing, or Spark does not
            start.
        OutputError: when the warehouse cannot be written to, or its path holds a pattern.
    """
    check_java()
    if warehouse is not None:
        check_warehouse(warehouse)
    use_own_spark()
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    # Starts the JVM, so that the SparkConf below holds what spark-submit was given.
    SparkContext.setSystemProperty("spark.eagle.job", job)
    conf = SparkConf()
    wanted = DEFAULT_CONF | (rules or {}) | {"spark.app.name": f"eagle_spark {job}"}
    if (conf.get("spark.master") or "local").startswith("local"):
        wanted |= LOCAL_CONF
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for key, value in wanted.items():
        conf.setIfMissing(key, value)
    spark = running.newSession() if running else _start(conf)
    try:
        _check_iceberg(spark)
        if warehouse is not None:
            _set_catalog(spark, absolute_uri(warehouse))
        yield spark
    finally:
        if not running:
            spark.stop()


def threads_per_task(spark: SparkSession) -> int:
    """Return how many cores Spark gives to a task."""
    return int(spark.conf.get("spark.task.cpus", None) or 1)


def _start(conf: SparkConf) -> SparkSession:
    from pyspark.sql import SparkSession

    try:
        return SparkSession.builder.config(conf=conf).getOrCreate()
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
