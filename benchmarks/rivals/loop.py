"""A bare loop: one process per core, files to Parquet, nothing else."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.rivals.work import BATCH, Arguments, parse_arguments, score_images


def work(part: int, parts: int, arguments: Arguments) -> None:
    share = arguments.paths[part::parts]
    writer = None
    for first in range(0, len(share), BATCH):
        paths = share[first : first + BATCH]
        blobs = [Path(path).read_bytes() for path in paths]
        rows = score_images(paths, blobs, arguments.model, arguments.engine)
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(f"{arguments.out}/{part}.parquet", table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


if __name__ == "__main__":
    arguments = parse_arguments()
    os.makedirs(arguments.out)
    parts = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(i, parts, arguments)) for i in range(parts)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
