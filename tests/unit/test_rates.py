"""Rates of rows that are written in batches."""

from __future__ import annotations

import pytest

from tests.helpers.rates import compute_steady_rate, summarise_ratios

BATCH, SECONDS = 64, 0.5


def batch_times(rows: int, phases: tuple[float, ...]) -> list[float]:
    """Return the times of rows of workers that each finish a batch in `SECONDS`.

    Args:
        rows: of all workers.
        phases: shares of a batch by which each worker starts late.
    """
    times: list[float] = []
    for worker, phase in enumerate(phases):
        share = len(range(worker, rows, len(phases)))
        times += [1.7e9 + (phase + row // BATCH + 1) * SECONDS for row in range(share)]
    return times


@pytest.mark.parametrize("phases", [(0.0, 0.0), (0.0, 0.1), (0.0, 0.5), (0.0, 0.8), (0.0,)])
@pytest.mark.parametrize("rows", [1200, 2000, 12_127])
def test_the_rate_does_not_depend_on_the_phases_of_the_workers(
    rows: int, phases: tuple[float, ...]
) -> None:
    rate = compute_steady_rate(batch_times(rows, phases), len(phases))
    assert rate == pytest.approx(len(phases) * BATCH / SECONDS, rel=1e-4)


def test_a_slow_start_and_a_slow_end_do_not_count() -> None:
    times = batch_times(2000, (0.0,))
    first, last = min(times), max(times)
    late = {first: first - 60, last: last + 60}
    rate = compute_steady_rate([late.get(time, time) for time in times], 1)
    assert rate == pytest.approx(BATCH / SECONDS, rel=1e-4)


def test_a_pause_counts() -> None:
    times = [time + 10 * (time > 1.7e9 + 8) for time in batch_times(2000, (0.0,))]
    assert compute_steady_rate(times, 1) < 0.7 * BATCH / SECONDS


def test_too_few_batches_have_no_rate() -> None:
    with pytest.raises(ValueError, match="wanted more than 4 ends of batches; got 3"):
        compute_steady_rate(batch_times(256, (0.0,)), 4)
    with pytest.raises(ValueError, match="got 0"):
        compute_steady_rate([1.7e9] * 64, 1)


def test_ratios_are_those_within_rounds() -> None:
    ratios = summarise_ratios([90, 45, 100], [100, 50, 80])
    assert ratios == {"median": 0.9, "min": 0.9, "max": 1.25}
