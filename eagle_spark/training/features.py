"""What the frozen backbone says of each image, computed once by Spark: the table `features`.

Rows are computed and committed by buckets. A bucket holds the same rows in the same order whoever
computes it, so that a stage which was killed and went on leaves what an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from eagle_spark.errors import SettingsError, UnbalancedRun
from eagle_spark.io import locate
from eagle_spark.model.backbone import BackboneEngine, unpack_backbone
from eagle_spark.model.network import STATISTICS, TAPS
from eagle_spark.spark.progress import watch_tasks
from eagle_spark.spark.session import threads_per_task
from eagle_spark.tables import FEATURES, IMAGES, RUNS, Warehouse
from eagle_spark.tables.schema import sql_time
from eagle_spark.training.data import stack_pixels
from eagle_spark.training.frozen import MAX_BACKBONE_BYTES, Backbone

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COPIES = 2  # of an image of the train split: as found, and mirrored
ROWS_PER_BUCKET = 512
BUCKETS_PER_COMMIT = 32  # 4 GB at size 224: what a killed stage does twice at most …
MOST_COMMITS = 8  # … but of a large table more, for each commit reads it from end to end
KEPT_DAYS = 7  # features of a backbone that no training has used for so long are removed
_VALUE_BYTES = 2  # float16
_GB = 1e9

# What a row stands for. A row whose image has changed in one of these is computed anew.
_KEY = ("path", "image_id", "label", "source", "split", "mask_hash", "copy")

FEATURE = FEATURES.arrow_schema()


@dataclass(frozen=True)
class Cost:
    """What the features of a training take, known before any is computed."""

    rows: int
    bytes: int

    @property
    def gigabytes(self) -> float:
        return self.bytes / _GB

    def check(self, budget: float) -> None:
        """Raise SettingsError unless it is within `budget` gigabytes."""
        if self.bytes > budget * _GB:
            raise SettingsError(
                f"--feature-budget {budget:g}: the features of {self.rows:,} images and copies "
                f"take {self.gigabytes:.1f} GB; raise it, or give --cache-features off"
            )


def row_bytes(size: int, masked: bool) -> int:
    """Return the bytes of one row's features: 272 kB at size 224 with a mask, 4 kB without."""
    taps = sum(int(np.prod(tap.shape(size))) for tap in TAPS.values()) if masked else 0
    return _VALUE_BYTES * (taps + STATISTICS)


def cost(images: Mapping[tuple[str, bool], int], size: int) -> Cost:
    """Return the cost for so many images by (split, whether they have a mask)."""
    rows = {key: count * copies_of(key[0]) for key, count in images.items()}
    volume = sum(count * row_bytes(size, masked) for (_, masked), count in rows.items())
    return Cost(sum(rows.values()), volume)


def copies_of(split: str) -> int:
    """Return how many copies of an image of this split training reads."""
    return {"train": COPIES, "val": 1}.get(split, 0)


@dataclass(frozen=True)
class Extractor:
    """What every worker needs to compute features. Small, picklable."""

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
            found = engine.features(pixels)
            shared = {
                "backbone": self.backbone.digest,
                "computed_at": datetime.now(timezone.utc),
            }
            for i, row in enumerate(rows):
                row |= shared | {"masked": row["mask"] is not None}
                names = (*TAPS, "statistics") if row["masked"] else ("statistics",)
                row |= {name: found[name][i].astype(np.float16).tobytes() for name in names}
            yield pa.RecordBatch.from_pylist(rows, schema=FEATURE)


@lru_cache(maxsize=1)
def load_backbone(backbone: Backbone, threads: int) -> BackboneEngine:
    """Load the backbone, once a process."""
    return BackboneEngine(load_graph(backbone), threads)


def load_graph(backbone: Backbone) -> Any:
    """Return the stored backbone as `openvino.Model`."""
    storage, path = locate(backbone.uri)
    return unpack_backbone(storage.read(path, MAX_BACKBONE_BYTES), backbone.digest)


def ensure_features(warehouse: Warehouse, snapshot: int, backbone: Backbone) -> tuple[int, int]:
    """Bring `features` up to date with the train and val split of a snapshot of `images`.

    Returns:
        The snapshot of `features`, and how many rows were computed for it.

    Raises:
        UnbalancedRun: when the table does not hold one row per image and copy in the end, as after
            two trainings that computed the same at the same time.
    """
    warehouse.ensure(FEATURES)
    wanted = _wanted(warehouse, snapshot)
    computed = 0
    if warehouse.snapshot(FEATURES) is not None:
        _remove_stale(warehouse, wanted, backbone)
    total, missing = wanted.count(), _missing(warehouse, wanted, backbone)
    if lacking := missing.count():
        computed = _compute(warehouse, snapshot, backbone, missing, total, lacking)
    found = _present(warehouse, backbone).count()
    if found != total:
        raise UnbalancedRun(
            f"{FEATURES.full_name} holds {found} rows of this backbone, wanted {total}: "
            "another training wrote at the same time; run this job again"
        )
    at = warehouse.snapshot(FEATURES)
    assert at is not None
    return at, computed


