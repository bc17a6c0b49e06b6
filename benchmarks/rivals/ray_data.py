"""Ray Data: files, `map_batches` over an actor a core, Parquet."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from benchmarks.rivals.work import BATCH, rows_of, told


class Scorer:
    def __init__(self, model: str, engine: str) -> None:
        self.model, self.engine = model, engine

    def __call__(self, batch: pa.Table) -> pa.Table:
        paths, blobs = batch["path"].to_pylist(), batch["bytes"].to_pylist()
        return pa.Table.from_pylist(rows_of(paths, blobs, self.model, self.engine))


def main() -> None:
    import ray

    given = told()
    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    options: dict[str, Any] = {"batch_size": BATCH, "batch_format": "pyarrow", "concurrency": cores}
    options["fn_constructor_args"] = (given.model, given.engine)
    # A whole core has to be left, which Ray wants for each task that reads.
    options["num_cpus"] = 0.5
    files = ray.data.read_binary_files(given.paths, include_paths=True)
    files.map_batches(Scorer, **options).write_parquet(given.out)
    ray.shutdown()


if __name__ == "__main__":
    main()
