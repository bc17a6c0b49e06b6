"""Daft: a column of paths, `url.download`, a class UDF with a process a core, Parquet."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.rivals.work import BATCH, rows_of, told


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

    @daft.udf(return_dtype=kind, batch_size=BATCH, concurrency=cores)
    class Scorer:
        def __init__(self) -> None:
            self.model, self.engine = given.model, given.engine

        def __call__(self, paths: Any, blobs: Any) -> list[dict[str, Any]]:
            rows = rows_of(paths.to_pylist(), blobs.to_pylist(), self.model, self.engine)
            return [{name: row[name] for name in KEPT} for row in rows]

    table = daft.from_pydict({"path": given.paths}).into_partitions(4 * cores)
    table = table.with_column("bytes", daft.col("path").url.download())
    table = table.with_column("said", Scorer(daft.col("path"), daft.col("bytes")))
    table.select("path", *(daft.col("said").struct.get(name) for name in KEPT)).write_parquet(
        given.out
    )


KEPT = ("label", "confidence", "probabilities", "mask", "lung_area", "scored_at")

if __name__ == "__main__":
    main()
