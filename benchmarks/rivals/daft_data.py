"""Daft: a column of paths, `download`, a class with one process per core, Parquet."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.rivals.work import BATCH, parse_arguments, score_images


def main() -> None:
    import daft

    arguments = parse_arguments()
    cores = len(os.sched_getaffinity(0))
    text, number = daft.DataType.string(), daft.DataType.float64()
    columns = {
        "image_id": text,
        "status": text,
        "label": text,
        "confidence": number,
        "probabilities": daft.DataType.list(number),
        "needs_review": daft.DataType.bool(),
        "review_reasons": text,
        "novelty": number,
        "mask": daft.DataType.binary(),
        "lung_area": number,
        "scored_at": number,
    }
    names = tuple(columns)

    @daft.cls(use_process=True, max_concurrency=cores)
    class Scorer:
        @daft.method.batch(return_dtype=daft.DataType.struct(columns), batch_size=BATCH)
        def score(self, paths: Any, blobs: Any) -> list[dict[str, Any]]:
            rows = score_images(
                paths.to_pylist(), blobs.to_pylist(), arguments.model, arguments.engine
            )
            return [{name: row[name] for name in names} for row in rows]

    table = daft.from_pydict({"path": arguments.paths})
    table = table.with_column("bytes", daft.col("path").download())
    row = Scorer().score(daft.col("path"), daft.col("bytes"))
    table = table.with_column("row", row)
    fields = (daft.col("row").get(name).alias(name) for name in names)
    table.select("path", *fields).write_parquet(arguments.out)


if __name__ == "__main__":
    main()
