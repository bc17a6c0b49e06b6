"""What `benchmarks.scale` measures on the local disk: Iceberg's metadata, and the night's steps.

Data files of the metadata tables are entries alone: nothing reads them. Everything else is real.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.inventory import MODIFIED, name_of, publish
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.io import FileEntry
from eagle_spark.scoring.job import Night
from eagle_spark.scoring.listing import spool_listing
from eagle_spark.scoring.rows import PREDICTION
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.session import IMAGES_PER_TASK, open_session
from eagle_spark.tables import PREDICTIONS, Run, Warehouse
from eagle_spark.tables.maintenance import _count_files
from tests.helpers.processes import ROOT, images_in

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Figures = dict[str, Any]

ENTRIES, FILES_PER_COMMIT = 1_000_000, 10_000
COMMITS = 10_000
LOOKED_AT = (10, 100, 300, 1_000, 2_000, 3_000, 5_000, 7_000, 10_000)
FEWER_COMMITS = 1_000  # where Iceberg's default fills the disk
SECONDS = 5400  # after which no more are tried
TASKS = 2_000
ARCHIVES = (100_000, 500_000)
BRANCH = "night"
AS_ICEBERG_DOES = {
    "write.metadata.delete-after-commit.enabled": "false",
    "write.metadata.previous-versions-max": "100",
}


@lru_cache(maxsize=1)
def java_class() -> Any:
    """Compile what is asked of Iceberg by the compiler that Spark brings, once for py4j."""
    from pyspark import SparkContext

    jvm: Any = SparkContext._jvm
    compiler = jvm.org.codehaus.janino.SimpleCompiler()
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    compiler.setParentClassLoader(loader)
    compiler.cook((ROOT / "benchmarks" / "Scale.java").read_text())
    return compiler.getClassLoader().loadClass("Scale")


class Tables:
    """One Spark with the table `predictions` in a folder of its own, and Java beside it."""

    def __init__(self, spark: SparkSession, folder: str) -> None:
        self.spark, self.warehouse = spark, Warehouse(spark)
        self.location = f"{folder}/cxr/predictions"
        publish(self.warehouse, 500, "model")
        self.java = java_class().newInstance()
        jvm: Any = spark._jvm
        self.table = jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(
            spark._jsparkSession, PREDICTIONS.full_name
        )
        self.like = self.java.first(self.table)

    def append(self, first: int, commits: int, files: int, branch: str = "main") -> list[float]:
        return list(self.java.append(self.table, branch, self.like, first, commits, files))

    def fresh(self) -> Tables:
        """Let Spark see what was written beside it."""
        self.spark.catalog.refreshTable(PREDICTIONS.full_name)
        return self

    def metadata(self, pattern: str = "*") -> list[Path]:
        return list(Path(self.location, "metadata").glob(pattern))

    def metadata_bytes(self) -> int:
        """Return the size of the newest metadata.json."""
        newest = max(self.metadata("v*.metadata.json"), key=lambda path: int(path.name[1:-14]))
        return newest.stat().st_size


@contextmanager
def tables(place: str = "") -> Iterator[Tables]:
    with ExitStack() as held:
        folder = place or held.enter_context(tempfile.TemporaryDirectory(prefix="eagle-bench-"))
        rules = {"spark.log.level": "ERROR"}
        yield Tables(held.enter_context(open_session("bench", folder, rules)), folder)


def alone(work: Callable[..., Figures], *given: Any) -> Figures:
    """Do the work in a process of its own: a JVM, and a peak of memory, last as long as one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def cpu_seconds() -> float:
    """Return the CPU time so far of this process and of the JVM that it started."""
    mine = psutil.Process()
    jvm = (each for each in mine.children() if "java" in each.name())
    times = [process.cpu_times() for process in (mine, *jvm)]
    return sum(each.user + each.system for each in times)


def timed(work: Any) -> tuple[Any, Figures]:
    """Return what the work returns, and its seconds: by the clock, and of CPU."""
    started, before = time.perf_counter(), cpu_seconds()
    found = work()
    seconds = time.perf_counter() - started
    return found, {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds() - before, 3),
    }


