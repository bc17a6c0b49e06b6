"""Features of the frozen backbone, computed once per image by Spark: the table `features`.

Rows are computed and committed by buckets. The rows of a bucket and their order are deterministic,
so a stage that was killed and resumed leaves the same table as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from eagle_spark.errors import AuditError, SettingsError
from eagle_spark.io import resolve
from eagle_spark.model.backbone import BackboneEngine, unpack_backbone
from eagle_spark.model.network import STATISTICS_COUNT, TAPS
from eagle_spark.spark.batches import map_batches
from eagle_spark.spark.progress import watch_rows
from eagle_spark.spark.session import threads_per_task
from eagle_spark.tables import FEATURES, RUNS, Warehouse
from eagle_spark.tables.schema import sql_time
from eagle_spark.training.data import stack_pixels
from eagle_spark.training.frozen import MAX_BACKBONE_BYTES, Backbone
from eagle_spark.training.plan import COPIES

if TYPE_CHECKING:
    import openvino
    from pyspark.sql import Column, DataFrame

ROWS_PER_BUCKET = 512
BUCKETS_PER_COMMIT = 32  # 4 GB at size 224: a killed stage repeats at most this many …
MAX_COMMITS = 8  # … but more of a large table, because each commit reads all of `images`
RETENTION_DAYS = 7  # after the last training that used a backbone, its features are removed
_VALUE_BYTES = 2  # float16
_GB = 1e9

# A row of an image that has changed in one of these columns is computed again.
_KEY = ("path", "image_id", "label", "source", "split", "mask_hash", "copy")

FEATURE_SCHEMA = FEATURES.arrow_schema()


@dataclass(frozen=True)
class FeatureCost:
    """Rows and bytes of a training's features, estimated before they are computed."""

    rows: int
    bytes: int

    @property
    def gigabytes(self) -> float:
        return self.bytes / _GB

    def check_budget(self, budget: float) -> None:
        """Raise SettingsError when the features take more than `budget` gigabytes."""
        if self.bytes > budget * _GB:
            raise SettingsError(
                f"`feature_budget` {budget:g}: the features of {self.rows:,} images and copies "
                f"take {self.gigabytes:.1f} GB; raise it, or use `cache_features` off"
            )


def row_bytes(size: int, masked: bool) -> int:
    """Return the bytes of one row's features: 272 kB at size 224 with a mask, 4 kB without."""
    taps = sum(int(np.prod(tap.shape(size))) for tap in TAPS.values()) if masked else 0
    return _VALUE_BYTES * (taps + STATISTICS_COUNT)


def estimate_cost(images: Mapping[tuple[str, bool], int], size: int) -> FeatureCost:
    """Return the cost of images, counted by (split, whether they have a mask)."""
    rows = {key: count * count_copies(key[0]) for key, count in images.items()}
    volume = sum(count * row_bytes(size, masked) for (_, masked), count in rows.items())
    return FeatureCost(sum(rows.values()), volume)


def count_copies(split: str) -> int:
    """Return the number of copies of an image of this split that training reads."""
    return {"train": COPIES, "val": 1}.get(split, 0)


