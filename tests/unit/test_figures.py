"""The figures of a task's rows: against plain Python, and each kind of invalid row."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eagle_spark.imaging.mask import encode_mask
from eagle_spark.metrics.drift import Histogram, Reference
from eagle_spark.scoring.figures import Figures, Rules, compute_figures, merge_figures
from tests.helpers.prediction_rows import (
    EDGES,
    INVALID,
    SIZE,
    draw_rows,
    invalid_row,
    rejected_row,
    scored_row,
    to_rows,
)

RULES = Rules(SIZE, EDGES)
NO_ROWS = merge_figures([])


def count_plainly(rows: list[dict[str, Any]]) -> Figures:
    scored = [row for row in rows if row["status"] == "scored"]
    flags = ("confidence", "novelty", "mask", "for_processing")
    return Figures(
        statuses=Counter(row["status"] for row in rows),
        labels=Counter(row["label"] for row in scored if row["label"] is not None),
        flags={
            "any": sum(row["needs_review"] is True for row in rows),
            **{flag: sum(flag in (row["review_reasons"] or []) for row in rows) for flag in flags},
        },
        bins={name: count_bins([row[name] for row in scored], EDGES[name]) for name in EDGES},
        invalid=min((row["path"] for row in rows if not is_valid(row)), default=None),
    )


def count_bins(values: list[float | None], edges: list[float]) -> list[int]:
    bins = [0] * (len(edges) + 1)
    for value in values:
        bins[0 if value is None else sum(value >= edge for edge in edges)] += 1
    return bins


def is_valid(row: dict[str, Any]) -> bool:
    if row["status"] == "rejected":
        return row["reason"] is not None
    needed = ("label", "needs_review", "mask", "lung_area", "probabilities")
    if row["status"] != "scored" or any(row[name] is None for name in needed):
        return False
    header = encode_mask(np.zeros((SIZE, SIZE), bool))[:26]
    shares = [share for _, share in row["probabilities"]]
    return (
        row["mask"].startswith(header)
        and 0 <= row["lung_area"] <= 1
        and None not in shares
        and abs(sum(shares) - 1) < 1e-3
    )


@pytest.mark.parametrize("seed", range(30))
def test_figures_are_those_of_plain_python(seed: int) -> None:
    rows = draw_rows(seed, valid=seed % 2 == 0)
    table = to_rows(rows)
    figures = compute_figures(table, RULES)
    assert figures == count_plainly(rows)
    assert (figures.invalid is None) is (seed % 2 == 0)
    assert figures.rows == len(rows)
    batches = pa.Table.from_batches(table.to_batches(max_chunksize=7))
    assert compute_figures(batches, RULES) == figures
    assert compute_figures(table.slice(5, 20), RULES) == count_plainly(rows[5:25])
    assert pickle.loads(pickle.dumps(figures)) == figures  # noqa: S301


def test_figures_of_parts_add_up_in_any_grouping() -> None:
    one, two, three = (draw_rows(seed) for seed in (1, 2, 3))
    a, b, c = (compute_figures(to_rows(rows), RULES) for rows in (one, two, three))
    whole = compute_figures(to_rows([*one, *two, *three]), RULES)
    assert merge_figures([a, b, c]) == whole
    assert merge_figures([merge_figures([a, b]), c]) == whole
    assert merge_figures([a, merge_figures([b, c])]) == whole
    assert merge_figures([NO_ROWS, c, b, NO_ROWS, a]) == whole


def test_no_rows_have_no_figures() -> None:
    assert compute_figures(to_rows([]), RULES) == NO_ROWS
    assert (NO_ROWS.rows, NO_ROWS.scored, NO_ROWS.invalid) == (0, 0, None)
    assert set(NO_ROWS.flags.values()) == {0}


@pytest.mark.parametrize("kind", INVALID)
def test_each_kind_of_invalid_row_is_named(kind: str) -> None:
    rows = [scored_row("b"), invalid_row(kind, "d"), rejected_row("a")]
    assert compute_figures(to_rows(rows), RULES).invalid == "d"
    rows.append(invalid_row(kind, "c"))
    assert compute_figures(to_rows(rows), RULES).invalid == "c"


def test_a_value_at_an_edge_and_nan_are_in_the_bin_above() -> None:
    low, high = EDGES["novelty"]
    values = [None, low - 1, low, high, float("nan")]
    rows = to_rows([{**scored_row("a"), "novelty": value} for value in values])
    assert compute_figures(rows, RULES).bins["novelty"] == [2, 1, 2]
    assert compute_figures(rows, Rules(SIZE, {"novelty": []})).bins == {"novelty": [5]}


def test_edges_are_in_the_order_of_the_columns() -> None:
    bins = Histogram([0.5], [0.5, 0.5])
    reference = Reference(100, {"A": 1.0}, {"novelty": bins, "confidence": bins})
    assert list(reference.edges.items()) == [("confidence", [0.5]), ("novelty", [0.5])]
