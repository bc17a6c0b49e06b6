"""Queries of the HTML report: small, plain values from the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from eagle_spark.imaging.mask import decode_mask
from eagle_spark.report.pictures import Picture
from eagle_spark.tables import FEATURES, IMAGES, PREDICTIONS, RUNS, Warehouse
from eagle_spark.tables.definitions import LEGACY_REJECTS
from eagle_spark.tables.schema import Table

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame

MAX_RUNS = 12
MAX_REJECT_REASONS = 12
MAX_PICTURES_PER_KIND = 6


class RunSummary(TypedDict):
    """One job run in the report; `images`, `rate` and `drift` are None where not recorded."""

    job: str
    run_id: str
    seconds: float
    images: int | None
    rate: float | None
    drift: float | None
    restarts: int | None
    stages: Mapping[str, float]


class _AttributionRow(Protocol):
    """A row of `compute_attributions`."""

    path: str
    label: str
    as_is: NDArray[np.float32]
    importance: bytes | None
    mask: bytes
    pixels: bytes


def count_images(warehouse: Warehouse, snapshot: int | None) -> list[dict[str, object]]:
    """Return one row per source and class: images of each split, masks, images without patient.

    Args:
        snapshot: snapshot of `images` that the model was trained on; None for the current one.
    """
    if not warehouse.exists(IMAGES):
        return []
    images = warehouse.read_images(snapshot)
    counts = images.groupBy("source", "label").agg(
        *_count_columns(
            {
                **{split: f"split = '{split}'" for split in ("train", "val", "test")},
                "masks": "mask IS NOT NULL",
                "no_patient": "patient_id IS NULL",
            }
        )
    )
    return [row.asDict() for row in counts.orderBy("source", "label").collect()]


def _count_columns(conditions: Mapping[str, str]) -> list[Column]:
    from pyspark.sql.functions import expr

    return [expr(f"count_if({condition})").alias(name) for name, condition in conditions.items()]


def count_rejects(
    warehouse: Warehouse, table: Table, condition: str = "true"
) -> list[dict[str, object]]:
    """Return `reason`, `count` and an example's `path` and `detail`, most frequent reason first."""
    if not warehouse.exists(table):
        return []
    rows = warehouse.read(table)
    if "status" in rows.columns:
        rows = rows.where("status = 'rejected'")
    elif warehouse.spark.catalog.tableExists(LEGACY_REJECTS):  # beside `images` of version 0.1
        rows = warehouse.spark.table(LEGACY_REJECTS)
    else:
        return []
    counts = (
        rows.where(condition)
        .groupBy("reason")
        .agg(*_reject_columns())
        .orderBy("count", ascending=False)
        .limit(MAX_REJECT_REASONS)
    )
    return [row.asDict() for row in counts.collect()]


def _reject_columns() -> list[Column]:
    from pyspark.sql.functions import expr

    return [
        expr("count(*)").alias("count"),
        expr("min_by(path, path)").alias("path"),
        expr("min_by(detail, path)").alias("detail"),
    ]


def count_rejects_by_job(warehouse: Warehouse, model_id: str) -> list[dict[str, object]]:
    """Return the rejects of preprocess, and those of score with this model."""
    condition = f"model_id = '{model_id}'"
    return [
        *({"job": "preprocess"} | row for row in count_rejects(warehouse, IMAGES)),
        *({"job": "score"} | row for row in count_rejects(warehouse, PREDICTIONS, condition)),
    ]


def read_runs(warehouse: Warehouse) -> list[RunSummary]:
    """Return the newest job runs."""
    if not warehouse.exists(RUNS):
        return []
    rows = warehouse.read(RUNS).orderBy("started_at", ascending=False).limit(MAX_RUNS).collect()
    summaries: list[RunSummary] = []
    for row in rows:
        result = json.loads(row.result)
        summaries.append(
            {
                "job": row.job,
                "run_id": row.run_id,
                "seconds": row.seconds,
                "images": result.get("scored", result.get("listed")),
                "rate": result.get("images_per_second"),
                "drift": result.get("drift", result.get("shift")),  # its name in version 0.1
                "restarts": result.get("restarts"),
                "stages": result.get("stage_seconds", {}),
            }
        )
    return summaries


def read_training_run(warehouse: Warehouse, run_id: str | None) -> dict[str, object]:
    """Return the result of the model's training job; empty without a record of it."""
    if run_id is None or not warehouse.exists(RUNS):
        return {}
    from pyspark.sql.functions import col

    row = warehouse.read(RUNS).where(col("run_id") == run_id).first()
    return {} if row is None else dict(json.loads(row.result))


def read_features(warehouse: Warehouse, backbone: str | None) -> DataFrame | None:
    """Return the rows of `features` of a backbone; None without rows."""
    if backbone is None or not warehouse.exists(FEATURES):
        return None
    from pyspark.sql.functions import col

    rows = warehouse.read(FEATURES).where(col("backbone") == backbone)
    return None if rows.isEmpty() else rows


def select_pictures(
    attributions: pd.DataFrame, classes: tuple[str, ...], review_threshold: float
) -> dict[str, list[Picture]]:
    """Return example pictures of each kind, alternating between classes.

    Args:
        attributions: rows of `compute_attributions`.
        review_threshold: images of lower confidence are `uncertain`.

    Returns:
        `right`, `wrong` and `uncertain` -> at most `MAX_PICTURES_PER_KIND` pictures.
    """
    pictures: dict[str, list[Picture]] = {"right": [], "wrong": [], "uncertain": []}
    ordered = attributions.assign(
        place=attributions.groupby("label").cumcount(), plain=attributions["importance"].isna()
    ).sort_values(["plain", "place", "label"])
    for row in cast("Iterable[_AttributionRow]", ordered.itertuples()):
        label = int(np.argmax(row.as_is))
        confidence = float(row.as_is[label])
        kind = "right" if classes[label] == row.label else "wrong"
        kinds = [kind, "uncertain"] if confidence < review_threshold else [kind]
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
            if len(pictures[name]) < MAX_PICTURES_PER_KIND:
                pictures[name].append(picture)
    return pictures
