"""Cost of a score run over an archive of 1,000,000 files, 1,000 of them new.

    python -m benchmarks.inventory --model DIR [--files 1000000] [--new 1000]

The new files are PNGs on this disk; the others exist in the listing and in the published table
only: the benchmark replaces the function that lists a folder. Prints the seconds of each stage of
the job, and the CPU seconds and memory of its driver: Python and JVM.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from eagle_spark.io import FileEntry, list_folder
from eagle_spark.model.bundle import open_bundle
from eagle_spark.scoring import job, listing
from eagle_spark.scoring.result import ScoreResult
from eagle_spark.settings import ScoreSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from tests.helpers.processes import Load, watch_load

MODIFIED = 1_700_000_000_000  # milliseconds


def archive_uri(folder: Path, number: int) -> str:
    return f"{folder.as_uri()}/archive/{number % 1000:03d}/{number:09d}.png"


def publish_rows(warehouse: Warehouse, folder: Path, files: int, model_id: str) -> None:
    """Fill `predictions` with the rows of earlier runs over a folder."""
    warehouse.create_or_migrate(PREDICTIONS)
    warehouse.spark.sql(
        f"""INSERT INTO {PREDICTIONS.full_name} (
            image_id, path, file_length, file_modified, status, label, confidence,
            probabilities, needs_review, review_reasons, novelty, mask, lung_area, model_id,
            engine, run_id, scored_at
        )
        SELECT sha2(CAST(id AS STRING), 256),
               printf('{folder.as_uri()}/archive/%03d/%09d.png', id % 1000, id), 20000 + id % 5000,
               timestamp_millis({MODIFIED}), 'scored', 'Normal', 0.9D,
               map('Normal', 0.9D, 'COVID', 0.1D), false, array(), 0.5D,
               CAST(repeat('m', 700) AS BINARY), 0.25D,
               '{model_id}', 'openvino', concat('score-', id % 30), timestamp_millis({MODIFIED})
        FROM range({files})"""
    )


def write_new_files(folder: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        pixels = generator.integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=1000)
    options = parser.parse_args()
    scored = options.files - options.new
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = Path(name)
        images = work / "new"
        write_new_files(images, options.new)

        def list_images(_: str) -> Iterator[FileEntry]:
            for number in range(scored):
                yield FileEntry(archive_uri(images, number), 20_000 + number % 5000, MODIFIED)
            yield from list_folder(str(images))

        with open_session("bench", str(work / "warehouse")) as spark:
            model_id = open_bundle(options.model).metadata.model_id
            publish_rows(Warehouse(spark), images, scored, model_id)
            listing.list_images = list_images
            settings = ScoreSettings(
                images=str(images), model=options.model, warehouse=str(work / "warehouse")
            )
            jvm = [p for p in psutil.Process().children() if "java" in p.name()]
            before = measure_cpu_seconds(jvm)
            with watch_load() as load:
                result = job.score(settings)
            used = measure_cpu_seconds(jvm) - before
            print(json.dumps(summarise(result, used, load, jvm), indent=1))


def measure_cpu_seconds(jvm: list[psutil.Process]) -> float:
    """Return the CPU time of the driver so far: Python and JVM."""
    times = [process.cpu_times() for process in (psutil.Process(), *jvm)]
    return sum(time.user + time.system for time in times)


def summarise(
    result: ScoreResult, driver_cpu: float, load: Load, jvm: list[psutil.Process]
) -> dict[str, object]:
    names = ("listed", "already_scored", "scored", "rejected", "stage_seconds", "task_seconds")
    figures = asdict(result)
    return {
        **{name: figures[name] for name in names},
        "seconds": load.seconds,
        "driver_cpu_seconds": round(driver_cpu, 1),
        "driver_python_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "driver_jvm_gb": round(sum(p.memory_info().rss for p in jvm) / 1e9, 2),
        "started_since_gb": load.peak_gb,
    }


if __name__ == "__main__":
    main()