@dataclass(frozen=True)
class Extractor:
    """Computes features in a worker. Small, picklable."""

    backbone: Backbone
    threads: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn rows of `images`, with `copy` and `bucket`, into rows of `features`."""
        engine = load_backbone(self.backbone, self.threads)
        side = self.backbone.size
        for batch in batches:
            rows = batch.to_pylist()
            pixels = stack_pixels((row.pop("pixels") for row in rows), side)
            mirrored = np.array([row["copy"] == 1 for row in rows])
            pixels = np.where(mirrored[:, None, None], pixels[:, :, ::-1], pixels)
            features = engine.compute_features(pixels)
            constants = {
                "backbone": self.backbone.digest,
                "computed_at": datetime.now(timezone.utc),
            }
            for i, row in enumerate(rows):
                row |= constants | {"masked": row["mask"] is not None}
                names = (*TAPS, "statistics") if row["masked"] else ("statistics",)
                row |= {name: features[name][i].astype(np.float16).tobytes() for name in names}
            yield pa.RecordBatch.from_pylist(rows, schema=FEATURE_SCHEMA)


@lru_cache(maxsize=1)
def load_backbone(backbone: Backbone, threads: int) -> BackboneEngine:
    """Load the backbone, once a process."""
    return BackboneEngine(load_graph(backbone), threads)


def load_graph(backbone: Backbone) -> openvino.Model:
    """Return the stored backbone as `openvino.Model`."""
    storage, path = resolve(backbone.uri)
    return unpack_backbone(storage.read(path, MAX_BACKBONE_BYTES), backbone.digest)


def ensure_features(warehouse: Warehouse, snapshot: int, backbone: Backbone) -> tuple[int, int]:
    """Update `features` to the train and val split of a snapshot of `images`.

    Returns:
        The snapshot of `features`, and the number of computed rows.

    Raises:
        AuditError: when the table does not hold one row per image and copy in the end, as after
            two trainings that computed the same rows at the same time.
    """
    warehouse.create_or_migrate(FEATURES)
    expected = _expected_keys(warehouse, snapshot)
    computed = 0
    if warehouse.snapshot(FEATURES) is not None:
        _remove_stale(warehouse, expected, backbone)
    total, missing = expected.count(), _missing_keys(warehouse, expected, backbone)
    if missing_count := missing.count():
        computed = _compute_missing(warehouse, snapshot, backbone, missing, total, missing_count)
    stored = _stored_keys(warehouse, backbone).count()
    if stored != total:
        raise AuditError(
            f"{FEATURES.full_name} holds {stored} rows of this backbone, wanted {total}: "
            "another training wrote at the same time; run this job again"
        )
    features_snapshot = warehouse.snapshot(FEATURES)
    assert features_snapshot is not None
    return features_snapshot, computed


def _compute_missing(
    warehouse: Warehouse,
    snapshot: int,
    backbone: Backbone,
    missing: DataFrame,
    total: int,
    missing_count: int,
) -> int:
    """Compute and commit the missing rows, some buckets at a time; return their number."""
    from pyspark.sql.functions import col, expr, lit, xxhash64

    spark = warehouse.spark
    buckets = max(1, -(-total // ROWS_PER_BUCKET))
    keys = missing.select("path", "copy")
    images = warehouse.read_images(snapshot).select(
        "path", "image_id", "label", "source", "split", "mask", "pixels"
    )
    rows = (
        images.join(keys, "path")
        if missing_count < total
        else images.withColumn("copy", _copies_column())
    )
    rows = rows.where("copy IS NOT NULL").withColumn(
        "bucket", expr(f"CAST(pmod(xxhash64(path), {buckets}) AS INT)")
    )
    extractor = Extractor(backbone, threads_per_task(spark))
    step = min(max(BUCKETS_PER_COMMIT, -(-buckets // MAX_COMMITS)), buckets)
    with watch_rows(spark, "features", missing_count, "rows") as count_rows:
        for first in range(0, buckets, step):
            part = rows.where(col("bucket").between(first, first + step - 1))
            ordered = part.repartitionById(step, col("bucket") - lit(first)).sortWithinPartitions(
                xxhash64("path", "copy"), "path", "copy"
            )
            features = map_batches(ordered, count_rows(extractor), FEATURE_SCHEMA)
            warehouse.append(FEATURES, features)
    return missing_count


def _copies_column() -> Column:
    """Return the column `copy`, which gives one row for each copy of a row of `images`."""
    from pyspark.sql.functions import expr

    cases = " ".join(
        f"WHEN '{split}' THEN sequence(0, {count_copies(split) - 1})" for split in ("train", "val")
    )
    return expr(f"explode(CASE split {cases} END)")


def _expected_keys(warehouse: Warehouse, snapshot: int) -> DataFrame:
    images = warehouse.read_images(snapshot).withColumn("copy", _copies_column())
    return images.selectExpr(*_key_columns())


def _stored_keys(warehouse: Warehouse, backbone: Backbone) -> DataFrame:
    rows = warehouse.read(FEATURES).where(f"backbone = '{backbone.digest}'")
    return rows.selectExpr(*_key_columns())


def _key_columns() -> list[str]:
    return [
        "coalesce(xxhash64(mask), 0) AS mask_hash" if name == "mask_hash" else name for name in _KEY
    ]


def _missing_keys(warehouse: Warehouse, expected: DataFrame, backbone: Backbone) -> DataFrame:
    return expected.join(_stored_keys(warehouse, backbone), list(_KEY), "left_anti")


def _remove_stale(warehouse: Warehouse, expected: DataFrame, backbone: Backbone) -> None:
    """Remove this backbone's rows that match no row of `images` any more, or are duplicates."""
    stored = _stored_keys(warehouse, backbone)
    outdated = stored.join(expected, list(_KEY), "left_anti").select("path")
    duplicates = stored.groupBy(*_KEY).count().where("count > 1").select("path")
    # Through the driver: the DELETE does not read the table for its own condition.
    stale = outdated.union(duplicates).distinct().toArrow()
    if stale.num_rows:
        paths = warehouse.spark.createDataFrame(stale)
        warehouse.delete_paths(FEATURES, paths, f"backbone = '{backbone.digest}'")


def expire_features(warehouse: Warehouse, backbone: Backbone) -> None:
    """Remove the features of backbones unused for `RETENTION_DAYS`, and their files.

    A training that has not ended has no row in `runs` yet, but has computed rows in that time.
    Files of older snapshots are removed after a day, when no training reads them any more.
    """
    now = datetime.now(timezone.utc)
    others = warehouse.read(FEATURES).where(f"backbone <> '{backbone.digest}'")
    if others.select("backbone").first() is not None:
        since = sql_time(now - timedelta(days=RETENTION_DAYS))
        used = (
            f" AND backbone NOT IN (SELECT backbone FROM {FEATURES.full_name}"
            f" WHERE computed_at > {since})"
        )
        if warehouse.exists(RUNS):
            used += (
                f" AND backbone NOT IN (SELECT coalesce(get_json_object(result, '$.backbone'), '')"
                f" FROM {RUNS.full_name} WHERE job = 'train' AND started_at > {since})"
            )
        warehouse.delete(FEATURES, f"backbone <> '{backbone.digest}'{used}")
    warehouse.expire(FEATURES, now - timedelta(days=1))
