"""Cost of train by number of images, extrapolated to 15,153 and 1,000,000 images.

    python -m benchmarks.train_growth --data DIR --weights PATH [--sizes 1000,4000,12000]
                                      [--ranks 2] [--epochs 1] [--work DIR]

DIR is a labelled folder; the training uses the first rows of its table `images`, by a hash of their
path. Images without a mask get a synthetic one, two ellipses in one of eight shapes: the cost of
the mask head is then that of real masks, its metrics are not meaningful.

Each size is one `spark-submit submit/train.py` without cached features. `seconds` are those of the
whole job, `images_per_second` those of the steps (rows: each image is read twice, once mirrored).
Memory is the peak of each rank, and the peak of the sum over all processes of the job (RSS; shared
pages count more than once). Disk is the peak of the warehouse and Spark's scratch folder together,
without `images`. With `--work` each size is measured once, so that sizes can be measured one at a
time.

The table at the end fits a line through the measurements: seconds and disk by images, memory of a
rank by the rows of its class head, at most LABEL_ROWS. Beyond one commit (BUCKETS_PER_COMMIT) the
features stage reads `images` again for each commit; the measured time of one such read is added.
Other numbers of epochs change only the share of the steps.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
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

EXTRAPOLATED = (15_153, 1_000_000)  # images
SHAPES = 8
SHARES = (0.7, 0.1)  # of train and validation
FEATURE_BUDGET = 1000  # GB; the default limits the larger sizes


def draw_mask(shape: int, side: int) -> bytes:
    """Return a mask of two ellipses, larger with each shape, as a 1-bit PNG."""
    y, x = np.mgrid[:side, :side] / side
    scale = 1 + 0.03 * shape
    mask = np.zeros((side, side), bool)
    for middle in (0.31, 0.69):
        mask |= ((x - middle) / (0.13 * scale)) ** 2 + ((y - 0.5) / (0.28 * scale)) ** 2 < 1
    return encode_mask(mask)


def preprocess(data: str, work: Path) -> Path:
    warehouse = work / "all"
    if not (warehouse / "cxr" / "images").exists():
        run(submit_words("preprocess", "--input", data, "--warehouse", str(warehouse)))
    return warehouse


def make_warehouse(source: Path, target: Path, size: int) -> dict[str, float]:
    """Write the first accepted rows of a table `images`, all with masks, to a new warehouse.

    Returns:
        `read_seconds`, of one read of all pixels, and `images_gb`.
    """
    from pyspark.sql.functions import array, coalesce, col, lit, pmod, xxhash64

    from eagle_spark.spark.session import open_session
    from eagle_spark.tables import ACCEPTED, IMAGES, Warehouse

    shutil.rmtree(target, ignore_errors=True)
    with open_session("bench", str(source)) as spark:
        rows = Warehouse(spark).read(IMAGES).where(ACCEPTED)
        side = round(len(rows.select("pixels").first()["pixels"]) ** 0.5)
        shapes = array(*(lit(bytearray(draw_mask(shape, side))) for shape in range(SHAPES)))
        mask = shapes[pmod(xxhash64("path"), lit(SHAPES)).cast("int")]
        first = rows.orderBy(xxhash64("path", lit(1))).limit(size)
        first = first.withColumn("mask", coalesce(col("mask"), mask))
        first.select(*(column.name for column in IMAGES.columns)).write.parquet(f"{target}-rows")
    with open_session("bench", str(target)) as spark:
        tables = Warehouse(spark)
        tables.create_or_migrate(IMAGES)
        tables.append(IMAGES, spark.read.schema(IMAGES.schema()).parquet(f"{target}-rows"))
        shutil.rmtree(f"{target}-rows")
        started = time.perf_counter()
        tables.read(IMAGES).selectExpr("sum(hash(pixels, mask))").collect()
        seconds = time.perf_counter() - started
    return {"read_seconds": round(seconds, 2), "images_gb": measure_size(target / "cxr" / "images")}


def measure_size(folder: Path) -> float:
    """Return the size of all files of a folder, GB."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # deleted in the meantime
            continue
    return round(total / 1e9, 3)


