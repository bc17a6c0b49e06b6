"""Queries and checks of runs of the job `score`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from eagle_spark.scoring import job
from eagle_spark.scoring.context import ScoreRun
from eagle_spark.scoring.slices import Slice
from eagle_spark.spark.batches import Worker
from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS
from eagle_spark.tables.branch import Branch

ROWS = f"SELECT * FROM {PREDICTIONS.full_name}"
# Without the columns that differ between runs.
PREDICTION_ROWS = f"SELECT * EXCEPT (run_id, scored_at) FROM {PREDICTIONS.full_name} ORDER BY path"


def query(warehouse: Path, sql: str = ROWS) -> list[Any]:
    with open_session("test", str(warehouse)) as session:
        return session.sql(sql).collect()


def list_valid_images(folder: Path) -> list[Path]:
    """Return the PNG files of `write_unlabelled` that are not broken."""
    files = sorted(folder.rglob("*.png"))
    return [path for path in files if path.stat().st_size > 10_000 and "truncated" not in path.name]


def is_balanced(result: dict[str, Any]) -> bool:
    """Whether the counts of a result add up."""
    return result["listed"] == result["already_scored"] + result["scored"] + result["rejected"]


def die_at(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, but at one call, from 1 up, ends like a killed run."""
    calls = count(1)

    def call(*arguments: Any) -> Any:
        if next(calls) == number:
            raise KeyboardInterrupt
        return function(*arguments)

    return call


def change_batches(change: Callable[[Worker, Any], Any]) -> Callable[..., Any]:
    """Return a `job.score_chunks` whose worker is `change`, called with the real one."""
    original: Callable[..., Any] = job.score_chunks

    def score(context: ScoreRun, branch: Branch, left: Slice, worker: Worker) -> Any:
        return original(context, branch, left, partial(change, worker))

    return score
