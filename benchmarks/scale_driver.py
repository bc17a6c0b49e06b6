"""What `benchmarks.scale` measures of the images that have a row: what score holds of each.

The rows are made as they are asked for; all that comes after is score's own.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.scale_measure import Figures, Tables, alone, night_of, tables

KNOWN = (1_000_000, 4_000_000)
IMAGES_PER_FILE = 200_000  # about as many rows as a file of TARGET_BYTES holds


def driver(known: tuple[int, ...] = KNOWN) -> Figures:
    """Of so many known images: what the driver takes, what it is sent, and what a worker takes."""
    return {str(images): alone(_driver, images) for images in known}


def _driver(images: int) -> Figures:
    with tables() as its:
        files = max(1, images // IMAGES_PER_FILE)
        rows = its.spark.range(0, images, 1, files).selectExpr(
            "sha2(CAST(id AS STRING), 256) AS image_id", "'model' AS model_id", "'scored' AS status"
        )
        night: Any = night_of(its)
        night.warehouse = SimpleNamespace(read=lambda _: rows)
        shared = night.scored_images()
        return {
            "python_bytes": _most(),
            "java_live_bytes": its.java.heap(),
            "result_bytes": _result_bytes(its),
            "worker_bytes": alone(_worker, shared._path)["bytes"],
        }


def _worker(path: str) -> Figures:
    """Take a broadcast as a worker does."""
    before = _most()
    with open(path, "rb") as stream:
        found = pickle.load(stream)  # noqa: S301 - our own
    return {"bytes": _most() - before, "images": len(found)}


def _most() -> int:
    """Return the most memory that this process ever had resident; getrusage's is its parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) * 1024


def _result_bytes(its: Tables) -> int:
    """Return what the last job sent to the driver: what spark.driver.maxResultSize counts."""
    context = its.spark.sparkContext
    context._jsc.sc().listenerBus().waitUntilEmpty()
    tracker = context.statusTracker()
    job = tracker.getJobInfo(max(tracker.getJobIdsForGroup()))
    assert job
    return int(context._jsc.sc().statusStore().lastStageAttempt(max(job.stageIds)).resultSize())
