"""What is judged, and what mends it. Pure functions of what the probes found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_BATCH_BYTES = 64 * 2**20  # of pixels in one Arrow batch
MIN_OVERHEAD = 2 * 2**30  # TensorFlow and OpenVINO live beside the JVM's heap
MIN_FREE = 10 * 2**30  # a night's predictions, or a training's staged images
MIN_FREE_LOCAL = 2 * 2**30  # spilled rows, a copy of the model
MAX_SKEW = 5.0  # seconds between two clocks
SEE_LOGS = "their logs: yarn logs -applicationId ID"
_UNITS = {"": 2**20, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table.

    Attributes:
        ok: None where it could not be tried.
        found: what was seen.
        mend: the setting or command that mends it, when not ok.
    """

    name: str
    ok: bool | None
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Report:
    """What one process says of itself; the driver's and the executors' are held side by side.

    Attributes:
        place: host, and container where there is one.
        versions: of Python, Java and the libraries.
        clock: seconds since the epoch.
        storage: what kept it from writing, renaming, reading or deleting in the warehouse, or None.
        free: bytes left where it keeps temporary files.
        native: what kept Python from loading a native library, or None.
    """

    place: str
    versions: Mapping[str, str]
    clock: float
    storage: str | None
    free: int
    native: str | None = None


@dataclass(frozen=True)
class Yarn:
    """What YARN's ResourceManager says.

    Attributes:
        nodes: NodeManagers that run.
        free_memory: bytes that no container has.
        free_cores: the same for vcores.
        queue: name and state of the queue, `None` where there is no such queue.
    """

    nodes: int
    free_memory: int
    free_cores: int
    queue: str | None


def size_of(text: str) -> int:
    """Return the bytes of a Spark size such as `512m`, `3g`; a bare number is MiB.

    Raises:
        ValueError: when it is none.
    """
    found = re.fullmatch(r"(\d+)([bkmgt]?)b?", text.strip().lower())
    if found is None:
        raise ValueError(f"not a size: {text}")
    return int(found.group(1)) * _UNITS[found.group(2)]


def check_rows(conf: Mapping[str, str], side: int) -> Check:
    """Judge how many images, of `side` pixels, one Arrow batch holds."""
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    rows = int(conf.get(key, "10000"))
    size = rows * side * side
    found = f"{rows} images of {side}x{side} are {size / 2**20:,.0f} MiB"
    ok = rows > 0 and size <= MAX_BATCH_BYTES
    return Check("arrow batch", ok, found, f"--conf {key}=64")


def check_writes(conf: Mapping[str, str]) -> Check:
    """Judge whether Spark may run a task that writes twice at once."""
    value = conf.get("spark.speculation", "false").lower()
    return Check("speculation", value == "false", value, "--conf spark.speculation=false")


def overhead(conf: Mapping[str, str], role: str) -> int:
    """Return the bytes beside the heap that YARN gives a driver or executor; Spark's own rule."""
    key = f"spark.{role}.memoryOverhead"
    if key in conf:
        return size_of(conf[key])
    factor = float(conf.get(f"{key}Factor", "0.1"))
    return max(384 * 2**20, int(factor * size_of(conf.get(f"spark.{role}.memory", "1g"))))


def check_overhead(conf: Mapping[str, str], master: str) -> list[Check]:
    """Judge the memory that Python gets, on YARN."""
    if not master.startswith("yarn"):
        return []
    roles = ["executor"]
    if conf.get("spark.submit.deployMode") == "cluster":
        roles.append("driver")
    return [
        Check(
            f"{role} memory",
            overhead(conf, role) >= MIN_OVERHEAD,
            f"{overhead(conf, role) / 2**30:.1f} GiB beside the heap, for Python",
            f"--conf spark.{role}.memoryOverhead=3g",
        )
        for role in roles
    ]


def check_yarn(conf: Mapping[str, str], yarn: Yarn, here: int) -> list[Check]:
    """Judge queue and room.

    Args:
        here: executors of this very run, which hold their memory and cores already.
    """
    name = conf.get("spark.yarn.queue", "default")
    wanted = max(int(conf.get("spark.executor.instances", "2")) - here, 0)
    memory = wanted * (
        size_of(conf.get("spark.executor.memory", "1g")) + overhead(conf, "executor")
    )
    cores = wanted * int(conf.get("spark.executor.cores", "1"))
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
            f"{yarn.nodes} nodes, {free}; {wanted} more executors want {memory / 2**30:.1f} GiB "
            f"and {cores} vcores",
            "--conf spark.executor.instances=N with a smaller N, or wait for other applications",
        ),
    ]


def check_executors(wanted: int, there: int, reports: Sequence[Report]) -> Check:
    """Judge whether all executors that were asked for came (`there`: so many), and answer."""
    found = f"{len(reports)} of {wanted} answer"
    if len(reports) < there:
        late = f"{found} in time, {there} have come"
        return Check("executors", False, late, SEE_LOGS)
    mend = "--conf spark.executor.instances=N with a smaller N, or free room in YARN's queue"
    return Check("executors", len(reports) >= wanted, found, mend)


