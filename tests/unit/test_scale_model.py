"""The model of scale: more work never costs less, and what is moved never costs more."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise, product

import pytest

from benchmarks.scale import FIGURES, PAGE, render
from benchmarks.scale_coefficients import coefficients
from benchmarks.scale_model import IMAGES, NODES, Model, Year, broken, line
from tests.helpers.processes import ROOT

GROWN = [
    {
        "commits": commits,
        "commit": {"seconds": 0.05 + 2e-5 * commits},
        "metadata_bytes": 5000 + 960 * commits,
    }
    for commits in (10, 100, 500, 1000)
]


def step(seconds: float) -> dict[str, dict[str, float]]:
    names = ("compare", "known", "count", "left")
    return {name: {"cpu_seconds": 1 + seconds} for name in names}


HDFS = {
    "files": 20_000,
    "list": {"seconds": 0.5},
    "members": 10_000,
    "list_members": {"seconds": 0.2},
    "commits": 50,
    "commit": {"seconds": 0.3},
}


def taken(images: int) -> dict[str, float]:
    """Return what is held of so many known images: 40, 9, 11 and 16 bytes of each."""
    return {
        "python_bytes": 2e8 + 40 * images,
        "java_live_bytes": 1e8 + 9 * images,
        "result_bytes": 11 * images,
        "worker_bytes": 16 * images,
    }


KNOWN = coefficients(
    {
        "entries": {"manifest_bytes": 3e8, "planned": 1_000_000, "heap_bytes_per_file": 600},
        "commits": {"ours": GROWN},
        "rows": {"rows": 512, "bytes_per_row": 600},
        "tasks": {"task_seconds": 0.002},
        "archive": {"1000": step(0.01), "100000": step(1.0)},
        "storage": {"hdfs": HDFS},
        "driver": {str(images): taken(images) for images in (10**6, 4 * 10**6)},
    }
)
MODEL = Model(KNOWN)


@pytest.mark.parametrize(("nodes", "moved"), list(product(NODES, (False, True))))
def test_more_images_never_cost_less(nodes: int, moved: bool) -> None:
    for fewer, more in pairwise(MODEL.ask(Year(images, nodes, moved)) for images in IMAGES):
        less, larger = asdict(fewer), asdict(more)
        if moved:  # chunks grow with the night: there may be fewer of them
            for name in ("commits", "snapshots", "commit_seconds", "metadata_mb"):
                del less[name]
        assert all(less[name] <= larger[name] for name in less)
        assert fewer.hours < more.hours


@pytest.mark.parametrize("images", IMAGES)
def test_more_nodes_never_make_what_is_shared_out_slower(images: int) -> None:
    for fewer, more in pairwise(MODEL.ask(Year(images, nodes)) for nodes in NODES):
        assert more.scoring_hours <= fewer.scoring_hours
        assert more.passes_hours <= fewer.passes_hours


@pytest.mark.parametrize(("images", "nodes"), list(product(IMAGES, NODES)))
def test_what_is_moved_never_costs_more(images: int, nodes: int) -> None:
    before, after = (MODEL.ask(Year(images, nodes, moved)) for moved in (False, True))
    assert after.commits <= before.commits
    assert after.objects <= before.objects
    assert after.hours <= before.hours


def test_the_drivers_python_and_heap_have_limits_of_their_own() -> None:
    figures = MODEL.ask(Year(10**8, 10))
    assert figures.driver_python_gb == pytest.approx(0.5 + 40 * 0.1, rel=0.01)
    assert figures.driver_java_gb == pytest.approx(0.1 + 9 * 0.1, rel=0.05)
    assert figures.result_gb == pytest.approx(11 * 0.1)
    over = {limit.figure: times for limit, times in broken(figures, KNOWN, False)}
    assert over["driver_python_gb"] == pytest.approx(4.5 / 1.5, rel=0.01)
    assert over["driver_java_gb"] == pytest.approx(1.0, rel=0.05)


def test_a_commit_is_that_on_hdfs_and_what_the_later_snapshots_add() -> None:
    assert KNOWN["commit_seconds"].value == 0.3
    assert KNOWN["commit_seconds_per_snapshot"].value == pytest.approx(2e-5)


def test_what_is_listed_is_by_the_clock_of_hdfs() -> None:
    assert KNOWN["list_seconds_per_file"].value == pytest.approx(0.5 / 20_000)
    assert KNOWN["list_seconds_per_member"].value == pytest.approx(0.2 / 10_000)


def test_the_worst_comes_first() -> None:
    found = [times for _, times in broken(MODEL.ask(Year(10**10, 10)), KNOWN, False)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1


def test_a_line_is_found_again() -> None:
    assert line([(0, 1.0), (10, 6.0), (20, 11.0)]) == pytest.approx((1.0, 0.5))


def test_the_page_is_what_the_figures_give() -> None:
    found = json.loads((ROOT / FIGURES).read_text())
    assert (ROOT / PAGE).read_text() == render(found)
    derived = coefficients(found["measured"])
    assert found["coefficients"] == {name: vars(each) for name, each in derived.items()}