def _compute(
    warehouse: Warehouse,
    snapshot: int,
    backbone: Backbone,
    missing: DataFrame,
    total: int,
    lacking: int,
) -> int:
    """Compute the missing rows, some buckets at a time."""
    from pyspark.sql.functions import col, expr, lit, xxhash64
    from pyspark.sql.pandas.types import from_arrow_schema

    spark = warehouse.spark
    buckets = max(1, -(-total // ROWS_PER_BUCKET))
    keys = missing.select("path", "copy")
    images = warehouse.at(IMAGES, snapshot).select(
        "path", "image_id", "label", "source", "split", "mask", "pixels"
    )
    rows = images.join(keys, "path") if lacking < total else images.withColumn("copy", _copies())
    rows = rows.where("copy IS NOT NULL").withColumn(
        "bucket", expr(f"CAST(pmod(xxhash64(path), {buckets}) AS INT)")
    )
    extractor = Extractor(backbone, threads_per_task(spark))
    some = min(max(BUCKETS_PER_COMMIT, -(-buckets // MOST_COMMITS)), buckets)
    with watch_tasks(spark, "features", lacking):
        for first in range(0, buckets, some):
            part = rows.where(col("bucket").between(first, first + some - 1))
            ordered = part.repartitionById(some, col("bucket") - lit(first)).sortWithinPartitions(
                xxhash64("path", "copy"), "path", "copy"
            )
            found = ordered.mapInArrow(extractor, from_arrow_schema(FEATURE))
            warehouse.append(FEATURES, found)
    return lacking


def _copies() -> Any:
    """Return the column of copies of a row of `images`, one row for each."""
    from pyspark.sql.functions import expr

    cases = " ".join(
        f"WHEN '{split}' THEN sequence(0, {copies_of(split) - 1})" for split in ("train", "val")
    )
    return expr(f"explode(CASE split {cases} END)")


def _wanted(warehouse: Warehouse, snapshot: int) -> DataFrame:
    images = warehouse.at(IMAGES, snapshot).withColumn("copy", _copies())
    return images.selectExpr(*_key_columns())


def _present(warehouse: Warehouse, backbone: Backbone) -> DataFrame:
    rows = warehouse.read(FEATURES).where(f"backbone = '{backbone.digest}'")
    return rows.selectExpr(*_key_columns())


def _key_columns() -> list[str]:
    return [
        "coalesce(xxhash64(mask), 0) AS mask_hash" if name == "mask_hash" else name for name in _KEY
    ]


def _missing(warehouse: Warehouse, wanted: DataFrame, backbone: Backbone) -> DataFrame:
    return wanted.join(_present(warehouse, backbone), list(_KEY), "left_anti")


def _remove_stale(warehouse: Warehouse, wanted: DataFrame, backbone: Backbone) -> None:
    """Remove this backbone's rows that stand for no row of `images` any more, or stand twice."""
    present = _present(warehouse, backbone)
    gone = present.join(wanted, list(_KEY), "left_anti").select("path")
    twice = present.groupBy(*_KEY).count().where("count > 1").select("path")
    if stale := [row.path for row in gone.union(twice).distinct().collect()]:
        warehouse.remove_paths(FEATURES, stale, "main", f"backbone = '{backbone.digest}'")


def expire_features(warehouse: Warehouse, backbone: Backbone) -> None:
    """Remove the features of backbones that no training has used for `KEPT_DAYS`, and their files.

    A training that has not ended stands in no table yet, but has computed rows in that time.
    Files of older snapshots go after a day, when no training reads them any more.
    """
    now = datetime.now(timezone.utc)
    others = warehouse.read(FEATURES).where(f"backbone <> '{backbone.digest}'")
    if others.select("backbone").first() is not None:
        since = sql_time(now - timedelta(days=KEPT_DAYS))
        used = (
            f" AND backbone NOT IN (SELECT backbone FROM {FEATURES.full_name}"
            f" WHERE computed_at > {since})"
        )
        if warehouse.exists(RUNS):
            used += (
                f" AND backbone NOT IN (SELECT coalesce(get_json_object(result, '$.backbone'), '')"
                f" FROM {RUNS.full_name} WHERE job = 'train' AND started_at > {since})"
            )
        warehouse.remove(FEATURES, f"backbone <> '{backbone.digest}'{used}", "main")
    warehouse.expire(FEATURES, now - timedelta(days=1))
