"""What a night costs that finds little new in a large archive: 1,000,000 files, 1,000 of them new.

    python -m benchmarks.inventory --model DIR [--files 1000000] [--new 1000]

The new files are real PNGs on this disk; the others stand in the listing and in the published table
alone: the stand-in is at the edge of the file system, where a folder is listed. Printed are the
seconds of each stage of the job, and the CPU seconds and memory of its driver: Python and JVM.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from eagle_spark.io import FileEntry, list_folder
from eagle_spark.model.bundle import open_bundle
from eagle_spark.scoring import job as job
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from tests.helpers.processes import Load, watch_load

MODIFIED = 1_700_000_000_000  # milliseconds


def name_of(number: int) -> str:
    return f"file:///archive/{number % 1000:03d}/{number:09d}.png"


def publish(warehouse: Warehouse, files: int, model_id: str) -> None:
    """Fill `predictions` as earlier nights would have."""
    warehouse.ensure(PREDICTIONS)
    warehouse.spark.sql(
        f"""INSERT INTO {PREDICTIONS.full_name}
        SELECT sha2(CAST(id AS STRING), 256),
               printf('file:///archive/%03d/%09d.png', id % 1000, id), 20000 + id % 5000,
               timestamp_millis({MODIFIED}), 'scored', NULL, NULL, 'Normal', 0.9D,
               map('Normal', 0.9D, 'COVID', 0.1D), false, array(), 0.5D,
               CAST(repeat('m', 700) AS BINARY), 0.25D,
               '{model_id}', 'openvino', concat('score-', id % 30), timestamp_millis({MODIFIED}),
               NULL
        FROM range({files})"""
    )


def new_files(folder: Path, count: int) -> None:
    draw = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        pixels = draw.integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=1000)
    given = parser.parse_args()
    known = given.files - given.new
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = Path(name)
        new_files(work / "new", given.new)

        def listed(_: str) -> Iterator[FileEntry]:
            for number in range(known):
                yield FileEntry(name_of(number), 20_000 + number % 5000, MODIFIED)
            yield from list_folder(str(work / "new"))

        with open_session("bench", str(work / "warehouse")) as spark:
            publish(Warehouse(spark), known, open_bundle(given.model).model_id)
            job.list_images = listed
            settings = ScoreSettings(
                images=str(work / "new"), model=given.model, warehouse=str(work / "warehouse")
            )
            jvm = [p for p in psutil.Process().children() if "java" in p.name()]
            before = cpu_seconds(jvm)
            with watch_load() as load:
                result = job.score(settings)
            used = cpu_seconds(jvm) - before
            print(json.dumps(figures(result, used, load, jvm), indent=1))


def cpu_seconds(jvm: list[psutil.Process]) -> float:
    """Return the CPU time of the driver so far: Python and JVM."""
    times = [process.cpu_times() for process in (psutil.Process(), *jvm)]
    return sum(each.user + each.system for each in times)


def figures(
    result: dict[str, Any], driver_cpu: float, load: Load, jvm: list[psutil.Process]
) -> dict[str, Any]:
    counts = ("listed", "already_scored", "scored", "rejected", "stage_seconds", "task_seconds")
    return {
        **{name: result[name] for name in counts},
        "seconds": load.seconds,
        "driver_cpu_seconds": round(driver_cpu, 1),
        "driver_python_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "driver_jvm_gb": round(sum(p.memory_info().rss for p in jvm) / 1e9, 2),
        "started_since_gb": load.peak_gb,
    }


if __name__ == "__main__":
    main()
