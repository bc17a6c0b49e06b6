from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagle_spark.errors import InputError, SettingsError
from eagle_spark.training import plan
from eagle_spark.training.plan import (
    RankLanes,
    RowGroup,
    check_batch_fits,
    class_source_weights,
    count_steps,
    plan_rows,
    read_footers,
    share_rows,
)


def count_rows(lanes: RankLanes, *, repeats: bool) -> Counter[tuple[str, int, int]]:
    return Counter(
        (part.uri, part.row_group, row)
        for lane in lanes
        for part in lane
        for row in range(part.start, part.stop)
        if repeats or not part.repeat
    )


row_groups = st.lists(st.integers(0, 40), min_size=1, max_size=6).map(
    lambda sizes: [RowGroup(f"f{i // 2}", i % 2, rows) for i, rows in enumerate(sizes)]
)


@settings(deadline=None)
@given(row_groups, st.integers(1, 4), st.integers(1, 5))
def test_every_row_counts_once_and_all_ranks_do_equal_steps(
    groups: list[RowGroup], ranks: int, per_rank: int
) -> None:
    per_rank *= 2
    shared = plan_rows(groups, ranks, ranks * per_rank)
    total = sum(group.rows for group in groups)
    steps = -(-total // (ranks * per_rank))
    assert [[sum(p.rows for p in lane) for lane in lanes] for lanes in shared] == [
        [steps] * per_rank
    ] * ranks
    assert [count_steps(lanes) for lanes in shared] == [steps] * ranks
    counted = sum((count_rows(lanes, repeats=False) for lanes in shared), Counter())
    assert counted == {(g.uri, g.index, row): 1 for g in groups for row in range(g.rows)}


@settings(deadline=None)
@given(row_groups, st.integers(1, 4))
def test_the_number_of_ranks_changes_nothing_in_the_lanes(
    groups: list[RowGroup], ranks: int
) -> None:
    alone = plan_rows(groups, 1, 24)[0]
    assert tuple(lane for lanes in plan_rows(groups, ranks, 24) for lane in lanes) == alone


@settings(deadline=None)
@given(row_groups, st.integers(1, 5))
def test_the_class_head_reads_every_row_once_in_equal_shares(
    groups: list[RowGroup], ranks: int
) -> None:
    shared = share_rows(groups, ranks)
    counts = [sum(part.rows for part in lane) for lane in shared]
    assert len(counts) == ranks
    assert max(counts) - min(counts) <= 1
    rows = [
        (part.uri, part.row_group, row)
        for lane in shared
        for part in lane
        for row in range(part.start, part.stop)
    ]
    assert rows == [(g.uri, g.index, row) for g in groups for row in range(g.rows)]


def test_the_class_head_reads_the_first_rows_where_there_are_very_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "LABEL_ROWS", 25)
    shared = share_rows([RowGroup("f", 0, 20), RowGroup("f", 1, 20)], 2)
    spans = [[(p.row_group, p.start, p.stop) for p in lane] for lane in shared]
    assert spans == [[(0, 0, 12)], [(0, 12, 20), (1, 0, 5)]]


keys = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(st.dictionaries(keys, st.integers(1, 1000), min_size=1))
def test_sources_and_classes_weigh_as_the_root_of_their_images(
    counts: dict[tuple[str, str], int],
) -> None:
    weights = class_source_weights(counts)
    shares = {key: weights[key] * count for key, count in counts.items()}
    assert sum(shares.values()) == pytest.approx(sum(counts.values()))
    roots = {key: count**0.5 for key, count in counts.items()}
    scale = sum(shares.values()) / sum(roots.values())
    assert shares == pytest.approx({key: root * scale for key, root in roots.items()})


def test_a_batch_that_does_not_divide_by_the_ranks_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"`batch_size`: wanted a multiple of 6, .*, got 8"):
        plan_rows([RowGroup("f", 0, 10)], 3, 8)


def test_no_rows_give_no_steps() -> None:
    assert [count_steps(lanes) for lanes in plan_rows([], 2, 8)] == [0, 0]


def test_fewer_images_than_one_batch_are_refused() -> None:
    check_batch_fits(8, 2, 8)
    with pytest.raises(InputError, match="holds 7 images with a mask, fewer than one batch of 8"):
        check_batch_fits(7, 2, 8)
    with pytest.raises(SettingsError, match=r"`batch_size`: wanted a multiple of 6, .*, got 8"):
        check_batch_fits(80, 3, 8)


def test_footers_give_the_row_groups_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a b#1.parquet"
    columns = {name: pa.array([b"x"] * 5) for name in ("pixels", "mask", "path")}
    pq.write_table(pa.table(columns), path, row_group_size=2)
    assert read_footers([f"file://{path}"], ("mask", "pixels")) == [
        RowGroup(f"file://{path}", 0, 2),
        RowGroup(f"file://{path}", 1, 2),
        RowGroup(f"file://{path}", 2, 1),
    ]


def test_a_file_without_the_columns_or_of_another_kind_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"pixels": [b"x"]}), tmp_path / "few.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    with pytest.raises(InputError, match=r"few\.parquet: columns are missing: mask, copy"):
        read_footers([str(tmp_path / "few.parquet")], ("mask", "pixels", "copy"))
    with pytest.raises(InputError, match=r"text\.parquet: not a Parquet file"):
        read_footers([str(tmp_path / "text.parquet")], ())
