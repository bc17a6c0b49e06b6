"""Which tests run: tiers, shards, and the groups that share a worker process.

A tier follows from a test's markers. `unit` tests carry none of `spark`, `train`, `hadoop`, `slow`
and `extended`; `extended` tests are the rest that `make test` leaves out; all others are of the
tier `test`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

MARKERS = ("hadoop", "slow", "train", "spark")  # the longest groups first
CLUSTER = "tests/cluster"
# Its tests share no process: each is a group, and a part of a shard, of its own.
SINGLE_TESTS = "tests/docs/test_pages.py"
TIERS = ("unit", "test", "extended", "all")
_BEFORE = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier", choices=TIERS, default="all", help="unit; test: and unit; extended: the rest; all"
    )
    parser.addoption(
        "--shard", type=parse_shard, default=(1, 1), help="K/N: part K of N of the extended tests"
    )


def parse_shard(text: str) -> tuple[int, int]:
    """Return the numbers of `K/N`, where 1 <= K <= N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"wanted K/N with 1 <= K <= N, got {text!r}")
    return part, parts


def tier_name(item: pytest.Item) -> str:
    if item.get_closest_marker("extended"):
        return "extended"
    return "test" if any(map(item.get_closest_marker, MARKERS)) else "unit"


def group_name(nodeid: str) -> str:
    """Return the group of tests that one worker runs: a part, or all tests on a cluster."""
    return CLUSTER if nodeid.startswith(f"{CLUSTER}/") else part_name(nodeid)


def part_name(nodeid: str) -> str:
    """Return the tests that are in one shard: those of a file, or one of `SINGLE_TESTS`."""
    file = nodeid.partition("::")[0]
    return nodeid if file == SINGLE_TESTS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    # Not `--dist loadgroup`: xdist 3.8 appends groups to node ids in a way that pytest 9.2 ignores.
    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_name(nodeid)

    return GroupScheduling(config, log)


def share(seconds: Mapping[str, float], parts: int) -> list[set[str]]:
    """Distribute tests over shards, the longest first, each to the shard with the least to do."""
    shards: list[set[str]] = [set() for _ in range(parts)]
    loads = [0.0] * parts
    for name in sorted(seconds, key=lambda name: (-seconds[name], name)):
        lightest = loads.index(min(loads))
        shards[lightest].add(name)
        loads[lightest] += seconds[name]
    return shards


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen, (part, parts) = config.getoption("--tier"), config.getoption("--shard")
    tiers = {"unit": {"unit"}, "test": {"unit", "test"}, "extended": {"extended"}}
    seconds: defaultdict[str, float] = defaultdict(float)
    for item in items:
        if marker := item.get_closest_marker("extended"):
            if "seconds" not in marker.kwargs or not marker.args:
                raise pytest.UsageError(f"{item.nodeid}: extended wants a reason and seconds")
            seconds[part_name(item.nodeid)] += marker.kwargs["seconds"]
    shard = share(seconds, parts)[part - 1]

    def is_chosen(item: pytest.Item) -> bool:
        tier = tier_name(item)
        in_shard = tier != "extended" or part_name(item.nodeid) in shard
        return in_shard and tier in tiers.get(chosen, {tier})

    config.hook.pytest_deselected(items=[item for item in items if not is_chosen(item)])
    items[:] = filter(is_chosen, items)
    ranks: dict[str, int] = {}
    for item in items:
        group = group_name(item.nodeid)
        ranks[group] = min(rank(item), ranks.get(group, len(MARKERS)))
    items.sort(key=lambda item: ranks[group_name(item.nodeid)])


def rank(item: pytest.Item) -> int:
    """Return a number by which groups are sorted, the longest first."""
    ranks = (place for place, name in enumerate(MARKERS) if item.get_closest_marker(name))
    return min(ranks, default=len(MARKERS))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_BEFORE] = _heavy()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that starts a JVM or loads TensorFlow without the marker for it."""
    yield
    for marker in _heavy() - item.stash[_BEFORE]:
        if not item.get_closest_marker(marker):
            pytest.fail(f"the test needs the marker `{marker}`", pytrace=False)


def _heavy() -> set[str]:
    context = sys.modules.get("pyspark.core.context")
    loaded = {"train": "tensorflow" in sys.modules}
    loaded["spark"] = context is not None and context.SparkContext._jvm is not None
    return {marker for marker, there in loaded.items() if there}
