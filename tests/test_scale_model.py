"""The model of scale: more work never costs less, and what is moved never costs more."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise, product

import pytest

from benchmarks.processes import ROOT
from benchmarks.scale import FIGURES, PAGE, render
from benchmarks.scale_coefficients import coefficients
from benchmarks.scale_model import IMAGES, NODES, Model, Year, broken, line

GROWN = [
    {
        "commits": commits,
        "commit": {"cpu_seconds": 0.03 + 1e-5 * commits},
        "metadata_bytes": 5000 + 960 * commits,
    }
    for commits in (10, 100, 1000)
]


def step(seconds: float) -> dict[str, dict[str, float]]:
    names = ("list", "compare", "known", "count", "left")
    return {name: {"cpu_seconds": 1 + seconds} for name in names}


KNOWN = coefficients(
    {
        "entries": {"manifest_bytes": 3e8, "planned": 1_000_000, "heap_bytes_per_file": 600},
        "commits": {"ours": GROWN},
        "rows": {"rows": 512, "bytes_per_row": 600},
        "tasks": {"task_seconds": 0.002},
        "archive": {"1000": step(0.01), "100000": step(1.0)},
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
