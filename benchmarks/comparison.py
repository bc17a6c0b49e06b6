"""Seconds and memory of the comparison of a listing with the rows that are known: files and SQL.

    python -m benchmarks.comparison [--known 10000,100000,1000000] [--new 1000] [--rounds 3]

No images and no model: data files of 512 rows are written as a run of score writes them, and the
listing has the known files and `--new` others among them. Each measurement is a process of its own,
as each night is; the two ways take turns. `first` is the comparison of a cold session, `second` the
same once more; memory is the largest of a process (RSS) over both, in GB, of which `start` is what
the driver's Python and Java had before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from eagle_spark.io import FileEntry, list_folder
from eagle_spark.scoring.compare_files import Known, diff_against_files, write_left
from eagle_spark.scoring.diff import diff_against_table, summarise, write_without_row
from eagle_spark.scoring.listing import read_listing, write_listing
from eagle_spark.scoring.slices import count_slice, list_pieces
from eagle_spark.spark.batches import IMAGES_PER_TASK
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from eagle_spark.tables.data_files import write_data_file
from eagle_spark.tables.writer import read_layout

MODEL = "m" * 64
MODIFIED = 1_700_000_000_000  # milliseconds
FOLDER = "hdfs://cluster/archive"
WAYS = ("files", "sql")
MASK = b"m" * 700
POLL_SECONDS = 0.02


def make_paths(first: int, count: int) -> list[str]:
    return [f"{FOLDER}/{id % 1000:03d}/{id:09d}.png" for id in range(first, first + count)]


def make_rows(first: int, count: int) -> pa.Table:
    """Return scored rows of consecutive files."""
    columns = {
        "image_id": [f"{id:064x}" for id in range(first, first + count)],
        "path": make_paths(first, count),
        "file_length": np.arange(first, first + count) % 5000,
        "file_modified": pa.repeat(pa.scalar(MODIFIED * 1000, pa.timestamp("us", "UTC")), count),
        "status": ["scored"] * count,
        "label": ["Normal"] * count,
        "confidence": np.full(count, 0.9),
        "probabilities": [[("Normal", 0.9), ("COVID", 0.1)]] * count,
        "needs_review": [False] * count,
        "review_reasons": [[]] * count,
        "mask": [MASK] * count,
        "lung_area": np.full(count, 0.25),
        "model_id": [MODEL] * count,
        "run_id": [f"score-{first}"] * count,
        "scored_at": pa.repeat(pa.scalar(MODIFIED * 1000, pa.timestamp("us", "UTC")), count),
    }
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in PREDICTIONS.arrow_schema()
    ]
    return pa.Table.from_arrays(arrays, schema=PREDICTIONS.arrow_schema())


def fill(work: Path, known: int, new: int) -> None:
    """Write the table and the listing."""
    with open_session("bench", str(work / "warehouse")) as spark:
        warehouse = Warehouse(spark)
        warehouse.create_or_migrate(PREDICTIONS)
        iceberg = warehouse.iceberg(PREDICTIONS)
        layout = read_layout(iceberg.describe())
        files = [
            write_data_file(make_rows(first, min(IMAGES_PER_TASK, known - first)), layout, "run")[0]
            for first in range(0, known, IMAGES_PER_TASK)
        ]
        iceberg.append_files("main", files, {})
    each = known // new

    def list_entries() -> Iterator[FileEntry]:
        for id, path in enumerate(make_paths(0, known)):
            yield FileEntry(path, id % 5000, MODIFIED)
            if id % each == 0 and id // each < new:
                yield FileEntry(f"{path}.new", 1, MODIFIED)

    write_listing(list_entries(), str(work / "listing"))


@contextmanager
def watch_memory() -> Iterator[dict[str, float]]:
    """Yield the largest resident memory of a process of each kind, GB; complete after the block."""
    peaks: dict[str, float] = {}
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            for kind, size in measure_memory():
                peaks[kind] = max(peaks.get(kind, 0.0), size)

    watcher = threading.Thread(target=poll, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join(timeout=10)


def measure_memory() -> Iterator[tuple[str, float]]:
    """Yield kind and resident memory of each process of this job, GB."""
    driver = psutil.Process()
    yield "python", round(driver.memory_info().rss / 1e9, 3)
    for process in driver.children(recursive=True):
        try:
            name, size = process.name(), round(process.memory_info().rss / 1e9, 3)
        except psutil.Error:  # it has ended
            continue
        if name == "java":
            yield "java", size
        elif name.startswith("python"):  # not the programs that Java forks
            yield "worker", size


def measure(work: Path, way: str) -> dict[str, object]:
    """Compare twice in a session of this process."""
    with open_session("bench", str(work / "warehouse")) as spark:
        warehouse = Warehouse(spark)
        start = {f"start_{kind}": size for kind, size in measure_memory()}
        with watch_memory() as peaks:
            runs = [compare_in_folder(warehouse, work, way) for _ in range(2)]
    seconds = {name: run["seconds"] for name, run in zip(("first", "second"), runs, strict=True)}
    counts = {name: runs[0][name] for name in ("valid", "left", "plan")}
    return {**seconds, **counts, **start, **peaks}


def compare_in_folder(warehouse: Warehouse, work: Path, way: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="staging-", dir=work) as staging:
        return compare(warehouse, work, way, Path(staging))


def compare(warehouse: Warehouse, work: Path, way: str, staging: Path) -> dict[str, float]:
    """Compare the listing with the table, and write the files that are left."""
    spark, iceberg = warehouse.spark, warehouse.iceberg(PREDICTIONS)
    schema = read_layout(iceberg.describe()).schema
    parts, listing = list_pieces(str(work / "listing")), read_listing(spark, str(work / "listing"))
    start = time.monotonic()
    planned = start
    if way == "files":
        snapshot = iceberg.snapshot_id()
        assert snapshot is not None
        files = iceberg.plan_files(snapshot, {"model_id": MODEL}, {"path": FOLDER})
        planned = time.monotonic()
        known = Known(schema, MODEL, "transient", FOLDER)
        assert files is not None
        found = diff_against_files(spark.sparkContext, parts, files, known, str(staging))
        diff = summarise(found.groups, None, found.left)
        left = write_left(spark.sparkContext, found.left, str(staging / "left"))
    else:
        rows = warehouse.read(PREDICTIONS).where(f"model_id = '{MODEL}'")
        diff = diff_against_table(rows, listing, "transient")
        left = write_without_row(listing, rows, str(staging / "left"))
    return {
        "seconds": round(time.monotonic() - start, 2),
        "plan": round(planned - start, 2),
        "valid": sum(diff.valid.values()),
        "left": count_slice(left),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--known", default="10000,100000,1000000")
    parser.add_argument("--new", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keep the tables here; one that is there is used")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # way, in a process of its own
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.work, options.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        for known in map(int, options.known.split(",")):
            work = (options.work or Path(name)) / str(known)
            if not (work / "listing").exists():
                fill(work, known, options.new)
            files = sum(1 for _ in list_folder(str(work / "warehouse/cxr/predictions/data")))
            rounds = [{way: run(work, way) for way in WAYS} for _ in range(options.rounds)]
            medians = {way: take_medians([one[way] for one in rounds]) for way in WAYS}
            print(json.dumps({"known": known, "data_files": files, **medians}), flush=True)


def run(work: Path, way: str) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.comparison", "--work", str(work), "--measure", way]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{work.name} {way}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


def take_medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in runs) for name in runs[0]}


if __name__ == "__main__":
    main()
