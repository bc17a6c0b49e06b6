"""What `benchmarks.scale` measures of many readers while a writer publishes."""

from __future__ import annotations

import statistics
import time
from collections import Counter

from benchmarks.scale_measure import BRANCH, Figures, Tables, tables
from eagle_spark.tables import PREDICTIONS

READERS, NIGHTS, CHUNKS, ROWS_PER_CHUNK = 100, 10, 3, 500
SECONDS = 240  # after which no further pair of nights begins


def readers(count: int = READERS, nights: int = NIGHTS) -> Figures:
    """Write and publish nights, in turn alone and while readers read main without a pause."""
    alone: list[float] = []
    busy: list[float] = []
    looks: list[list[str]] = []
    with tables() as its:
        its.warehouse.open_branch(PREDICTIONS, BRANCH)
        its.warehouse.remove(PREDICTIONS, "true", BRANCH)
        its.warehouse.publish(PREDICTIONS, BRANCH)
        _night(its, "warm")  # Java has compiled it by then
        started = time.monotonic()
        while len(busy) < nights and time.monotonic() - started < SECONDS:
            alone.append(_night(its, f"alone-{len(busy)}"))
            its.java.read(its.location, count, CHUNKS * ROWS_PER_CHUNK)
            busy.append(_night(its, f"busy-{len(busy)}"))
            looks += [str(look).split(" ", 2) for look in its.java.end()]
    seen = Counter(what for _, _, what in looks)
    seconds = sorted(float(took) for took, _, _ in looks)
    return {
        "readers": count,
        "nights": len(busy),
        "looks": len(looks),
        "in_flight": round(statistics.median(int(flying) for _, flying, _ in looks)),
        "states_seen": sum(what.isdigit() for what in seen),
        "not_whole": {what: number for what, number in seen.items() if not what.isdigit()},
        "median_seconds": round(statistics.median(seconds), 3),
        "p95_seconds": round(seconds[int(0.95 * len(seconds))], 3),
        "nights_alone": alone,
        "nights_with_readers": busy,
    }


def _night(its: Tables, name: str) -> float:
    """Write and publish one night as score does; return its seconds."""
    from pyspark.sql.functions import expr

    rows = its.spark.range(CHUNKS * ROWS_PER_CHUNK).selectExpr(
        "id",
        *(
            f"CAST(NULL AS {column.type}) AS {column.name}"
            for column in PREDICTIONS.columns
            if column.nullable
        ),
    )
    given = {
        "path": "concat('file:///', id)",
        "file_length": "id",
        "file_modified": "timestamp_millis(0)",
        "status": "'scored'",
        "model_id": "'model'",
        "run_id": f"'score-{name}'",
        "scored_at": "timestamp_millis(0)",
    }
    for column, value in given.items():
        rows = rows.withColumn(column, expr(value))
    started = time.perf_counter()
    its.warehouse.open_branch(PREDICTIONS, BRANCH)
    for chunk in range(CHUNKS):
        part = rows.where(f"id % {CHUNKS} = {chunk}")
        part = part.select(*(column.name for column in PREDICTIONS.columns)).coalesce(1)
        its.warehouse.append(PREDICTIONS, part, BRANCH)
    its.warehouse.publish(PREDICTIONS, BRANCH)
    return round(time.perf_counter() - started, 2)
