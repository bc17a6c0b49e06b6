"""The figures of a task's rows: against plain Python, and each kind of invalid row."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eagle_spark.errors import AuditError, FailureRateError
from eagle_spark.imaging.mask import encode_mask
from eagle_spark.metrics.distribution import GRID_EDGES, Distribution
from eagle_spark.metrics.drift import Histogram, Reference
from eagle_spark.scoring.audit import audit_figures
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
        distribution=distribute_plainly(scored),
        flags={
            "any": sum(row["needs_review"] is True for row in rows),
            **{flag: sum(flag in (row["review_reasons"] or []) for row in rows) for flag in flags},
        },
        bins={name: count_bins([row[name] for row in scored], EDGES[name]) for name in EDGES},
        invalid=min((row["path"] for row in rows if not is_valid(row)), default=None),
    )


def distribute_plainly(scored: list[dict[str, Any]]) -> Distribution:
    bins: dict[str, Counter[int]] = {}
    for name, edges in GRID_EDGES.items():
        for row in scored:
            if (value := row[name]) is not None:
                bins.setdefault(name, Counter()).update([bisect_right(edges, value)])
    labels = Counter(row["label"] for row in scored if row["label"] is not None)
    return Distribution(len(scored), labels, bins)


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
    assert (NO_ROWS.rows, NO_ROWS.distribution, NO_ROWS.invalid) == (0, Distribution(), None)
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


def audit_rows(
    count: int, appended: int | None = None, listed: int | None = None, rate: float = 1.0
) -> dict[str, int]:
    """Audit scored rows and a rejected one, after two published rows."""
    rows = [*(scored_row(f"{number}") for number in range(count)), rejected_row("r")]
    return audit_figures(
        compute_figures(to_rows(rows), RULES),
        {"scored": 1, "rejected": 1},
        len(rows) if appended is None else appended,
        listed=len(rows) + 2 if listed is None else listed,
        max_failure_rate=rate,
    )


def test_the_audit_adds_new_rows_to_those_that_remain() -> None:
    assert audit_rows(3) == {"scored": 4, "rejected": 2}
    assert audit_rows(2, rate=0.4) == {"scored": 3, "rejected": 2}
    assert audit_figures(NO_ROWS, {}, 0, listed=0, max_failure_rate=0) == {}


@pytest.mark.parametrize("listed", [4, 7])
def test_a_listed_file_without_a_row_or_a_row_without_a_file_fails_the_audit(listed: int) -> None:
    with pytest.raises(AuditError, match=f"listed {listed} files; the branch has .*'scored': 4"):
        audit_rows(3, listed=listed)


@pytest.mark.parametrize("appended", [0, 3, 5])
def test_another_number_of_appended_rows_fails_the_audit(appended: int) -> None:
    with pytest.raises(AuditError, match=f"the branch has {appended} new rows, wanted 4"):
        audit_rows(3, appended)


def test_more_rejected_files_than_allowed_fail_the_audit() -> None:
    with pytest.raises(FailureRateError, match="2 of 5 files rejected"):
        audit_rows(2, rate=0.39)


def test_an_invalid_row_fails_the_audit() -> None:
    figures = compute_figures(to_rows([invalid_row("no label", "a.png")]), RULES)
    with pytest.raises(AuditError, match=r"the row of a\.png is inconsistent"):
        audit_figures(figures, {}, 1, listed=1, max_failure_rate=1.0)
