from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest

from eagle_spark.training.ranks.watchdog import (
    BEAT_SECONDS,
    GIVEN_UP,
    STALL_SECONDS,
    START_FACTOR,
    Liveness,
    Watch,
    beat_seconds,
)

WAIT = 60  # seconds
RANK = """
import sys, time
from eagle_spark.training.ranks.watchdog import Pulse
with Pulse(sys.argv[1], int(sys.argv[2]), 1.0) as pulse:
    while True:
        time.sleep(0.05)
        if "steps" in sys.argv:
            pulse.step()
        if "training" in sys.argv:
            pulse.step(7, 0.25)
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv.pop(), *sys.argv[1:]])
"""


def beat(number: int, work: int, step: int | None = None) -> dict[str, object]:
    done = int(work > 0) if step is None else step
    return {"beat": number, "work": work, "step": done, "pid": 17, "host": "node"}


def test_a_rank_that_steps_is_left_alone() -> None:
    alive = Liveness(1, 100.0, now=0.0)
    for second in range(0, 1000, 50):
        alive.hear(0, beat(second, second), second)
        assert alive.complaint(second) is None


def test_a_silent_rank_is_named_before_those_that_wait_for_it() -> None:
    alive = Liveness(2, 100.0, now=0.0)
    for second in range(0, 120, 10):
        alive.hear(0, beat(second, min(second, 10)), second)
        alive.hear(1, beat(min(second, 10), min(second, 10)), second)
        assert (alive.complaint(second) is None) == (second <= 110)
    alive.hear(0, beat(120, 10), 120)
    complaint = alive.complaint(120)
    assert complaint == "rank 1 (process 17 on node) has given no sign of life for 110 s"


def test_ranks_that_live_but_make_no_step_are_all_named() -> None:
    alive = Liveness(2, 100.0, now=0.0)
    for second in range(0, 210, 5):
        for rank in (0, 1):
            alive.hear(rank, beat(second, min(second, 5)), second)
    complaint = alive.complaint(210)
    assert complaint is not None
    assert "rank 0 (process 17 on node) has made no step for 205 s; rank 1 (" in complaint


def test_the_first_step_may_take_longer_but_not_for_ever() -> None:
    alive, never_began = Liveness(1, 100.0, now=0.0), Liveness(1, 100.0, now=0.0)
    for second in range(0, 100 * START_FACTOR + 1, 10):
        alive.hear(0, beat(second, 0), second)
        assert alive.complaint(second) is None
        assert never_began.complaint(second) is None
    alive.hear(0, beat(400, 0), 301)
    assert "no step for 301 s" in (alive.complaint(301) or "")
    assert "rank 0 (its process) has given no sign of life" in (never_began.complaint(301) or "")


def test_the_class_head_before_the_first_step_leaves_time_to_trace_it() -> None:
    alive = Liveness(1, 100.0, now=0.0)
    for second in range(0, 100 * START_FACTOR, 10):
        alive.hear(0, beat(second, 1, step=0), second)
        assert alive.complaint(second) is None


def test_work_between_steps_counts_as_life() -> None:
    """The class head's solver, or validation: the same step for long."""
    alive = Liveness(1, 100.0, now=0.0)
    for second in range(0, 1000, 50):
        alive.hear(0, beat(second, second) | {"step": 7}, second)
        assert alive.complaint(second) is None


def test_beats_are_frequent_enough_for_the_limit() -> None:
    assert beat_seconds(STALL_SECONDS) == BEAT_SECONDS < STALL_SECONDS / 2
    assert beat_seconds(1.0) == 0.25


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_rank(tmp_path: Path) -> Iterator[Start]:
    running = []

    def start(rank: int, *options: str, program: str = RANK) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", program, str(tmp_path), str(rank), *options]
        running.append(subprocess.Popen(command))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait(WAIT)


def test_a_hanging_rank_is_noticed_and_ends_when_it_is_given_up(
    tmp_path: Path, start_rank: Start
) -> None:
    cancelled = Event()
    with Watch(str(tmp_path), 2, 1.0, cancelled.set) as watch:
        busy, hanging = start_rank(0, "steps"), start_rank(1)
        assert cancelled.wait(WAIT)
        assert watch.complaint is not None
        assert f"rank 1 (process {hanging.pid} on " in watch.complaint
        assert busy.poll() is hanging.poll() is None
    assert (busy.wait(WAIT), hanging.wait(WAIT)) == (GIVEN_UP, GIVEN_UP)


def test_the_driver_hears_of_the_steps_of_rank_zero(tmp_path: Path, start_rank: Start) -> None:
    heard: list[dict[str, object]] = []
    with Watch(str(tmp_path), 2, 1.0, lambda: None, heard.append):
        started = start_rank(0, "training")
        start_rank(1, "steps")
        wait_until(lambda: len({told["beat"] for told in heard if told["step"]}) > 1)
    assert {told["pid"] for told in heard} == {started.pid}
    assert (heard[-1]["step"], heard[-1]["loss"]) == (7, 0.25)
    works = [int(str(told["work"])) for told in heard]
    assert works == sorted(works)
    assert works[-1] > works[0]


def test_a_rank_that_nobody_watches_ends(tmp_path: Path, start_rank: Start) -> None:
    assert start_rank(0, "steps").wait(WAIT) == GIVEN_UP
    assert not list(tmp_path.iterdir())


def test_a_rank_ends_with_the_process_that_started_it(tmp_path: Path, start_rank: Start) -> None:
    (tmp_path / "running").touch()
    parent = start_rank(0, "steps", RANK, program=PARENT)
    written = tmp_path / "heartbeat-0.json"
    wait_until(written.exists)
    rank = psutil.Process(json.loads(written.read_bytes())["pid"])
    assert rank.ppid() == parent.pid
    parent.kill()
    rank.wait(WAIT)
