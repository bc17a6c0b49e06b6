"""conf/yarn-score.conf and yarn-train.conf: consistent with each other and the jobs' defaults."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from eagle_spark.spark.session import DEFAULT_CONF

CONF = Path(__file__).resolve().parents[2] / "conf"
YARN_FILES = ("yarn-score.conf", "yarn-train.conf")
DIFFERENT = {"spark.archives"}
TRAINING_ONLY = {"spark.dynamicAllocation.enabled"}


def settings(name: str) -> dict[str, str]:
    lines = (CONF / name).read_text().splitlines()
    pairs = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    assert len({key for key, _ in pairs}) == len(pairs), "a setting occurs twice"
    return {key: value.strip() for key, value in pairs}


@pytest.mark.parametrize("name", [*YARN_FILES, "spark-defaults.conf"])
def test_every_setting_has_a_comment(name: str) -> None:
    lines = (CONF / name).read_text().splitlines()
    for above, line in pairwise(lines):
        assert not line.startswith("spark.") or above.startswith("# "), f"{name}: {line}"


def test_the_two_files_differ_only_where_the_jobs_do() -> None:
    score, train = map(settings, YARN_FILES)
    assert train.keys() - score.keys() == TRAINING_ONLY
    assert score.keys() <= train.keys()
    assert {key for key in score if score[key] != train[key]} == DIFFERENT


@pytest.mark.parametrize("name", YARN_FILES)
def test_settings_equal_those_of_the_jobs(name: str) -> None:
    conf = settings(name)
    # The log level comes from log4j2.properties, which also counts before Spark has started.
    for key, value in DEFAULT_CONF.items():
        if key != "spark.log.level":
            assert conf[key] == value


@pytest.mark.parametrize("name", YARN_FILES)
def test_memory_fits_the_local_cluster_with_one_executor_a_node(name: str) -> None:
    conf = settings(name)

    def gigabytes(key: str) -> int:
        return int(conf[f"spark.{key}.memory"][:-1]) + int(conf[f"spark.{key}.memoryOverhead"][:-1])

    site = (CONF.parent / "hadoop" / "conf" / "yarn-site.xml").read_text()
    (node,) = (
        int(line.split("<value>")[1].split("<")[0]) / 1024
        for line in site.splitlines()
        if "yarn.nodemanager.resource.memory-mb" in line
    )
    assert gigabytes("driver") + gigabytes("executor") <= node < 2 * gigabytes("executor")
