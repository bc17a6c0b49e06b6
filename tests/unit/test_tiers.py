"""Distribution of tests: each file is in one shard, and shards take similar time."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from tests.helpers.tiers import SINGLE_TESTS, group_name, parse_shard, share


def test_every_file_is_in_one_shard_and_the_longest_is_alone() -> None:
    seconds = {"a": 600.0, "b": 200.0, "c": 190.0, "d": 100.0, "e": 90.0, "f": 0.0}
    shards = share(seconds, 3)
    assert shards[0] == {"a"}
    assert sorted(name for shard in shards for name in shard) == sorted(seconds)
    loads = [sum(seconds[name] for name in shard) for shard in shards[1:]]
    assert max(loads) - min(loads) <= 100


def test_shards_do_not_depend_on_the_worker() -> None:
    seconds = dict.fromkeys("abcdefgh", 10.0)
    assert share(seconds, 3) == share(dict(reversed(seconds.items())), 3)


def test_tests_on_a_cluster_are_one_group_and_others_one_a_file() -> None:
    assert group_name("tests/cluster/test_a.py::test_x[1]") == group_name(
        "tests/cluster/test_b.py::y"
    )
    assert group_name("tests/test_a.py::test_x[a::b]") == "tests/test_a.py"
    page = f"{SINGLE_TESTS}::test_blocks_run[docs/index.md]"
    assert group_name(page) == page


def test_a_shard_is_a_part_of_all() -> None:
    assert parse_shard("2/4") == (2, 4)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/4/2"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="wanted K/N"):
        parse_shard(text)
