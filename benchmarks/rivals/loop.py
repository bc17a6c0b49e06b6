"""A bare loop: one process a core, files to Parquet, nothing else."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.rivals.work import BATCH, Told, rows_of, told


def work(part: int, parts: int, given: Told) -> None:
    own = given.paths[part::parts]
    writer = None
    for first in range(0, len(own), BATCH):
        paths = own[first : first + BATCH]
        rows = rows_of(paths, [Path(p).read_bytes() for p in paths], given.model, given.engine)
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(f"{given.out}/{part}.parquet", table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


if __name__ == "__main__":
    os.makedirs(told().out)
    parts = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(i, parts, told())) for i in range(parts)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
