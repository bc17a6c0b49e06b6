"""The table `features`: computed, reused and deleted rows, on a real Spark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eagle_spark.errors import AuditError, SettingsError
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.model.network import STATISTICS_COUNT, TAPS
from eagle_spark.settings import TrainSettings
from eagle_spark.spark.session import open_session
from eagle_spark.tables import FEATURES, IMAGES, Run, Warehouse
from eagle_spark.training import features
from eagle_spark.training.features import (
    RETENTION_DAYS,
    FeatureCost,
    ensure_features,
    estimate_cost,
    expire_features,
    load_backbone,
    row_bytes,
)
from eagle_spark.training.feed import FEATURE_COLUMNS, LABEL_COLUMNS, read_lane
from eagle_spark.training.frozen import Backbone
from eagle_spark.training.plan import plan_rows, read_footers, share_rows

SIZE = 64
NOW = datetime.now(timezone.utc)
Open = Callable[..., Warehouse]
Key = tuple[Any, ...]


def test_the_cost_is_estimated() -> None:
    assert row_bytes(224, masked=True) == 273_584
    assert row_bytes(224, masked=False) == 2 * STATISTICS_COUNT
    counts = {("train", True): 3, ("train", False): 2, ("val", True): 1, ("test", True): 9}
    cost = estimate_cost(counts, 224)
    assert cost == FeatureCost(11, 7 * 273_584 + 4 * 2 * STATISTICS_COUNT)
    assert estimate_cost({}, 224) == FeatureCost(0, 0)


def test_features_over_the_budget_are_an_error() -> None:
    FeatureCost(10, 2_000_000_000).check_budget(2.0)
    with pytest.raises(SettingsError, match=r"^`feature_budget` 2: .* 1,234 images and copies"):
        FeatureCost(1234, 2_000_000_001).check_budget(2.0)


def make_pixels(i: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(i).integers(0, 256, (SIZE, SIZE), np.uint8)


def make_mask(i: int) -> bytes:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, : i + 1] = True
    return encode_mask(mask)


def image(i: int, split: str = "train") -> Key:
    """A row of `images`; every fourth has no mask."""
    mask = None if i % 4 == 0 else make_mask(i)
    pixels = make_pixels(i).tobytes()
    label, source = "AB"[i % 2], "here"
    return (
        *(f"{i:064x}", f"file:///{i:02d}.png", label, None, source, split),
        *(SIZE, SIZE, pixels, mask, b"", None, NOW, None, None, "accepted", None, "run"),
    )


SPLITS = {4: "val", 5: "val", 6: "test"}
FIRST = [image(i, SPLITS.get(i, "train")) for i in range(12)]  # 9 to train on, 2 to validate
ROWS = 9 * 2 + 2


def add(warehouse: Warehouse, rows: list[Key]) -> None:
    warehouse.create_or_migrate(IMAGES)
    warehouse.append(IMAGES, warehouse.spark.createDataFrame(rows, IMAGES.schema()))


@pytest.fixture
def warehouse(spark: Any, tmp_path: Path) -> Iterator[Warehouse]:
    with open_session("test", str(tmp_path / "warehouse")) as session:
        tables = Warehouse(session)
        add(tables, FIRST)
        yield tables


def ensure(warehouse: Warehouse, backbone: Backbone) -> tuple[int, int]:
    snapshot = warehouse.snapshot(IMAGES)
    assert snapshot is not None
    return ensure_features(warehouse, snapshot, backbone)


KEY = ("path", "image_id", "label", "source", "split", "mask", "copy")


def keys(warehouse: Warehouse) -> dict[Key, datetime]:
    """Return the key of each row of `features`, and the time of its computation."""
    rows = warehouse.read(FEATURES).select(*KEY, "computed_at").collect()
    times = {tuple(row[:-1]): row.computed_at for row in rows}
    assert len(times) == len(rows)
    return times


def expected_keys(warehouse: Warehouse) -> set[Key]:
    rows = warehouse.read(IMAGES).select(*KEY[:-1]).collect()
    copies = {"train": (0, 1), "val": (0,), "test": ()}
    return {(*row, copy) for row in rows for copy in copies[row.split]}


@pytest.mark.spark
@pytest.mark.train
def test_there_is_a_row_for_each_image_and_copy_and_none_is_computed_twice(
    warehouse: Warehouse, backbone: Backbone
) -> None:
    snapshot, computed = ensure(warehouse, backbone)
    assert computed == ROWS
    assert keys(warehouse).keys() == expected_keys(warehouse)
    engine = load_backbone(backbone, 1)
    rows = warehouse.read(FEATURES).collect()
    assert {row.backbone for row in rows} == {backbone.digest}
    assert sum(row.masked for row in rows) == 15  # all but 0 and 8, twice, and 4
    for row in rows:
        shown = make_pixels(int(row.image_id, 16))
        features = engine.compute_features((shown[:, ::-1] if row.copy else shown)[None])
        names = (*TAPS, "statistics") if row.masked else ("statistics",)
        assert row.masked == (row.mask is not None)
        assert [row[name] for name in TAPS if name not in names] == [None] * (5 - len(names))
        for name in names:
            value = np.frombuffer(row[name], np.float16).astype(np.float32)
            assert value.size == features[name][0].size
            limit = 2e-3 * np.abs(features[name]).max()
            np.testing.assert_allclose(value, features[name].ravel(), atol=limit)
    assert ensure(warehouse, backbone) == (snapshot, 0)


@pytest.mark.spark
@pytest.mark.train
def test_features_of_another_backbone_are_not_taken(
    warehouse: Warehouse, backbone: Backbone
) -> None:
    ensure(warehouse, backbone)
    warehouse.spark.sql(f"UPDATE {FEATURES.full_name} SET backbone = 'another'")
    assert ensure(warehouse, backbone)[1] == ROWS
    counts = {row.backbone: row["count"] for row in by_backbone(warehouse)}
    assert counts == {backbone.digest: ROWS, "another": ROWS}


def by_backbone(warehouse: Warehouse) -> list[Any]:
    rows: list[Any] = warehouse.read(FEATURES).groupBy("backbone").count().collect()
    return rows


CHANGES = {  # change of an image -> new rows
    "UPDATE {t} SET label = 'C' WHERE path LIKE '%01.png'": 2,
    "UPDATE {t} SET source = 'there' WHERE path LIKE '%02.png'": 2,
    "UPDATE {t} SET mask = {m} WHERE path LIKE '%00.png'": 2,  # had none
    "UPDATE {t} SET mask = {m} WHERE path LIKE '%03.png'": 2,
    "UPDATE {t} SET mask = NULL WHERE path LIKE '%05.png'": 1,
    "UPDATE {t} SET split = 'val' WHERE path LIKE '%07.png'": 1,
    "UPDATE {t} SET split = 'train' WHERE path LIKE '%04.png'": 2,
    "UPDATE {t} SET split = 'test' WHERE path LIKE '%10.png'": 0,
    "UPDATE {t} SET image_id = 'ff', pixels = {p} WHERE path LIKE '%11.png'": 2,
    "DELETE FROM {t} WHERE path LIKE '%09.png'": 0,
}


@pytest.mark.slow("ten changes of a table")
@pytest.mark.spark
@pytest.mark.train
def test_only_changed_images_are_computed_again(warehouse: Warehouse, backbone: Backbone) -> None:
    ensure(warehouse, backbone)
    before = keys(warehouse)
    mask, pixels = make_mask(40).hex(), make_pixels(40).tobytes().hex()
    for change in CHANGES:
        sql = change.format(t=IMAGES.full_name, m=f"X'{mask}'", p=f"X'{pixels}'")
        warehouse.spark.sql(sql)
    add(warehouse, [image(20), image(21, "val"), image(22, "test")])
    assert ensure(warehouse, backbone)[1] == sum(CHANGES.values()) + 3
    after = keys(warehouse)
    assert after.keys() == expected_keys(warehouse)
    unchanged = after.keys() & before.keys()
    assert sorted((key[0][-6:], key[-1]) for key in unchanged) == [("08.png", 0), ("08.png", 1)]
    assert all(after[key] == before[key] for key in unchanged)


class Killed(Exception):
    """Stands for the end of the driver."""


class Dying(Warehouse):
    """A warehouse whose driver is killed after its first commit."""

    def append(self, *arguments: Any) -> None:
        super().append(*arguments)
        raise Killed


class Doubling(Warehouse):
    """A warehouse to which another training commits the same rows at the same time."""

    def append(self, *arguments: Any) -> None:
        super().append(*arguments)
        super().append(*arguments)


def rows_in_order(warehouse: Warehouse, snapshot: int) -> list[tuple[Any, ...]]:
    """The rows as training reads them: those of each lane of the mask head, then the class head."""
    files = list(warehouse.files(FEATURES, snapshot))
    files.sort(key=lambda file: file.partition["bucket"])
    files = [file for file in files if file.partition["split"] == "train"]
    masked = [file.uri for file in files if file.partition["masked"]]
    (masks,) = plan_rows(read_footers(masked, FEATURE_COLUMNS), 1, 4)
    (labels,) = share_rows(read_footers([file.uri for file in files], LABEL_COLUMNS), 1)
    names = ("path", "copy", "label", "source", "mask", *TAPS, "statistics")
    return [
        tuple(row[name] for name in names)
        for row in chain.from_iterable(read_lane(lane, names) for lane in (*masks, labels))
    ]


@pytest.mark.spark
@pytest.mark.train
def test_a_killed_stage_resumes_and_ends_like_an_undisturbed_one(
    warehouse: Warehouse,
    spark: Any,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "ROWS_PER_BUCKET", 4)
    calm, computed = ensure(warehouse, backbone)
    assert computed == ROWS
    buckets = {file.partition["bucket"] for file in warehouse.files(FEATURES, calm)}
    assert len(buckets) > 1

    monkeypatch.setattr(features, "BUCKETS_PER_COMMIT", 1)
    with open_session("test", str(tmp_path / "other")) as session:
        add(Warehouse(session), FIRST)
        with pytest.raises(Killed):
            ensure(Dying(session), backbone)
        written = Warehouse(session).read(FEATURES).count()
        assert 0 < written < ROWS
        snapshot, computed = ensure(Warehouse(session), backbone)
        assert computed == ROWS - written
        disturbed = rows_in_order(Warehouse(session), snapshot)
    assert len(disturbed) == 16 + 18
    assert disturbed == rows_in_order(warehouse, calm)


@pytest.mark.spark
@pytest.mark.train
def test_duplicate_features_fail_the_audit_and_are_repaired_by_the_next_run(
    warehouse: Warehouse, backbone: Backbone
) -> None:
    with pytest.raises(AuditError, match=rf"holds {2 * ROWS} rows .*wanted {ROWS}"):
        ensure(Doubling(warehouse.spark), backbone)
    assert ensure(warehouse, backbone)[1] == ROWS
    assert keys(warehouse).keys() == expected_keys(warehouse)


@dataclasses.dataclass(frozen=True)
class Figures:
    backbone: str


def pretend(warehouse: Warehouse, backbone: str, days: float, trained: float | None) -> None:
    """Leave features computed so many days ago; `trained` is when a training ended with them."""
    from pyspark.sql.functions import lit

    rows = warehouse.read(FEATURES).where("path LIKE '%01.png'").where("backbone NOT LIKE 'of %'")
    changed = rows.withColumn("backbone", lit(backbone)).withColumn(
        "computed_at", lit(datetime.now(timezone.utc) - timedelta(days=days))
    )
    warehouse.append(FEATURES, changed)
    if trained is not None:
        run = Run.begin("train", TrainSettings(warehouse="w", model="m"))
        begun = dataclasses.replace(run, started=run.started - timedelta(days=trained))
        warehouse.record_run(begun.record(Figures(backbone)))


@pytest.mark.slow("maintenance of a table, twice")
@pytest.mark.spark
@pytest.mark.train
def test_unused_features_are_deleted_with_their_files(
    warehouse: Warehouse, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(warehouse, backbone)
    pretend(warehouse, "of last year", 365, None)
    expire_features(warehouse, backbone)  # before any run has been recorded
    pretend(warehouse, "of long ago", 30, RETENTION_DAYS + 0.1)
    pretend(warehouse, "of yesterday", 30, 1)
    pretend(warehouse, "of a training that has not ended", 0.1, None)
    expire_features(warehouse, backbone)
    remaining = {backbone.digest, "of yesterday", "of a training that has not ended"}
    assert {row.backbone for row in by_backbone(warehouse)} == remaining
    assert ensure(warehouse, backbone)[1] == 0

    def list_files() -> list[str]:
        paths = (tmp_path / "warehouse").rglob("*.parquet")
        return [str(path) for path in paths if "backbone=of" in str(path)]

    assert any("long" in path for path in list_files())  # for those that read an older snapshot

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=2)

    monkeypatch.setattr(features, "datetime", Later)
    expire_features(warehouse, backbone)
    assert not any("long" in path or "year" in path for path in list_files())
    assert any("yesterday" in path for path in list_files())
    assert {row.backbone for row in by_backbone(warehouse)} == remaining
