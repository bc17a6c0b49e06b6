"""preprocess beside a bare loop: images/s, and the memory of one task against the folder's size.

    python -m benchmarks.preprocess --data DIR [--rounds 3]

DIR is a labelled folder (<Class>/images). The reference does the same work per image (read, decode,
resize, SHA-256, perceptual hash, mask) in one plain process per core, writing Parquet with pyarrow,
without Spark, tables, splits or guarantees. Ours is timed as a whole, from `spark-submit` to the
published table, and in its steady part: the decoding stage alone, in a session that runs already.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.datasets.decode_worker import (
    DECODED,
    Stager,
    candidate_rows,
    decode_one,
    distribute,
    stage_decoded,
)
from eagle_spark.datasets.ingest import list_candidates
from tests.helpers.processes import submit_words

SIZE = 224
CORES = len(os.sched_getaffinity(0))
ROWS = 64


def bare_loop(share: tuple[list[dict[str, Any]], str]) -> int:
    """Decode one process' share and write it as Parquet; return this process' peak memory."""
    candidates, target = share
    with pq.ParquetWriter(target, DECODED) as writer:
        for start in range(0, len(candidates), ROWS):
            rows = [{**row, **decode_one(row, SIZE)} for row in candidates[start : start + ROWS]]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=DECODED))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def time_bare_loop(rows: list[dict[str, Any]], folder: Path) -> float:
    shares = [(rows[i::CORES], str(folder / f"bare-{i}.parquet")) for i in range(CORES)]
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(bare_loop, shares)
    return time.perf_counter() - start


def time_stage(spark: Any, candidates: list[Any], folder: Path) -> float:
    """Time the decoding stage, its rows written as Parquet, in a warm session."""
    shutil.rmtree(folder / "stage", ignore_errors=True)
    start = time.perf_counter()
    stage_decoded(spark, candidates, SIZE, f"file://{folder / 'stage'}")
    return time.perf_counter() - start


def time_job(data: str, folder: Path) -> float:
    shutil.rmtree(folder / "warehouse", ignore_errors=True)
    words = submit_words("preprocess", "--input", data, "--warehouse", str(folder / "warehouse"))
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, timeout=3600)
    return time.perf_counter() - start


def task_memory(spark: Any, candidates: list[Any], folder: Path) -> int:
    """Return the largest resident set, bytes, that a Python worker reached staging these."""
    stager = Stager(SIZE, f"file://{folder / 'memory'}")

    def peak(batches: Any) -> Any:
        for _ in stager(batches):
            pass
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        yield pa.RecordBatch.from_pydict({"peak": [used]})

    peaks = distribute(spark, candidates).mapInArrow(peak, "peak long")
    return int(peaks.agg({"peak": "max"}).first()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    from eagle_spark.spark.session import open_session

    candidates = list_candidates(given.data, None)
    rows, count = candidate_rows(candidates), len(candidates)
    bare, stage, job = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(given.rounds):
            bare.append(time_bare_loop(rows, folder))
            job.append(time_job(given.data, folder))
        with open_session("bench", str(folder / "wh")) as spark:
            time_stage(spark, candidates[:512], folder)  # Spark and its workers warm
            for _ in range(given.rounds):
                bare.append(time_bare_loop(rows, folder))
                stage.append(time_stage(spark, candidates, folder))
        memory = {}
        for some in sorted({min(1221, count), count}):
            with open_session("bench", str(folder / "wh")) as spark:
                memory[some] = task_memory(spark, candidates[:some], folder)
    loop = statistics.median(bare)
    figures = {
        "images": count,
        "cores": CORES,
        "bare_loop_images_per_second_per_core": round(count / loop / CORES, 1),
        "stage_images_per_second_per_core": round(count / statistics.median(stage) / CORES, 1),
        "job_images_per_second_per_core": round(count / statistics.median(job) / CORES, 1),
        "stage_ratio": round(loop / statistics.median(stage), 3),
        "job_ratio": round(loop / statistics.median(job), 3),
        "job_seconds": round(statistics.median(job), 1),
        "task_peak_mb": {str(n): round(peak / 2**20) for n, peak in memory.items()},
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
