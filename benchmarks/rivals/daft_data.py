"""Daft: a column of paths, `url.download`, a class with a process a core, Parquet."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.rivals.work import BATCH, rows_of, told

KEPT = ("label", "confidence", "probabilities", "mask", "lung_area", "scored_at")


def main() -> None:
    import daft

    given = told()
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
            rows = rows_of(paths.to_pylist(), blobs.to_pylist(), given.model, given.engine)
            return [{name: row[name] for name in KEPT} for row in rows]

    table = daft.from_pydict({"path": given.paths})
    table = table.with_column("bytes", daft.col("path").download())
    table = table.with_column("said", Scorer().score(daft.col("path"), daft.col("bytes")))
    table.select("path", *(daft.col("said").get(name).alias(name) for name in KEPT)).write_parquet(
        given.out
    )


if __name__ == "__main__":
    main()
