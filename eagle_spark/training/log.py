"""The training log as files of a model folder: CSV, JSON lines, and TensorBoard's events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_spark.io import join, list_folder, locate
from eagle_spark.training.ranks.rank import LOGS

CSV, LINES = "training_log.csv", "epoch_logs.jsonl"
MAX_EVENT_BYTES = 64 * 2**20


def write_logs(folder: Path, staging: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the log of every epoch and rank below `folder`; events come from `staging` (URI)."""
    folder.mkdir(parents=True)
    rows = log_rows(records)
    (folder / LINES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / CSV).write_text(table.getvalue())
    storage, path = locate(join(staging, LOGS))
    for entry in list_folder(join(staging, LOGS)) if storage.exists(path) else ():
        target = folder / LOGS / entry.uri.removeprefix(storage.prefix + path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read(locate(entry.uri)[1], MAX_EVENT_BYTES))


def log_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per epoch and rank, ordered so, all with the same keys; None is not known."""
    rows = [
        {"epoch": epoch["epoch"], "rank": record["rank"], **epoch}
        for record in records
        for epoch in record["epochs"]
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    return sorted(
        ({name: row.get(name) for name in names} for row in rows),
        key=lambda row: (row["epoch"], row["rank"]),
    )
