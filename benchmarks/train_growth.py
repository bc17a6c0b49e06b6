"""What train costs as the table grows, and what 15,153 and 1,000,000 images would cost.

    python -m benchmarks.train_growth --data DIR --weights PATH [--sizes 1000,4000,12000]
                                      [--ranks 2] [--epochs 1] [--work DIR]

DIR is a labelled folder; the first rows of its table `images`, by a hash of their path, are trained
on. A set without masks is given synthetic ones, two ellipses of eight shapes in turn, so that the
mask head has as much to do as with real ones: its figures mean nothing then, its cost does.

Each size is one `spark-submit submit/train.py` without features from before. `seconds` are those of
the whole job, `images_per_second` those of the steps (rows: each image is read twice, once
mirrored). Memory is each rank's own peak, and the peak of the sum over all processes of the job
(RSS; pages that they share count more than once). Disk is the peak of the warehouse
and Spark's scratch folder together, without `images`. With `--work` the figures of a size are kept
there and not measured again, so that sizes can be measured one at a time.

The table at the end fits a line through what was measured: seconds and disk by images, memory of a
rank by the rows that its class head holds, of which there are LABEL_ROWS at most. Beyond one commit
(BUCKETS_PER_COMMIT) the features stage reads `images` anew for each commit: that is added, from the
measured time of one such read. Other numbers of epochs change the share of the steps alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.train import CORES, run, submit_train
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.settings import TrainSettings
from eagle_spark.training.features import BUCKETS_PER_COMMIT, COPIES, ROWS_PER_BUCKET
from eagle_spark.training.plan import LABEL_ROWS
from tests.helpers.processes import submit_words

ASKED = (15_153, 1_000_000)
SHAPES = 8
SHARES = (0.7, 0.1)  # of train and validation
FEATURE_BUDGET = 1000  # GB: the job's own is not what is measured


def ellipses(shape: int, side: int) -> bytes:
    """Return a mask of two lungs, a little higher and wider with each shape, as a 1-bit PNG."""
    y, x = np.mgrid[:side, :side] / side
    grown = 1 + 0.03 * shape
    mask = np.zeros((side, side), bool)
    for middle in (0.31, 0.69):
        mask |= ((x - middle) / (0.13 * grown)) ** 2 + ((y - 0.5) / (0.28 * grown)) ** 2 < 1
    return encode_mask(mask)


def preprocess(data: str, work: Path) -> Path:
    warehouse = work / "all"
    if not (warehouse / "cxr" / "images").exists():
        run(submit_words("preprocess", "--input", data, "--warehouse", str(warehouse)))
    return warehouse


def make_warehouse(source: Path, target: Path, size: int) -> dict[str, float]:
    """Write the first rows of a table `images` as a warehouse of its own, with masks.

    Returns:
        `read_seconds`: what one read of all its pixels takes; `images_gb`.
    """
    from pyspark.sql.functions import array, coalesce, col, lit, pmod, xxhash64

    from eagle_spark.spark.session import open_session
    from eagle_spark.tables import IMAGES, Warehouse

    shutil.rmtree(target, ignore_errors=True)
    with open_session("bench", str(source)) as spark:
        rows = Warehouse(spark).read(IMAGES)
        side = round(len(rows.select("pixels").first()["pixels"]) ** 0.5)
        shapes = array(*(lit(bytearray(ellipses(shape, side))) for shape in range(SHAPES)))
        drawn = shapes[pmod(xxhash64("path"), lit(SHAPES)).cast("int")]
        some = rows.orderBy(xxhash64("path", lit(1))).limit(size)
        some = some.withColumn("mask", coalesce(col("mask"), drawn))
        some.select(*(column.name for column in IMAGES.columns)).write.parquet(f"{target}-rows")
    with open_session("bench", str(target)) as spark:
        tables = Warehouse(spark)
        tables.ensure(IMAGES)
        tables.append(IMAGES, spark.read.schema(IMAGES.schema()).parquet(f"{target}-rows"))
        shutil.rmtree(f"{target}-rows")
        started = time.perf_counter()
        tables.read(IMAGES).selectExpr("sum(hash(pixels, mask))").collect()
        seconds = time.perf_counter() - started
    return {"read_seconds": round(seconds, 2), "images_gb": gigabytes(target / "cxr" / "images")}


def gigabytes(folder: Path) -> float:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # gone in the meantime
            continue
    return round(total / 1e9, 3)


@contextmanager
def watch_disk(folders: Sequence[Path]) -> Iterator[dict[str, float]]:
    """Give the peak of the folders' disk, GB."""
    peaks = {"disk_gb": 0.0}
    done = threading.Event()

    def look() -> None:
        while not done.wait(2.0):
            disk = sum(gigabytes(folder) for folder in folders)
            peaks["disk_gb"] = max(peaks["disk_gb"], round(disk, 3))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def measure(warehouse: Path, weights: str, ranks: int, epochs: int) -> dict[str, Any]:
    """Train on a warehouse that holds the table `images` alone."""
    scratch = warehouse.with_name("scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    before = gigabytes(warehouse)
    load = os.getloadavg()[0]
    os.environ["SPARK_LOCAL_DIRS"] = str(scratch)
    with watch_disk([warehouse, scratch]) as peaks:
        options = ["--epochs", str(epochs), "--feature-budget", str(FEATURE_BUDGET)]
        model = warehouse.with_name("model")
        found = submit_train(warehouse, model, weights, ranks, *options)
    log = [json.loads(line) for line in (model / "logs" / "epoch_logs.jsonl").open()]
    steps = [row["seconds"] for row in log if row["rank"] == 0]
    return {
        "images": sum(sum(classes.values()) for classes in found["images"].values()),
        "ranks": ranks,
        "epochs": epochs,
        "seconds": found["wall_seconds"],
        "cpu_seconds": found["cpu_seconds"],
        "rank_seconds": found["rank_seconds"],
        "epoch_seconds": round(sum(steps) / len(steps), 1),
        "images_per_second": round(sum(r["images_per_second"] for r in log) / len(log), 1),
        "rank_gb": round(max(found["rank_peak_memory_mb"]) * 2**20 / 1e9, 2),
        "job_gb": found["job_gb"],
        "disk_gb": round(peaks["disk_gb"] - before, 2),
        "features_gb": gigabytes(warehouse / "cxr" / "features"),
        "load_before": round(load, 1),
    }


def label_rows(images: float) -> float:
    """Return the rows that the class head holds, over all ranks."""
    train, validation = SHARES
    return min(images * train * COPIES, LABEL_ROWS) + min(images * validation, LABEL_ROWS)


def commits(images: float) -> int:
    """Return in how many commits the features of so many images are computed."""
    train, validation = SHARES
    buckets = -(-images * (train * COPIES + validation) // ROWS_PER_BUCKET)
    return int(-(-buckets // BUCKETS_PER_COMMIT))


def extrapolate(measured: Sequence[Mapping[str, Any]], images: int) -> dict[str, Any]:
    """Return what so many images would cost, from a line through at least two sizes."""

    def line(name: str, by: Any = float) -> float:
        slope, start = np.polyfit(
            [by(m["images"]) for m in measured], [m[name] for m in measured], 1
        )
        return float(start + slope * by(images))

    largest = max(measured, key=lambda found: found["images"])
    read = largest["read_seconds"] * images / largest["images"]
    again = read * (commits(images) - commits(largest["images"])) if images > ASKED[0] else 0.0
    return {
        "images": images,
        "seconds": round(line("seconds") + again, 1),
        "of_it_reading_again": round(again, 1),
        "cpu_seconds": round(line("cpu_seconds"), 1),
        "epoch_seconds": round(line("epoch_seconds"), 1),
        "rank_gb": round(line("rank_gb", label_rows), 2),
        "disk_gb": round(line("disk_gb"), 2),
        "features_gb": round(line("features_gb"), 2),
        "images_gb": round(line("images_gb"), 2),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as Markdown, in the order of the first row's keys."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---:"] * len(names)]
    lines += [[f"{row[name]:,}" if name in row else "" for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, help="file, or none for a random start")
    parser.add_argument("--sizes", default="1000,4000,12000")
    parser.add_argument("--ranks", type=int, default=min(2, CORES))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder that keeps what was measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = (given.work or Path(name)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for size in map(int, given.sizes.split(",")):
            kept = work / f"growth-{size}.json"
            if kept.exists():
                continue
            target = work / f"warehouse-{size}"
            source = preprocess(given.data, work)
            # In a process of its own: no Spark of ours lives on beside the job.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                about = pool.apply(make_warehouse, (source, target, size))
            figures = measure(target, given.weights, given.ranks, given.epochs) | about
            kept.write_text(json.dumps(figures))
            print(json.dumps(figures), file=sys.stderr, flush=True)
            shutil.rmtree(target)
        measured = [json.loads(path.read_text()) for path in work.glob("growth-*.json")]
    measured.sort(key=lambda found: found["images"])
    print(table(measured))
    if len(measured) > 1:
        asked = [extrapolate(measured, images) for images in ASKED]
        print(f"\nextrapolated, {TrainSettings.feature_budget:g} GB of features are allowed:")
        print(table(asked))
        print(json.dumps({"measured": measured, "extrapolated": asked}))


if __name__ == "__main__":
    main()
