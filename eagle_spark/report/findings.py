"""What the tables say, gathered for the report: small, plain values."""

from __future__ import annotations

import json
from typing import Any

from eagle_spark.imaging.mask import decode_mask
from eagle_spark.report.pictures import Picture
from eagle_spark.tables import FEATURES, IMAGES, PREDICTIONS, REJECTS, RUNS, Warehouse
from eagle_spark.tables.schema import Table

RUNS_SHOWN = 12
REJECTS_SHOWN = 12
SHOWN_EACH = 6  # pictures of a kind


def data_set(warehouse: Warehouse, snapshot: int | None) -> list[dict[str, Any]]:
    """Return a row for each source and class: images of each split, masks, images of no patient.

    Args:
        snapshot: of `images`, which the model was trained on; None for the present one.
    """
    if not warehouse.exists(IMAGES):
        return []
    rows = warehouse.read(IMAGES) if snapshot is None else warehouse.at(IMAGES, snapshot)
    counted = rows.groupBy("source", "label").agg(
        *_counts(
            {
                **{split: f"split = '{split}'" for split in ("train", "val", "test")},
                "masks": "mask IS NOT NULL",
                "no_patient": "patient_id IS NULL",
            }
        )
    )
    return [row.asDict() for row in counted.orderBy("source", "label").collect()]


def _counts(conditions: dict[str, str]) -> list[Any]:
    from pyspark.sql.functions import expr

    return [expr(f"count_if({what})").alias(name) for name, what in conditions.items()]


def rejected(warehouse: Warehouse, table: Table, condition: str = "true") -> list[dict[str, Any]]:
    """Return reason, number, and one path and detail as an example, the commonest first."""
    if not warehouse.exists(table):
        return []
    rows = (
        warehouse.read(table)
        .where(condition)
        .groupBy("reason")
        .agg(*_examples())
        .orderBy("count", ascending=False)
        .limit(REJECTS_SHOWN)
    )
    return [row.asDict() for row in rows.collect()]


def _examples() -> list[Any]:
    from pyspark.sql.functions import expr

    return [
        expr("count(*)").alias("count"),
        expr("min_by(path, path)").alias("path"),
        expr("min_by(detail, path)").alias("detail"),
    ]


def rejected_images(warehouse: Warehouse, model_id: str) -> list[dict[str, Any]]:
    """Return what preprocess and score, the latter with this model, did not take."""
    scored = f"status = 'rejected' AND model_id = '{model_id}'"
    return [
        *({"job": "preprocess"} | row for row in rejected(warehouse, REJECTS)),
        *({"job": "score"} | row for row in rejected(warehouse, PREDICTIONS, scored)),
    ]


def runs(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Return the newest job runs: job, when, seconds, images, images per second, shift."""
    if not warehouse.exists(RUNS):
        return []
    found = warehouse.read(RUNS).orderBy("started_at", ascending=False).limit(RUNS_SHOWN).collect()
    shown = []
    for row in found:
        result = json.loads(row.result)
        shown.append(
            {
                "job": row.job,
                "run_id": row.run_id,
                "seconds": row.seconds,
                "images": result.get("scored", result.get("listed")),
                "rate": result.get("images_per_second"),
                "shift": result.get("shift"),
                "restarts": result.get("restarts"),
                "stages": result.get("stage_seconds", {}),
            }
        )
    return shown


def training_run(warehouse: Warehouse, run_id: str | None) -> dict[str, Any]:
    """Return the figures of the training that made the model; empty where it is not recorded."""
    if run_id is None or not warehouse.exists(RUNS):
        return {}
    from pyspark.sql.functions import col

    row = warehouse.read(RUNS).where(col("run_id") == run_id).first()
    return {} if row is None else dict(json.loads(row.result))


def features_of(warehouse: Warehouse, backbone: str | None) -> Any:
    """Return the rows of `features` of a backbone; None where there are none."""
    if backbone is None or not warehouse.exists(FEATURES):
        return None
    from pyspark.sql.functions import col

    rows = warehouse.read(FEATURES).where(col("backbone") == backbone)
    return None if rows.isEmpty() else rows


def gallery(rows: Any, classes: tuple[str, ...], review_below: float) -> dict[str, list[Picture]]:
    """Return some pictures of a kind: `right`, `wrong`, `uncertain`; of each class in turn.

    Args:
        rows: what `attributions` returns.
    """
    import numpy as np

    found: dict[str, list[Picture]] = {"right": [], "wrong": [], "uncertain": []}
    order = rows.assign(
        place=rows.groupby("label").cumcount(), plain=rows["importance"].isna()
    ).sort_values(["plain", "place", "label"])
    for row in order.itertuples():
        label = int(np.argmax(row.as_is))
        confidence = float(row.as_is[label])
        kind = "right" if classes[label] == row.label else "wrong"
        kinds = [kind, "uncertain"] if confidence < review_below else [kind]
        mask = decode_mask(row.mask)
        side = len(mask)
        picture = Picture(
            path=row.path,
            truth=row.label,
            label=classes[label],
            confidence=confidence,
            pixels=np.frombuffer(row.pixels, np.uint8).reshape(side, side),
            mask=mask,
            importance=None
            if row.importance is None
            else np.frombuffer(row.importance, np.float16).reshape(side, side),
        )
        for name in kinds:
            if len(found[name]) < SHOWN_EACH:
                found[name].append(picture)
    return found
