"""Rows of `predictions` of all kinds, drawn by a seed."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa

from eagle_spark.imaging.mask import encode_mask
from eagle_spark.model.review import Flag
from eagle_spark.scoring.predict import PREDICTION_SCHEMA

SIZE = 16
EDGES = {"confidence": [0.6, 0.8, 0.9], "lung_area": [0.25], "novelty": [0.0, 0.5]}
INVALID: dict[str, dict[str, Any]] = {
    "size of the mask": {"mask": encode_mask(np.zeros((SIZE, 2 * SIZE), bool))},
    "no mask": {"mask": None},
    "part of a mask": {"mask": encode_mask(np.zeros((SIZE, SIZE), bool))[:20]},
    "no label": {"label": None},
    "no review": {"needs_review": None},
    "sum of the probabilities": {"probabilities": [("A", 0.5), ("B", 0.499)]},
    "no probabilities": {"probabilities": None},
    "empty probabilities": {"probabilities": []},
    "a probability without a value": {"probabilities": [("A", 1.0), ("B", None)]},
    "lung area below 0": {"lung_area": -0.001},
    "lung area above 1": {"lung_area": 1.001},
    "no lung area": {"lung_area": None},
    "no reason": {"status": "rejected", "reason": None},
    "another status": {"status": "duplicate"},
}
"""Columns that make a row invalid; of a scored row, if they name no other status."""


def scored_row(path: str) -> dict[str, Any]:
    return {
        **dict.fromkeys(PREDICTION_SCHEMA.names),
        **_required(path),
        "status": "scored",
        "label": "A",
        "confidence": 0.7,
        "probabilities": [("A", 0.7), ("B", 0.3)],
        "needs_review": False,
        "review_reasons": [],
        "novelty": 0.1,
        "mask": encode_mask(np.zeros((SIZE, SIZE), bool)),
        "lung_area": 0.25,
    }


def rejected_row(path: str) -> dict[str, Any]:
    return {
        **dict.fromkeys(PREDICTION_SCHEMA.names),
        **_required(path),
        "status": "rejected",
        "reason": "truncated",
    }


def invalid_row(kind: str, path: str) -> dict[str, Any]:
    """Return a row of a kind of `INVALID`."""
    columns = INVALID[kind]
    make = rejected_row if columns.get("status") == "rejected" else scored_row
    return {**make(path), **columns}


def _required(path: str) -> dict[str, Any]:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return {
        "path": path,
        "file_length": 1,
        "file_modified": moment,
        "model_id": "m",
        "run_id": "r",
        "scored_at": moment,
    }


def draw_rows(seed: int, count: int = 40, valid: bool = True) -> list[dict[str, Any]]:
    """Return scored and rejected rows, with values at the edges and nulls.

    Args:
        seed: of the random numbers.
        count: number of rows.
        valid: without it, about every third row is invalid, by each kind of `INVALID` in turn.
    """
    draw = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        path = f"file:///{draw.integers(10**6):06d}/é{number}.png"
        share = float(draw.choice([0.6, 0.8, draw.random()]))
        reasons = [str(flag) for flag in Flag if draw.random() < 0.3]
        changes = {
            "label": str(draw.choice(["A", "B", "C"])),
            "confidence": share,
            "probabilities": [("A", share), ("B", 1 - share)],
            "needs_review": bool(reasons),
            "review_reasons": reasons,
            "novelty": None if draw.random() < 0.2 else float(draw.choice([0.0, draw.normal()])),
            "lung_area": float(draw.choice([0.0, 0.25, 1.0, draw.random()])),
        }
        is_scored = draw.random() < 0.7
        rows.append({**scored_row(path), **changes} if is_scored else rejected_row(path))
    if not valid:
        for number, kind in zip(range(1, count, 3), INVALID, strict=False):
            rows[number] = invalid_row(kind, rows[number]["path"])
    return rows


def to_rows(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows with the schema of `predictions`."""
    return pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA)
