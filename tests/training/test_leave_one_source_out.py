from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eagle_spark.metrics.evaluation import Metrics
from eagle_spark.model.network import STATISTICS_COUNT
from eagle_spark.training.feed import LABEL_COLUMNS
from eagle_spark.training.leave_one_source_out import leave_sources_out
from eagle_spark.training.plan import SplitRows, TrainPlan, read_footers, share_rows

pytestmark = [pytest.mark.spark, pytest.mark.train]  # the plan's backbone is TensorFlow's

EACH = 60
ODD, EVEN = "dark", "light"


class Collections:
    """Images of several sources whose statistics are noise plus a signal of the class."""

    def __init__(self) -> None:
        self.draw = np.random.default_rng(5)
        self.rows: list[dict[str, Any]] = []
        self.facts: list[dict[str, Any]] = []

    def add(self, source: str, number: int, like: int | None = None, signal: float = 0.0) -> None:
        """Add an image; `like` is the number of one that this is a copy of."""
        path, label = f"/{source}/{number}.png", (ODD, EVEN)[number % 2]
        original = self.facts[like] if like is not None else {}
        values = self.draw.normal(size=STATISTICS_COUNT)
        values[:100] += signal * (-1) ** number
        statistics = (
            self.rows[2 * like]["statistics"]
            if like is not None
            else values.astype(np.float16).tobytes()
        )
        for copy in (0, 1):
            self.rows.append(
                {
                    "path": path,
                    "source": source,
                    "label": label,
                    "copy": copy,
                    "statistics": statistics,
                }
            )
        self.facts.append(
            {
                "path": path,
                "source": source,
                "patient_id": f"p{number // 2}",
                "image_id": original.get("image_id", path),
                "perceptual_hash": original.get("perceptual_hash", self.draw.bytes(32)),
            }
        )

    def leave_out(self, spark: Any, plan: TrainPlan, folder: Path) -> Metrics:
        file = folder / "features.parquet"
        pq.write_table(pa.Table.from_pylist(self.rows), file, row_group_size=100)
        lanes = share_rows(read_footers([str(file)], LABEL_COLUMNS), 2)
        numbered = replace(
            plan, training=SplitRows(plan.training.masks, lanes), validation=SplitRows((), ())
        )
        counted = pd.DataFrame(self.rows).query("copy == 0").groupby(["source", "label"]).size()
        groups = {(str(source), str(label)): int(n) for (source, label), n in counted.items()}
        return leave_sources_out(spark, numbered, groups, pd.DataFrame(self.facts))


@pytest.mark.slow("three class heads")
def test_each_source_is_evaluated_by_a_head_of_the_others(
    spark: Any, make_plan: Callable[..., TrainPlan], tmp_path: Path
) -> None:
    collections = Collections()
    for source in ("a", "b"):
        for number in range(EACH):
            collections.add(source, number, signal=2.0)
    for number in range(EACH):
        collections.add("upside-down", number, signal=-2.0)
    metrics = collections.leave_out(spark, make_plan(tmp_path, 1), tmp_path)
    assert metrics.images == 3 * EACH
    figures = metrics.by_source
    assert {
        name: source_metrics.images for name, source_metrics in figures.items()
    } == dict.fromkeys(figures, EACH)
    assert {
        name: source_metrics.patients for name, source_metrics in figures.items()
    } == dict.fromkeys(figures, 30)
    assert figures["upside-down"].accuracy < 0.1
    assert figures["upside-down"].dice is None


def test_copies_in_other_sources_are_left_out(
    spark: Any, make_plan: Callable[..., TrainPlan], tmp_path: Path
) -> None:
    collections = Collections()
    for number in range(EACH):
        collections.add("new", number)
    for number in range(EACH):
        collections.add("old", number, like=number)
    for number in range(EACH, 3 * EACH):
        collections.add("old", number)
    metrics = collections.leave_out(spark, make_plan(tmp_path, 1), tmp_path)
    # Noise can only be memorised: 0.5 by chance, 1 if copies are left.
    assert metrics.by_source["new"].accuracy < 0.8


def test_one_source_alone_has_no_metrics(
    spark: Any, make_plan: Callable[..., TrainPlan], tmp_path: Path
) -> None:
    collections = Collections()
    for number in range(4):
        collections.add("only", number)
    metrics = collections.leave_out(spark, make_plan(tmp_path, 1), tmp_path)
    assert metrics.images == 0
    assert metrics.by_source == {}
