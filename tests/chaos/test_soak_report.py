"""A soak ends with an error that names the trend that is not flat."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.soak import MEMORIES, outcome
from tests.chaos.soak_report import BOUND, FLAT, JAVA, JAVA_GB, SPEED, page, uneven

NUMBERS = ("count", "seed", "chunk", "seconds", "broken", "lost_tasks", "listed", "scored")
MORE = ("rejected", "as_expected", "rows", "files", "cores", "kill_every", "longest_worker_seconds")


def soaked(slopes: dict[str, float | None] | None = None) -> dict[str, Any]:
    """Return the figures of a soak whose slopes are 0, except the given ones."""
    all_slopes = dict.fromkeys((SPEED, *MEMORIES), 0.0) | (slopes or {})
    return {
        **dict.fromkeys((*NUMBERS, *MORE), 10),
        "engine": "openvino",
        "by_reason": {"truncated": 10},
        "balanced": True,
        "kills": 3,
        "peak_gb": dict.fromkeys(MEMORIES, 1.0),
        "flat": {
            name: slope if slope is None else {"median": 1.0, "slope": slope, "ratio": 1.0}
            for name, slope in all_slopes.items()
        },
    }


def test_flat_figures_end_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    figures = soaked({JAVA: 2.0, SPEED: 5.0, "workers, sum": -5.0})
    assert outcome(figures) == 0
    assert capsys.readouterr().err == ""
    assert FLAT in page(figures)


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        (SPEED, -BOUND - 0.1),
        ("driver, Python", BOUND + 0.1),
        ("workers, sum", BOUND + 0.1),
        ("workers, largest", BOUND + 0.1),
        ("workers, sum", None),
    ],
)
def test_a_trend_is_an_error(
    capsys: pytest.CaptureFixture[str], name: str, slope: float | None
) -> None:
    figures = soaked({name: slope})
    assert outcome(figures) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not flat: ")
    assert name in line
    (problem,) = uneven(figures)
    assert f"**Not flat**: {problem}." in page(figures)
    assert FLAT not in page(figures)


def test_java_may_grow_until_its_heap_is_full() -> None:
    figures = soaked({JAVA: 9.0})
    figures["peak_gb"][JAVA] = JAVA_GB - 0.01
    assert outcome(figures) == 0
    figures["peak_gb"][JAVA] = JAVA_GB + 0.01
    assert outcome(figures) == 1
    assert "driver, Java" in page(figures)


def test_the_page_names_sums_that_do_not_balance() -> None:
    text = page(soaked() | {"balanced": False})
    assert "**The sums do not balance**." in text
    assert FLAT not in text


@pytest.mark.parametrize(("name", "value"), [("balanced", False), ("kills", 0)])
def test_unbalanced_counts_and_missing_kills_are_errors(
    capsys: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    assert outcome(soaked() | {name: value}) == 1
    assert capsys.readouterr().err.startswith("error: ")