@contextmanager
def watch_disk(folders: Sequence[Path]) -> Iterator[dict[str, float]]:
    """Yield the peak size of the folders during the block, GB."""
    peaks = {"disk_gb": 0.0}
    done = threading.Event()

    def poll() -> None:
        while not done.wait(2.0):
            disk = sum(measure_size(folder) for folder in folders)
            peaks["disk_gb"] = max(peaks["disk_gb"], round(disk, 3))

    thread = threading.Thread(target=poll, daemon=True)
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
    before = measure_size(warehouse)
    load = os.getloadavg()[0]
    os.environ["SPARK_LOCAL_DIRS"] = str(scratch)
    with watch_disk([warehouse, scratch]) as peaks:
        options = ["--epochs", str(epochs), "--feature-budget", str(FEATURE_BUDGET)]
        model = warehouse.with_name("model")
        result = submit_train(warehouse, model, weights, ranks, *options)
    log = [json.loads(line) for line in (model / "logs" / "epoch_logs.jsonl").open()]
    steps = [row["seconds"] for row in log if row["rank"] == 0]
    return {
        "images": sum(sum(classes.values()) for classes in result["images"].values()),
        "ranks": ranks,
        "epochs": epochs,
        "seconds": result["wall_seconds"],
        "cpu_seconds": result["cpu_seconds"],
        "rank_seconds": result["rank_seconds"],
        "epoch_seconds": round(sum(steps) / len(steps), 1),
        "images_per_second": round(sum(r["images_per_second"] for r in log) / len(log), 1),
        "rank_gb": round(max(result["rank_peak_memory_mb"]) * 2**20 / 1e9, 2),
        "job_gb": result["job_gb"],
        "disk_gb": round(peaks["disk_gb"] - before, 2),
        "features_gb": measure_size(warehouse / "cxr" / "features"),
        "load_before": round(load, 1),
    }


def count_label_rows(images: float) -> float:
    """Return the rows of the class head, over all ranks."""
    train, validation = SHARES
    return min(images * train * COPIES, LABEL_ROWS) + min(images * validation, LABEL_ROWS)


def count_commits(images: float) -> int:
    """Return the number of commits of the features stage."""
    train, validation = SHARES
    buckets = -(-images * (train * COPIES + validation) // ROWS_PER_BUCKET)
    return int(-(-buckets // BUCKETS_PER_COMMIT))


def extrapolate(measured: Sequence[Mapping[str, Any]], images: int) -> dict[str, Any]:
    """Return the figures for a number of images, by a line through at least two sizes."""

    def predict(name: str, by: Callable[[float], float] = float) -> float:
        slope, start = np.polyfit(
            [by(m["images"]) for m in measured], [m[name] for m in measured], 1
        )
        return float(start + slope * by(images))

    largest = max(measured, key=lambda row: row["images"])
    read_seconds = largest["read_seconds"] * images / largest["images"]
    reread_seconds = (
        read_seconds * (count_commits(images) - count_commits(largest["images"]))
        if images > EXTRAPOLATED[0]
        else 0.0
    )
    return {
        "images": images,
        "seconds": round(predict("seconds") + reread_seconds, 1),
        "of_it_reading_again": round(reread_seconds, 1),
        "cpu_seconds": round(predict("cpu_seconds"), 1),
        "epoch_seconds": round(predict("epoch_seconds"), 1),
        "rank_gb": round(predict("rank_gb", count_label_rows), 2),
        "disk_gb": round(predict("disk_gb"), 2),
        "features_gb": round(predict("features_gb"), 2),
        "images_gb": round(predict("images_gb"), 2),
    }


def render(rows: Sequence[Mapping[str, Any]]) -> str:
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
    parser.add_argument("--work", type=Path, help="folder that keeps the measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = (options.work or Path(name)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for size in map(int, options.sizes.split(",")):
            file = work / f"growth-{size}.json"
            if file.exists():
                continue
            target = work / f"warehouse-{size}"
            source = preprocess(options.data, work)
            # In a process of its own: its Spark ends before the job starts.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                table = pool.apply(make_warehouse, (source, target, size))
            figures = measure(target, options.weights, options.ranks, options.epochs) | table
            file.write_text(json.dumps(figures))
            print(json.dumps(figures), file=sys.stderr, flush=True)
            shutil.rmtree(target)
        measured = [json.loads(path.read_text()) for path in work.glob("growth-*.json")]
    measured.sort(key=lambda row: row["images"])
    print(render(measured))
    if len(measured) > 1:
        extrapolated = [extrapolate(measured, images) for images in EXTRAPOLATED]
        print(f"\nextrapolated, {TrainSettings.feature_budget:g} GB of features are allowed:")
        print(render(extrapolated))
        print(json.dumps({"measured": measured, "extrapolated": extrapolated}))


if __name__ == "__main__":
    main()
