"""Nights that the tests of the score job look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS

ROWS = f"SELECT * FROM {PREDICTIONS.full_name}"
# All that does not tell of the run.
SAID_ROWS = f"SELECT * EXCEPT (run_id, scored_at) FROM {PREDICTIONS.full_name} ORDER BY path"


def query(warehouse: Path, sql: str = ROWS) -> list[Any]:
    with open_session("test", str(warehouse)) as session:
        return session.sql(sql).collect()


def sound_images(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.png"))
    return [path for path in files if path.stat().st_size > 10_000 and "truncated" not in path.name]


def balanced(result: dict[str, Any]) -> bool:
    return result["listed"] == result["already_scored"] + result["scored"] + result["rejected"]
