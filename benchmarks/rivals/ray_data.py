"""Ray Data: files, `map_batches` with one actor per core, Parquet."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa

from benchmarks.rivals.work import BATCH, parse_arguments, score_images


class Scorer:
    def __init__(self, model: str, engine: str) -> None:
        self.model, self.engine = model, engine

    def __call__(self, batch: pa.Table) -> pa.Table:
        paths, blobs = batch["path"].to_pylist(), batch["bytes"].to_pylist()
        return pa.Table.from_pylist(score_images(paths, blobs, self.model, self.engine))


def main() -> None:
    import ray

    arguments = parse_arguments()
    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    options: dict[str, Any] = {"batch_size": BATCH, "batch_format": "pyarrow", "concurrency": cores}
    options["fn_constructor_args"] = (arguments.model, arguments.engine)
    # Ray reserves a whole core for each task that reads files.
    options["num_cpus"] = 0.5
    files = ray.data.read_binary_files(arguments.paths, include_paths=True)
    files.map_batches(Scorer, **options).write_parquet(arguments.out)
    ray.shutdown()


if __name__ == "__main__":
    main()
