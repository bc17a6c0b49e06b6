"""Checks of probe results, each with its fix. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_BATCH_BYTES = 64 * 2**20  # of pixels in one Arrow batch
MIN_MEMORY_OVERHEAD = 2 * 2**30  # TensorFlow and OpenVINO allocate outside of the JVM's heap
MIN_WAREHOUSE_BYTES = 10 * 2**30  # the predictions of a run, or the staged images of a training
MIN_LOCAL_BYTES = 2 * 2**30  # spilled rows, a copy of the model
MAX_CLOCK_SKEW = 5.0  # seconds between two clocks
EXECUTOR_LOGS = "read the executors' logs: yarn logs -applicationId ID"
PACKAGE = (
    "spark.archives as in conf/yarn-score.conf, or for train and report as in conf/yarn-train.conf"
)
_UNITS = {"": 2**20, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table.

    Attributes:
        ok: None for a check that was not run.
        observed: the observed value or error.
        fix: the setting or command that fixes a failed check.
    """

    name: str
    ok: bool | None
    observed: str
    fix: str = ""


@dataclass(frozen=True)
class ProcessReport:
    """Probe results of one process, the driver or an executor.

    Attributes:
        place: host, and container on YARN.
        versions: of Python, Java and the libraries.
        clock: seconds since the epoch.
        storage: error of writing, renaming, reading or deleting in the warehouse, or None.
        free: free bytes in the folder of temporary files.
        native: error of loading a native library in Python, or None.
    """

    place: str
    versions: Mapping[str, str]
    clock: float
    storage: str | None
    free: int
    native: str | None = None


@dataclass(frozen=True)
class YarnCapacity:
    """State of YARN's ResourceManager.

    Attributes:
        nodes: running NodeManagers.
        free_memory: bytes not allocated to any container.
        free_cores: vcores not allocated to any container.
        queue: name and state of the queue; None for a queue that does not exist.
    """

    nodes: int
    free_memory: int
    free_cores: int
    queue: str | None


def parse_size(text: str) -> int:
    """Return the bytes of a Spark size such as `512m` or `3g`; a bare number is in MiB.

    Raises:
        ValueError: when `text` is no size.
    """
    match = re.fullmatch(r"(\d+)([bkmgt]?)b?", text.strip().lower())
    if match is None:
        raise ValueError(f"not a size: {text}")
    return int(match.group(1)) * _UNITS[match.group(2)]


def check_arrow_batch(conf: Mapping[str, str], side: int) -> Check:
    """Check the size of one Arrow batch of images with `side` x `side` pixels."""
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    rows = int(conf.get(key, "10000"))
    size = rows * side * side
    observed = f"{rows} images of {side}x{side} are {size / 2**20:,.0f} MiB"
    ok = rows > 0 and size <= MAX_BATCH_BYTES
    return Check("arrow batch", ok, observed, f"--conf {key}=64")


def check_speculation(conf: Mapping[str, str]) -> Check:
    """Check that Spark never runs two attempts of a writing task at once."""
    value = conf.get("spark.speculation", "false").lower()
    return Check("speculation", value == "false", value, "--conf spark.speculation=false")


def memory_overhead(conf: Mapping[str, str], role: str) -> int:
    """Return the bytes that YARN adds to the heap of a driver or executor, by Spark's own rule."""
    key = f"spark.{role}.memoryOverhead"
    if key in conf:
        return parse_size(conf[key])
    factor = float(conf.get(f"{key}Factor", "0.1"))
    return max(384 * 2**20, int(factor * parse_size(conf.get(f"spark.{role}.memory", "1g"))))


def check_memory_overhead(conf: Mapping[str, str], master: str) -> list[Check]:
    """Check the memory of Python on YARN; empty for other masters."""
    if not master.startswith("yarn"):
        return []
    roles = ["executor"]
    if conf.get("spark.submit.deployMode") == "cluster":
        roles.append("driver")
    return [
        Check(
            f"{role} memory",
            memory_overhead(conf, role) >= MIN_MEMORY_OVERHEAD,
            f"{memory_overhead(conf, role) / 2**30:.1f} GiB beside the heap, for Python",
            f"--conf spark.{role}.memoryOverhead=3g",
        )
        for role in roles
    ]


def check_yarn(conf: Mapping[str, str], yarn: YarnCapacity, running: int) -> list[Check]:
    """Check YARN's queue and its free capacity.

    Args:
        running: executors of this run, whose memory and cores are allocated already.
    """
    name = conf.get("spark.yarn.queue", "default")
    missing = max(int(conf.get("spark.executor.instances", "2")) - running, 0)
    memory = missing * (
        parse_size(conf.get("spark.executor.memory", "1g")) + memory_overhead(conf, "executor")
    )
    cores = missing * int(conf.get("spark.executor.cores", "1"))
    free = f"{yarn.free_memory / 2**30:.1f} GiB and {yarn.free_cores} vcores free"
    return [
        Check(
            "yarn queue",
            yarn.queue is not None and yarn.queue.endswith("RUNNING"),
            yarn.queue or f"no queue {name}",
            "--conf spark.yarn.queue=NAME, as in yarn queue -status NAME",
        ),
        Check(
            "yarn room",
            memory <= yarn.free_memory and cores <= yarn.free_cores,
            f"{yarn.nodes} nodes, {free}; {missing} more executors need {memory / 2**30:.1f} GiB "
            f"and {cores} vcores",
            "--conf spark.executor.instances=N with a smaller N, or wait for other applications",
        ),
    ]


