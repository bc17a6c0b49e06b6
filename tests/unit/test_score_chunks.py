"""Chunks are committed in the background, one after the other."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, get_ident

import pytest

from eagle_spark.scoring.chunks import Appended, commit_in_background, merge_appended
from eagle_spark.scoring.figures import merge_figures

SECONDS = 30  # until a test that waits for another thread fails


class Log:
    """Scores and commits numbers; holds the events in their order."""

    def __init__(self, fail: tuple[str, ...] = ()) -> None:
        self.events: list[str] = []
        self._fail = fail

    def score(self, chunk: int) -> str:
        return self._add(f"score {chunk}")

    def commit(self, chunk: int, scored: str) -> str:
        assert scored == f"score {chunk}"
        return self._add(f"commit {chunk}")

    def _add(self, event: str) -> str:
        self.events.append(event)
        if event in self._fail:
            raise OSError(event)
        return event


def test_each_chunk_is_committed_once_and_in_order() -> None:
    log = Log()
    results = list(commit_in_background(range(4), log.score, log.commit))
    assert results == [f"commit {chunk}" for chunk in range(4)]
    assert [event for event in log.events if "commit" in event] == results
    for chunk in range(4):
        assert log.events.index(f"score {chunk}") < log.events.index(f"commit {chunk}")


def test_no_chunks_are_no_commits() -> None:
    log = Log()
    assert list(commit_in_background([], log.score, log.commit)) == []
    assert log.events == []


def test_a_chunk_is_committed_while_the_next_one_is_scored() -> None:
    is_committing, is_scoring = Event(), Event()

    def score(chunk: int) -> int:
        if chunk == 1:
            assert is_committing.wait(SECONDS)
            is_scoring.set()
        return get_ident()

    def commit(chunk: int, thread: int) -> bool:
        is_committing.set()
        return is_scoring.wait(SECONDS) and get_ident() != thread

    assert list(commit_in_background(range(2), score, commit)) == [True, True]


def test_at_most_one_chunk_waits_for_its_commit() -> None:
    log, second = Log(), Event()

    def score(chunk: int) -> str:
        if chunk == 1:
            second.set()
        return log.score(chunk)

    def commit(chunk: int, scored: str) -> str:
        assert second.wait(SECONDS)  # the second chunk is scored before the first is committed
        return log.commit(chunk, scored)

    list(commit_in_background(range(3), score, commit))
    assert log.events.index("commit 0") < log.events.index("score 2")


def test_a_failed_commit_ends_the_run_without_the_chunks_after_it() -> None:
    log = Log(fail=("commit 0",))
    with pytest.raises(OSError, match="commit 0"):
        list(commit_in_background(range(3), log.score, log.commit))
    assert sorted(log.events) == ["commit 0", "score 0", "score 1"]


def test_the_chunks_before_a_failed_one_are_committed() -> None:
    log = Log(fail=("score 2",))
    with pytest.raises(OSError, match="score 2"):
        list(commit_in_background(range(4), log.score, log.commit))
    assert [event for event in log.events if "commit" in event] == ["commit 0", "commit 1"]


def test_an_error_of_a_commit_comes_before_that_of_the_next_chunk() -> None:
    log = Log(fail=("commit 0", "score 1"))
    with pytest.raises(OSError, match="commit 0"):
        list(commit_in_background(range(3), log.score, log.commit))
    assert sorted(log.events) == ["commit 0", "score 0", "score 1"]


def test_figures_of_chunks_are_merged_unless_one_has_none() -> None:
    none, first = merge_figures([]), replace(merge_figures([]), statuses={"scored": 2})
    second = replace(first, statuses={"scored": 1, "rejected": 3})
    assert merge_appended([]) == Appended(0, 0, none)
    merged = merge_appended([Appended(0, 0, first), Appended(0, 0, second)])
    assert merged == Appended(0, 0, replace(first, statuses={"scored": 3, "rejected": 3}))
    parts = [Appended(2, 1, None), Appended(0, 0, first), Appended(1, 0, None)]
    assert merge_appended(parts) == Appended(3, 1, None)