def check_versions(driver: Report, reports: Sequence[Report]) -> Check:
    """Judge whether all processes run the same."""
    differences = sorted(
        f"{name} is {report.versions.get(name)} on {report.place}, "
        f"{driver.versions.get(name)} on the driver"
        for report in reports
        for name in {*driver.versions, *report.versions}
        if report.versions.get(name) != driver.versions.get(name)
    )
    shown = ", ".join(f"{name} {version}" for name, version in driver.versions.items())
    mend = "--conf spark.archives=hdfs:///eagle_spark/environment.tar.gz#environment, see README"
    return Check("versions", not differences, "; ".join(differences[:3]) or shown, mend)


def check_storage(reports: Sequence[Report], warehouse: str) -> Check:
    """Judge whether every executor can write, rename, read and delete in the warehouse."""
    mend = (
        "hdfs dfs -ls WAREHOUSE on that node: its HADOOP_CONF_DIR, or the folder's permissions"
        if warehouse.startswith("hdfs:")
        else "a warehouse that every node reaches: --warehouse hdfs://…"
    )
    troubles = [f"{report.place}: {report.storage}" for report in reports if report.storage]
    found = "; ".join(troubles[:3]) or f"each of {len(reports)} writes, renames, reads, deletes"
    return Check("storage on executors", not troubles, found, mend)


def check_driver_storage(driver: Report) -> Check:
    """Judge the driver's own access to the warehouse."""
    mend = "the folder's owner and permissions, or another --warehouse"
    if "safe mode" in (driver.storage or "").lower():
        mend = "wait until the DataNodes have reported, or: hdfs dfsadmin -safemode leave"
    elif "reach" in (driver.storage or "").lower():
        mend = "start HDFS, or name the right NameNode: hdfs getconf -confKey fs.defaultFS"
    found = driver.storage or "writes, renames, reads and deletes"
    return Check("storage on driver", driver.storage is None, found, mend)


def check_native(java: str | None, reports: Sequence[Report]) -> Check:
    """Judge whether native libraries can be loaded, by Java and by every Python.

    Args:
        java: what kept Java from it; empty where it was not tried, None where nothing did.
        reports: of the driver and the executors.
    """
    troubles = [f"{report.place}: {report.native}" for report in reports if report.native]
    troubles += [f"Java: {java}"] if java else []
    if not troubles:
        found = "Java's and Python's are loaded" if java is None else "Java's were not tried"
        return Check("native libraries", True if java is None else None, found)
    mend = "--conf spark.archives=hdfs:///eagle_spark/environment.tar.gz#environment, see README"
    if java or "failed to map segment" in troubles[0]:
        mend = "TMPDIR=FOLDER and --conf spark.executor.extraJavaOptions=-Djava.io.tmpdir=FOLDER,"
        mend += " which is not mounted noexec"
    return Check("native libraries", False, "; ".join(troubles[:3]), mend)


def check_clocks(started: float, ended: float, reports: Sequence[Report], stored: float) -> Check:
    """Judge the clocks of executors and of the storage against the driver's.

    Args:
        started, ended: the driver's clock before and after the others were asked.
        stored: the time that the storage gave to a file written in between.
    """
    clocks = {report.place: report.clock for report in reports} | {"the storage": stored}
    skews = {place: max(started - clock, clock - ended, 0.0) for place, clock in clocks.items()}
    worst = max(skews, key=lambda place: skews[place])
    found = f"at most {skews[worst]:.1f} s from the driver's ({worst})"
    return Check("clocks", skews[worst] <= MAX_SKEW, found, "timedatectl set-ntp true on that node")


def check_space(driver: Report, reports: Sequence[Report], stored: int) -> list[Check]:
    """Judge the free space in the warehouse (`stored`, bytes) and for temporary files."""
    found = f"{stored / 2**30:,.0f} GiB free"
    mend = "free space there, or another --warehouse"
    checks = [Check("warehouse space", stored >= MIN_FREE, found, mend)]
    least = min((driver, *reports), key=lambda report: report.free)
    found = f"at least {least.free / 2**30:,.0f} GiB free ({least.place})"
    mend = "free space in the local folders: yarn.nodemanager.local-dirs, or --conf spark.local.dir"
    checks.append(Check("local space", least.free >= MIN_FREE_LOCAL, found, mend))
    return checks


def check_hadoop_conf(folder: str | None, needed: bool, is_there: bool) -> Check:
    """Judge `HADOOP_CONF_DIR`, where HDFS or YARN is used; `is_there`: it holds a core-site.xml."""
    found = folder or "not set"
    if folder and not is_there:
        found = f"{folder} holds no core-site.xml"
    ok = is_there or not needed
    return Check("hadoop conf", ok, found, "export HADOOP_CONF_DIR=FOLDER of the site files")