def check_executors(expected: int, registered: int, reports: Sequence[ProcessReport]) -> Check:
    """Check that all expected executors registered, and that each one responded."""
    observed = f"{len(reports)} of {expected} responded"
    if len(reports) < registered:
        late = f"{observed} in time, {registered} registered"
        return Check("executors", False, late, EXECUTOR_LOGS)
    fix = "--conf spark.executor.instances=N with a smaller N, or free capacity in YARN's queue"
    return Check("executors", len(reports) >= expected, observed, fix)


def check_versions(driver: ProcessReport, reports: Sequence[ProcessReport]) -> Check:
    """Check that executors have the driver's versions."""
    differences = sorted(
        f"{name} is {report.versions.get(name)} on {report.place}, "
        f"{driver.versions.get(name)} on the driver"
        for report in reports
        for name in {*driver.versions, *report.versions}
        if report.versions.get(name) != driver.versions.get(name)
    )
    versions = ", ".join(f"{name} {version}" for name, version in driver.versions.items())
    return Check("versions", not differences, "; ".join(differences[:3]) or versions, PACKAGE)


def check_executor_storage(reports: Sequence[ProcessReport], warehouse: str) -> Check:
    """Check that every executor can write, rename, read and delete in the warehouse."""
    fix = (
        "hdfs dfs -ls WAREHOUSE on that node: its HADOOP_CONF_DIR, or the folder's permissions"
        if warehouse.startswith("hdfs:")
        else "a warehouse that every node reaches: `warehouse` hdfs://…"
    )
    errors = [f"{report.place}: {report.storage}" for report in reports if report.storage]
    observed = "; ".join(errors[:3]) or f"each of {len(reports)} writes, renames, reads, deletes"
    return Check("storage on executors", not errors, observed, fix)


def check_driver_storage(driver: ProcessReport) -> Check:
    """Check that the driver can write, rename, read and delete in the warehouse."""
    fix = "the folder's owner and permissions, or another `warehouse`"
    if "safe mode" in (driver.storage or "").lower():
        fix = "wait until the DataNodes have reported, or: hdfs dfsadmin -safemode leave"
    elif "reach" in (driver.storage or "").lower():
        fix = "start HDFS, or set the right NameNode: hdfs getconf -confKey fs.defaultFS"
    observed = driver.storage or "writes, renames, reads and deletes"
    return Check("storage on driver", driver.storage is None, observed, fix)


def check_native_libraries(java: str | None, reports: Sequence[ProcessReport]) -> Check:
    """Check that Java and every Python can load native libraries.

    Args:
        java: result of `probe_java_library`.
        reports: of the driver and the executors.
    """
    errors = [f"{report.place}: {report.native}" for report in reports if report.native]
    errors += [f"Java: {java}"] if java else []
    if not errors:
        observed = "Java's and Python's are loaded" if java is None else "Java's were not tested"
        return Check("native libraries", True if java is None else None, observed)
    fix = PACKAGE
    if java or "failed to map segment" in errors[0]:
        fix = "TMPDIR=FOLDER and --conf spark.executor.extraJavaOptions=-Djava.io.tmpdir=FOLDER,"
        fix += " on a file system that is not mounted noexec"
    return Check("native libraries", False, "; ".join(errors[:3]), fix)


def check_clocks(
    started: float, ended: float, reports: Sequence[ProcessReport], storage: float
) -> Check:
    """Check the clocks of the executors and of the storage against the driver's.

    Args:
        started, ended: the driver's clock before and after the probes of the others.
        storage: modification time of a file written in between.
    """
    clocks = {report.place: report.clock for report in reports} | {"the storage": storage}
    skews = {place: max(started - clock, clock - ended, 0.0) for place, clock in clocks.items()}
    worst = max(skews, key=lambda place: skews[place])
    observed = f"at most {skews[worst]:.1f} s from the driver's ({worst})"
    fix = "timedatectl set-ntp true on that node"
    return Check("clocks", skews[worst] <= MAX_CLOCK_SKEW, observed, fix)


def check_space(
    driver: ProcessReport, reports: Sequence[ProcessReport], warehouse_free: int
) -> list[Check]:
    """Check the free space in the warehouse, in bytes, and for temporary files."""
    observed = f"{warehouse_free / 2**30:,.0f} GiB free"
    fix = "free space there, or another `warehouse`"
    checks = [Check("warehouse space", warehouse_free >= MIN_WAREHOUSE_BYTES, observed, fix)]
    smallest = min((driver, *reports), key=lambda report: report.free)
    observed = f"at least {smallest.free / 2**30:,.0f} GiB free ({smallest.place})"
    fix = "free space in the local folders: yarn.nodemanager.local-dirs, or --conf spark.local.dir"
    checks.append(Check("local space", smallest.free >= MIN_LOCAL_BYTES, observed, fix))
    return checks


def check_hadoop_conf(folder: str | None, needed: bool, has_core_site: bool) -> Check:
    """Check `HADOOP_CONF_DIR`.

    Args:
        folder: its value; None when not set.
        needed: whether the warehouse is on HDFS.
        has_core_site: whether the folder has a core-site.xml.
    """
    observed = folder or "not set"
    if folder and not has_core_site:
        observed = f"{folder} has no core-site.xml"
    ok = has_core_site or not needed
    return Check("hadoop conf", ok, observed, "export HADOOP_CONF_DIR=FOLDER of the site files")
