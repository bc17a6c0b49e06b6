"""Duration of the tests: a table at the end, all figures in `build/test-times-TIER.json`."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiers import tier_name

SLOWEST = 15
MAX_SECONDS = 10  # of a test without the marker `slow` or `extended`
BUILD = Path(__file__).resolve().parents[2] / "build"


class Timings:
    """Seconds by test, file, tier and fixture, of all workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.tier = config.getoption("--tier")
        self.started = time.monotonic()
        self.tests: defaultdict[str, float] = defaultdict(float)
        self.fixtures: defaultdict[str, float] = defaultdict(float)
        self.tiers: dict[str, str] = {}
        self.unexplained: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        begun = time.monotonic()
        try:
            return (yield)
        finally:
            where = fixturedef.baseid or "pytest"
            self.fixtures[f"{where}: {fixturedef.argname}"] += time.monotonic() - begun

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        explained = any(map(item.get_closest_marker, ("slow", "extended")))
        item.user_properties += [("tier", tier_name(item)), ("explained", explained)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid
        self.tests[name] += report.duration
        properties = dict(report.user_properties)
        if not properties:  # the worker died
            return
        self.tiers[name] = str(properties["tier"])
        if report.when == "call" and not properties["explained"] and report.duration > MAX_SECONDS:
            self.unexplained[name] = report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["fixtures"] = dict(self.fixtures)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for name, seconds in getattr(node, "workeroutput", {}).get("fixtures", {}).items():
            self.fixtures[name] += seconds

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.tier == "all" or not self.tests:  # some tests, run by hand
            return
        files = sums({name: name.partition("::")[0] for name in self.tests}, self.tests)
        tiers = sums(self.tiers, self.tests)
        output = BUILD / f"test-times-{self.tier}.json"
        BUILD.mkdir(exist_ok=True)
        whole = {"seconds": time.monotonic() - self.started, "tests": self.tests, "files": files}
        whole |= {"tiers": tiers, "fixtures": self.fixtures}
        output.write_text(json.dumps(whole, indent=1, sort_keys=True))
        write = terminalreporter.write_line
        terminalreporter.section(f"slowest {SLOWEST}, seconds; all in build/{output.name}")
        for kind, durations in (("test", self.tests), ("file", files), ("fixture", self.fixtures)):
            for name, seconds in sorted(durations.items(), key=lambda item: -item[1])[:SLOWEST]:
                write(f"{seconds:8.1f}  {kind}  {name}")
        for name, seconds in sorted(tiers.items()):
            count = sum(tier == name for tier in self.tiers.values())
            write(f"{seconds:8.1f}  tier  {name}, {count} tests")
        for name, seconds in self.unexplained.items():
            write(f"over {MAX_SECONDS} s and not marked slow: {name} ({seconds:.0f} s)")


def sums(groups: Mapping[str, str], seconds: Mapping[str, float]) -> dict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    for name, group in groups.items():
        totals[group] += seconds[name]
    return dict(totals)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Timings(config), "timings of the tests")
