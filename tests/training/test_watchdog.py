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
    EXIT_ABANDONED,
    HEARTBEAT_SECONDS,
    STALL_SECONDS,
    START_FACTOR,
    StallDetector,
    Watchdog,
    heartbeat_interval,
)

WAIT = 60  # seconds
RANK = """
import sys, time
from eagle_spark.training.ranks.watchdog import HeartbeatWriter
with HeartbeatWriter(sys.argv[1], int(sys.argv[2]), 1.0) as pulse:
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


def test_a_rank_that_makes_steps_is_not_stalled() -> None:
    alive = StallDetector(1, 100.0, now=0.0)
    for second in range(0, 1000, 50):
        alive.record(0, beat(second, second), second)
        assert alive.find_stall(second) is None


def test_a_silent_rank_is_named_before_those_that_wait_for_it() -> None:
    alive = StallDetector(2, 100.0, now=0.0)
    for second in range(0, 120, 10):
        alive.record(0, beat(second, min(second, 10)), second)
        alive.record(1, beat(min(second, 10), min(second, 10)), second)
        assert (alive.find_stall(second) is None) == (second <= 110)
    alive.record(0, beat(120, 10), 120)
    complaint = alive.find_stall(120)
    assert complaint == "rank 1 (process 17 on node) has written no heartbeat for 110 s"


def test_live_ranks_without_a_step_are_all_named() -> None:
    alive = StallDetector(2, 100.0, now=0.0)
    for second in range(0, 210, 5):
        for rank in (0, 1):
            alive.record(rank, beat(second, min(second, 5)), second)
    complaint = alive.find_stall(210)
    assert complaint is not None
    assert "rank 0 (process 17 on node) has made no step for 205 s; rank 1 (" in complaint


def test_the_first_step_may_take_longer_but_not_for_ever() -> None:
    alive, never_began = StallDetector(1, 100.0, now=0.0), StallDetector(1, 100.0, now=0.0)
    for second in range(0, 100 * START_FACTOR + 1, 10):
        alive.record(0, beat(second, 0), second)
        assert alive.find_stall(second) is None
        assert never_began.find_stall(second) is None
    alive.record(0, beat(400, 0), 301)
    assert "no step for 301 s" in (alive.find_stall(301) or "")
    assert "rank 0 (its process) has written no heartbeat" in (never_began.find_stall(301) or "")


def test_tracing_the_first_step_has_its_own_time() -> None:
    alive = StallDetector(1, 100.0, now=0.0)
    for second in range(0, 100 * START_FACTOR, 10):
        alive.record(0, beat(second, 1, step=0), second)
        assert alive.find_stall(second) is None


def test_work_between_steps_counts_as_life() -> None:
    """The class head's solver, or validation: the same step for long."""
    alive = StallDetector(1, 100.0, now=0.0)
    for second in range(0, 1000, 50):
        alive.record(0, beat(second, second) | {"step": 7}, second)
        assert alive.find_stall(second) is None


def test_beats_are_frequent_enough_for_the_limit() -> None:
    assert heartbeat_interval(STALL_SECONDS) == HEARTBEAT_SECONDS < STALL_SECONDS / 2
    assert heartbeat_interval(1.0) == 0.25


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


def test_a_hanging_rank_is_detected_and_ends_when_abandoned(
    tmp_path: Path, start_rank: Start
) -> None:
    cancelled = Event()
    with Watchdog(str(tmp_path), 2, 1.0, cancelled.set) as watch:
        busy, hanging = start_rank(0, "steps"), start_rank(1)
        assert cancelled.wait(WAIT)
        assert watch.stall_reason is not None
        assert f"rank 1 (process {hanging.pid} on " in watch.stall_reason
        assert busy.poll() is hanging.poll() is None
    assert (busy.wait(WAIT), hanging.wait(WAIT)) == (EXIT_ABANDONED, EXIT_ABANDONED)


def test_the_driver_receives_the_steps_of_rank_zero(tmp_path: Path, start_rank: Start) -> None:
    heard: list[dict[str, object]] = []
    with Watchdog(str(tmp_path), 2, 1.0, lambda: None, heard.append):
        started = start_rank(0, "training")
        start_rank(1, "steps")
        wait_until(lambda: len({heartbeat["beat"] for heartbeat in heard if heartbeat["step"]}) > 1)
    assert {heartbeat["pid"] for heartbeat in heard} == {started.pid}
    assert (heard[-1]["step"], heard[-1]["loss"]) == (7, 0.25)
    works = [int(str(heartbeat["work"])) for heartbeat in heard]
    assert works == sorted(works)
    assert works[-1] > works[0]


def test_an_unwatched_rank_ends(tmp_path: Path, start_rank: Start) -> None:
    assert start_rank(0, "steps").wait(WAIT) == EXIT_ABANDONED
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
