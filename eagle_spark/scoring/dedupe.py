"""Images that have a prediction already, under another path: it is copied, not computed."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.predictor import Prediction

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from eagle_spark.tables.branch import Branch

STATUS_DUPLICATE = "duplicate"
"""Status, on the branch alone, of a row that waits for the prediction of the same bytes."""

PREDICTION_COLUMNS = (
    *(one.name for one in fields(Prediction) if one.name not in ("status", "image_id", "reason")),
    "engine",
)
"""Columns of a scored row that depend on the bytes and the model, not on the path."""


class Broadcast(Protocol):
    """A Spark broadcast of sorted hash prefixes."""

    @property
    def value(self) -> NDArray[np.uint64]: ...


def hash_prefix(image_id: str) -> np.uint64:
    """Return the first 64 bits of an image id."""
    prefix: np.uint64 = np.uint64(int(image_id[:16], 16))
    return prefix


def is_scored(image_id: str, scored_hashes: Broadcast | None) -> bool:
    """Whether the prefix of an image id is among those of scored images."""
    if scored_hashes is None:
        return False
    prefixes, prefix = scored_hashes.value, hash_prefix(image_id)
    index = int(np.searchsorted(prefixes, prefix))
    return index < len(prefixes) and bool(prefixes[index] == prefix)


def broadcast_scored_hashes(rows: DataFrame) -> Broadcast | None:
    """Broadcast the hash prefixes, 8 bytes each, of the images of scored rows; None if empty.

    Args:
        rows: published rows of one model. Rows of the branch of a killed run are left out: the
            remaining files are then predicted in the batches of an undisturbed run, and so to the
            same digits. Rows that the branch has deleted count: an archive that is replaced mostly
            holds the same images.
    """
    # Signed: SQL has no other integers of 64 bits.
    prefixes = rows.selectExpr("CAST(conv(substr(image_id, 1, 16), 16, -10) AS BIGINT) AS prefix")
    values = prefixes.toArrow()["prefix"].to_numpy().view(np.uint64)
    return rows.sparkSession.sparkContext.broadcast(np.sort(values)) if len(values) else None


def copy_duplicate_predictions(branch: Branch, model_condition: str) -> None:
    """Copy predictions from published rows with the same image id to duplicates on the branch.

    A duplicate stays one if none has its id, as ids were compared by their prefix.
    """
    duplicates = f"{model_condition} AND status = '{STATUS_DUPLICATE}'"
    branch.merge(
        f"SELECT image_id, any_value(struct({', '.join(PREDICTION_COLUMNS)})) AS prediction "
        f"FROM {{main}} WHERE {model_condition} AND status = 'scored' "
        f"AND image_id IN (SELECT image_id FROM {{branch}} WHERE {duplicates}) GROUP BY image_id",
        "target.image_id = source.image_id "
        f"AND target.{model_condition} AND target.status = '{STATUS_DUPLICATE}'",
        {
            "status": "'scored'",
            **{name: f"source.prediction.{name}" for name in PREDICTION_COLUMNS},
        },
    )
