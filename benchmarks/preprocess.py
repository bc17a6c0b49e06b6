"""preprocess compared with a bare loop: images/s, and memory of a task by size of the folder.

    python -m benchmarks.preprocess --data DIR [--rounds 3]

DIR is a labelled folder (<Class>/images). The reference does the same work per image (read, decode,
resize, SHA-256, perceptual hash, mask) in one process per core and writes Parquet with pyarrow,
without Spark, tables, splits or guarantees. The job is timed as a whole, from `spark-submit` to the
published table, and its decoding stage alone in a session that is already open.
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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from eagle_spark.datasets.decode_worker import (
    DECODED,
    CandidateRow,
    DecodeWorker,
    candidate_rows,
    decode_candidates,
    decode_one,
    decode_share,
    share_candidates,
)
from eagle_spark.datasets.ingest import WORKER_IMPORTS, match_candidates, read_layout
from eagle_spark.datasets.matching import Candidate
from eagle_spark.io import absolute_uri, list_folder
from eagle_spark.spark.tasks import run_tasks
from tests.helpers.processes import submit_words

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIZE = 224
CORES = len(os.sched_getaffinity(0))
BATCH = 64


def run_bare_loop(share: tuple[list[CandidateRow], str]) -> None:
    """Decode the share of one process and write it as Parquet."""
    candidates, target = share
    with pq.ParquetWriter(target, DECODED) as writer:
        for start in range(0, len(candidates), BATCH):
            rows = [{**row, **decode_one(row, SIZE)} for row in candidates[start : start + BATCH]]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=DECODED))


def time_bare_loop(rows: list[CandidateRow], folder: Path) -> float:
    shares = [(rows[i::CORES], str(folder / f"bare-{i}.parquet")) for i in range(CORES)]
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(run_bare_loop, shares)
    return time.perf_counter() - start


def time_stage(spark: SparkSession, candidates: Sequence[Candidate], folder: Path) -> float:
    """Time the decoding stage, its rows written as Parquet, in a warm session."""
    shutil.rmtree(folder / "stage", ignore_errors=True)
    start = time.perf_counter()
    decode_candidates(spark, candidates, DecodeWorker(SIZE, f"file://{folder / 'stage'}"))
    return time.perf_counter() - start


def time_job(data: str, folder: Path) -> float:
    shutil.rmtree(folder / "warehouse", ignore_errors=True)
    words = submit_words("preprocess", "--input", data, "--warehouse", str(folder / "warehouse"))
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, timeout=3600)
    return time.perf_counter() - start


def measure_task_memory(spark: SparkSession, candidates: Sequence[Candidate], folder: Path) -> int:
    """Return the peak resident memory, bytes, of a Python worker that decodes the candidates."""
    worker = DecodeWorker(SIZE, f"file://{folder / 'memory'}")

    def measure_peak(share: pa.Table) -> int:
        decode_share(worker, share)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    return max(run_tasks(spark.sparkContext, share_candidates(spark, candidates), measure_peak))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from eagle_spark.spark.session import open_session

    root = absolute_uri(options.data)
    candidates = match_candidates(read_layout(root, list_folder(root)), None, "benchmark")
    rows, count = candidate_rows(candidates), len(candidates)
    bare, stage, job = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(options.rounds):
            bare.append(time_bare_loop(rows, folder))
            job.append(time_job(options.data, folder))
        with open_session("bench", str(folder / "wh"), imports=WORKER_IMPORTS) as spark:
            time_stage(spark, candidates[:512], folder)  # warms up Spark and its workers
            for _ in range(options.rounds):
                bare.append(time_bare_loop(rows, folder))
                stage.append(time_stage(spark, candidates, folder))
        memory = {}
        for images in sorted({min(1221, count), count}):
            with open_session("bench", str(folder / "wh"), imports=WORKER_IMPORTS) as spark:
                memory[images] = measure_task_memory(spark, candidates[:images], folder)
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
