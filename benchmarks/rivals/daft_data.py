"""Daft: a column of paths, `download`, a class with one process per core, Parquet."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.rivals.work import BATCH, parse_arguments, score_images

COLUMNS = ("label", "confidence", "probabilities", "mask", "lung_area", "scored_at")


def main() -> None:
    import daft

    arguments = parse_arguments()
    cores = len(os.sched_getaffinity(0))
    kind = daft.DataType.struct(
        {
            "label": daft.DataType.string(),
            "confidence": daft.DataType.float64(),
            "probabilities": daft.DataType.list(daft.DataType.float64()),
            "mask": daft.DataType.binary(),
            "lung_area": daft.DataType.float64(),
            "scored_at": daft.DataType.float64(),
        }
    )

    @daft.cls(use_process=True, max_concurrency=cores)
    class Scorer:
        @daft.method.batch(return_dtype=kind, batch_size=BATCH)
        def score(self, paths: Any, blobs: Any) -> list[dict[str, Any]]:
            rows = score_images(
                paths.to_pylist(), blobs.to_pylist(), arguments.model, arguments.engine
            )
            return [{name: row[name] for name in COLUMNS} for row in rows]

    table = daft.from_pydict({"path": arguments.paths})
    table = table.with_column("bytes", daft.col("path").download())
    row = Scorer().score(daft.col("path"), daft.col("bytes"))
    table = table.with_column("row", row)
    columns = (daft.col("row").get(name).alias(name) for name in COLUMNS)
    table.select("path", *columns).write_parquet(arguments.out)


if __name__ == "__main__":
    main()
