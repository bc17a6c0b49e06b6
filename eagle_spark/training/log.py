"""The training log of a model folder as CSV, JSON lines and TensorBoard events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from eagle_spark.io import join, list_folder, resolve
from eagle_spark.training.ranks.rank import LOGS, RankRecord

CSV_FILE, JSON_LINES_FILE = "training_log.csv", "epoch_logs.jsonl"
MAX_EVENT_BYTES = 64 * 2**20


def write_logs(folder: Path, staging: str, records: Sequence[RankRecord]) -> None:
    """Write the log of every epoch and rank to a new folder.

    Args:
        staging: URI of the folder that holds the TensorBoard events.
    """
    folder.mkdir(parents=True)
    rows = log_rows(records)
    (folder / JSON_LINES_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / CSV_FILE).write_text(table.getvalue())
    storage, path = resolve(join(staging, LOGS))
    for entry in list_folder(join(staging, LOGS)) if storage.exists(path) else ():
        target = folder / LOGS / entry.uri.removeprefix(storage.prefix + path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.read(resolve(entry.uri)[1], MAX_EVENT_BYTES))


def log_rows(records: Sequence[RankRecord]) -> list[dict[str, float | None]]:
    """Return one row per epoch and rank, in this order, all with the same keys; None if missing."""
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
