"""The line of progress of Spark's workers: real rows, never fewer than before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from eagle_spark.spark import progress
from eagle_spark.spark.progress import watch_rows

WAIT_SECONDS = 5.0


class Sum:
    """An accumulator of one process."""

    def __init__(self, value: int) -> None:
        self.value = value

    def add(self, rows: int) -> None:
        self.value += rows


class Line:
    """A line on a terminal that keeps all of its numbers."""

    def __init__(self) -> None:
        self.is_visible = True
        self.numbers: list[int] = []
        self.texts: tuple[object, ...] = ()

    def __call__(self, *texts: object) -> Line:
        self.texts = texts
        return self

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, done: int) -> None:
        self.numbers.append(done)

    def wait_for(self, done: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while done not in self.numbers:
            assert time.monotonic() < deadline, self.numbers
            time.sleep(0.001)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    shown = Line()
    monkeypatch.setattr(progress, "Progress", shown)
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.001)
    return shown


SPARK: Any = SimpleNamespace(sparkContext=SimpleNamespace(accumulator=Sum))


def batches(*rows: int) -> Iterator[pa.RecordBatch]:
    for count in rows:
        yield pa.RecordBatch.from_pydict({"id": list(range(count))})


def double(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A worker that yields each batch twice."""
    for batch in batches:
        yield batch
        yield batch


def test_rows_that_workers_took_are_shown_and_never_decrease(line: Line) -> None:
    with watch_rows(SPARK, "score", 20) as count_rows:
        line.wait_for(0)
        list(count_rows(double)(batches(4, 3)))
        line.wait_for(7)
        list(count_rows(double)(batches(5)))
        line.wait_for(12)
    assert line.texts == ("score", 20, "images")
    assert line.numbers == sorted(line.numbers)
    assert line.numbers[-1] == 20


def test_the_total_is_shown_at_the_end_only(line: Line) -> None:
    with watch_rows(SPARK, "features", 6, "rows") as count_rows:
        list(count_rows(double)(batches(6, 6)))  # as after a repeated task
        line.wait_for(5)
        assert 6 not in line.numbers
    assert line.numbers == sorted(line.numbers)
    assert line.numbers[-1] == 6


def lose_a_task() -> None:
    with watch_rows(SPARK, "score", 6) as count_rows:
        list(count_rows(double)(batches(2)))
        raise ValueError("lost")


def test_a_failed_block_does_not_show_the_total(line: Line) -> None:
    with pytest.raises(ValueError, match="lost"):
        lose_a_task()
    assert 6 not in line.numbers


def test_a_batch_counts_when_the_worker_has_finished_it(line: Line) -> None:
    with watch_rows(SPARK, "score", 9) as count_rows:
        results = count_rows(double)(batches(4, 5))
        assert [next(results).num_rows for _ in range(2)] == [4, 4]
        seen = len(line.numbers)
        while len(line.numbers) < seen + 3:
            time.sleep(0.001)
        assert set(line.numbers) == {0}
        assert [batch.num_rows for batch in results] == [5, 5]
        line.wait_for(8)  # the total is left to the end of the block


@pytest.mark.parametrize(("is_visible", "total"), [(False, 9), (True, 0)])
def test_without_a_line_workers_do_not_count(line: Line, is_visible: bool, total: int) -> None:
    line.is_visible = is_visible
    with watch_rows(SPARK, "score", total) as count_rows:
        assert count_rows(double) is double
    assert line.numbers == []
