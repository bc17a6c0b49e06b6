"""The figures of tasks are those of the SQL that audits and measures other rows."""

from __future__ import annotations

from typing import Any

import pytest

from eagle_spark.scoring import monitor
from eagle_spark.scoring.audit import valid_row_condition
from eagle_spark.scoring.figures import Figures, Rules, compute_figures
from tests.helpers.prediction_rows import EDGES, INVALID, SIZE, draw_rows, invalid_row, to_rows

pytestmark = pytest.mark.spark


def count_by_sql(spark: Any, rows: Any) -> Figures:
    frame = spark.createDataFrame(rows)
    scored = frame.where("status = 'scored'")
    _, _, bins = monitor._count(scored, EDGES)
    invalid = f"min(CASE WHEN NOT ({valid_row_condition(SIZE)}) THEN path END)"
    ((path,),) = frame.selectExpr(invalid).collect()
    return Figures(
        statuses={row.status: row["count"] for row in frame.groupBy("status").count().collect()},
        distribution=monitor.measure_distribution(scored),
        flags=monitor.count_flags(frame),
        bins=bins,
        invalid=path,
    )


@pytest.mark.parametrize("valid", [True, False])
def test_figures_are_those_of_sql(spark: Any, valid: bool) -> None:
    rows = to_rows(draw_rows(7, 48, valid))
    figures = compute_figures(rows, Rules(SIZE, EDGES))
    assert figures == count_by_sql(spark, rows)
    assert (figures.invalid is None) is valid


def test_both_name_the_same_rows_invalid(spark: Any) -> None:
    rows = [invalid_row(kind, kind) for kind in INVALID]
    frame = spark.createDataFrame(to_rows(rows)).where(f"NOT ({valid_row_condition(SIZE)})")
    assert {row.path for row in frame.collect()} == set(INVALID)


def test_a_column_of_nulls_is_in_the_first_bin(spark: Any) -> None:
    drawn = [{**row, "novelty": None} for row in draw_rows(3, 12)]
    rows = to_rows(drawn)
    figures = compute_figures(rows, Rules(SIZE, EDGES))
    assert figures.bins["novelty"] == [figures.distribution.images, 0, 0]
    assert figures == count_by_sql(spark, rows)