def entries() -> Figures:
    """A table of ENTRIES data files, and what is asked of it."""
    with tables() as its:
        commits = ENTRIES // FILES_PER_COMMIT
        _, filled = timed(lambda: its.append(0, commits - 5, FILES_PER_COMMIT))
        _, large = timed(lambda: its.append(commits - 5, 5, FILES_PER_COMMIT))
        its.fresh()
        found: Figures = {"commits": commits}
        found["fill"] = filled
        found["append"] = each_of(large, 5)
        found["append_one"] = each_of(timed(lambda: its.append(commits, 5, 1))[1], 5)
        its.fresh()
        before = its.java.heap()
        held, found["plan_all"] = timed(lambda: its.java.plan(its.table, None))
        found["planned"] = held.size()
        found["heap_bytes_per_file"] = round((its.java.heap() - before) / held.size())
        del held
        one = its.java.name(commits // 2)
        some, found["plan_filtered"] = timed(lambda: its.java.plan(its.table, one))
        found["planned_filtered"] = some.size()
        counted, found["files"] = timed(lambda: _count_files(its.warehouse, PREDICTIONS))
        assert counted == found["planned"], (counted, found["planned"])
        ((found["manifests"], found["manifest_bytes"]),) = its.spark.sql(
            f"SELECT count(*), sum(length) FROM {PREDICTIONS.full_name}.manifests"
        ).collect()
        its.warehouse.open_branch(PREDICTIONS, BRANCH)
        run = f"run_id = '{one}'"
        _, found["delete"] = timed(lambda: its.warehouse.remove(PREDICTIONS, run, BRANCH))
        later = datetime.now(timezone.utc) + timedelta(seconds=5)
        _, found["publish"] = timed(lambda: its.warehouse.publish(PREDICTIONS, BRANCH))
        assert _count_files(its.warehouse, PREDICTIONS) == counted - FILES_PER_COMMIT
        _, found["expire"] = timed(lambda: its.warehouse.expire(PREDICTIONS, later))
        found["driver_heap_limit"] = its.spark.sparkContext.getConf().get("spark.driver.memory")
        return found


def commits() -> Figures:
    """COMMITS appends to a branch, as the project's tables are and as Iceberg's are."""
    with tables() as its:
        asis = _grow(its, FEWER_COMMITS, AS_ICEBERG_DOES)
    with tables() as its:
        return {"iceberg": asis, "ours": _grow(its, COMMITS, {})}


def expiry() -> Figures:
    """What it takes to forget FEWER_COMMITS snapshots, and what a commit costs then."""
    with tables() as its:
        before = _grow(its, FEWER_COMMITS, {})[-1]
        later = datetime.now(timezone.utc) + timedelta(seconds=5)
        its.fresh().warehouse.publish(PREDICTIONS, BRANCH)
        _, took = timed(lambda: its.warehouse.expire(PREDICTIONS, later))
        its.table.refresh()
        return {
            "snapshots": FEWER_COMMITS,
            "expire": took,
            "metadata_bytes_before": before["metadata_bytes"],
            "commit_before": before["commit"],
            "commit": each_of(timed(lambda: its.append(COMMITS, 20, 1))[1], 20),
            "metadata_bytes": its.metadata_bytes(),
        }


def _grow(its: Tables, commits: int, properties: dict[str, str]) -> list[Figures]:
    if properties:
        listed = ", ".join(f"'{key}'='{value}'" for key, value in properties.items())
        its.spark.sql(f"ALTER TABLE {PREDICTIONS.full_name} SET TBLPROPERTIES ({listed})")
        its.table.refresh()
    its.warehouse.open_branch(PREDICTIONS, BRANCH)
    its.table.refresh()
    rows: list[Figures] = []
    started, done = time.monotonic(), 0
    for upto in (each for each in LOOKED_AT if each <= commits):
        while done < upto and time.monotonic() - started < SECONDS:
            step = min(upto - done, 50)
            _, took = timed(partial(its.append, done, step, 1, BRANCH))
            done += step
        rows.append(
            {
                "commits": done,
                "commit": each_of(took, step),
                "metadata_bytes": its.metadata_bytes(),
                "metadata_files": len(its.metadata("v*.metadata.json")),
                "folder_bytes": sum(path.stat().st_size for path in its.metadata()),
                "folder_files": len(its.metadata()),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if done < upto:
            break
    return rows


def each_of(took: Figures, count: int) -> Figures:
    return {name: round(seconds / count, 4) for name, seconds in took.items()}


def tasks() -> Figures:
    """What the driver takes to start a task and to hear of its end."""
    with tables() as its:
        its.spark.range(0, 100, 1, 100).selectExpr("sum(id)").collect()
        _, few = timed(lambda: its.spark.range(0, 100, 1, 100).selectExpr("sum(id)").collect())
        _, many = timed(lambda: its.spark.range(0, TASKS, 1, TASKS).selectExpr("sum(id)").collect())
    return {
        "tasks": TASKS,
        "task_seconds": round((many["cpu_seconds"] - few["cpu_seconds"]) / (TASKS - 100), 5),
    }


def archive() -> Figures:
    """What score asks of archives of two sizes, all of whose files have a row but a tenth."""
    return {str(files): _steps(files) for files in ARCHIVES}


def _steps(files: int) -> Figures:
    with tables() as its:
        publish(its.warehouse, files - files // 10, "model")
        night = night_of(its)
        listed = (FileEntry(name_of(n), 20_000 + n % 5000, MODIFIED) for n in range(files))
        its.warehouse.open_branch(PREDICTIONS, BRANCH)
        found: Figures = {}
        spool_listing(listed, night.staging)
        night.counts(BRANCH)  # Java has compiled it
        _, found["compare"] = timed(night.compare)
        _, found["known"] = timed(night.scored_images)
        _, found["count"] = timed(lambda: night.counts(BRANCH))
        done = its.warehouse.read(PREDICTIONS, BRANCH).where(night.mine)
        left = night.listing().join(done, ["path", "file_length", "file_modified"], "left_anti")
        left = left.orderBy("archive", "position", "path").limit(1000)
        _, found["left"] = timed(left.toArrow)
        print(json.dumps(found), file=sys.stderr, flush=True)
        return found


def night_of(its: Tables) -> Night:
    """Return a night of score whose model is only a name."""
    run = Run.begin("score", ScoreSettings(images="/archive", model="/model", warehouse="/place"))
    bundle: Any = SimpleNamespace(model_id="model", metadata={}, classes=())
    lent: Any = None
    return Night(its.spark, run, bundle, "", BRANCH, f"{its.location}-staging", lent)


def rows(images: Path) -> Figures:
    """Bytes of a row of `predictions`: a file of one task with real masks, as Iceberg packs it."""
    from hashlib import sha256

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    masks = [path for path in images_in(images) if path.parent.name == "masks"]
    made = []
    for path in masks[:: max(1, len(masks) // IMAGES_PER_TASK)][:IMAGES_PER_TASK]:
        drawn = Image.open(path).convert("L").resize((224, 224), Image.Resampling.NEAREST)
        number = sha256(path.name.encode())
        share = number.digest()[0] / 256
        made.append(
            {
                "image_id": number.hexdigest(),
                "path": f"hdfs://namenode:8020/archive/2026/{path.parent.parent.name}/{path.name}",
                "file_length": path.stat().st_size,
                "file_modified": int(path.stat().st_mtime * 1e6),
                "status": "scored",
                "label": path.parent.parent.name,
                "confidence": share,
                "probabilities": {"COVID": share, "Normal": 1 - share, "Viral Pneumonia": 0.0},
                "needs_review": False,
                "review_reasons": [],
                "novelty": share / 3,
                "mask": encode_mask(np.asarray(drawn) > 127),
                "lung_area": share / 2,
                "model_id": "m" * 64,
                "engine": "openvino",
                "run_id": "score-20260101T000000-00000000",
                "scored_at": 0,
            }
        )
    stream = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(made, schema=PREDICTION), stream, compression="zstd")
    size = stream.getvalue().size
    return {"rows": len(made), "bytes_per_row": round(size / len(made))}
