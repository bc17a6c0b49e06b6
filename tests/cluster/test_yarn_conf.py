"""conf/yarn-cluster.conf: consistent with the defaults of the jobs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from eagle_spark.spark.session import DEFAULT_CONF

CONF = Path(__file__).resolve().parents[2] / "conf"


def settings(name: str) -> dict[str, str]:
    lines = (CONF / name).read_text().splitlines()
    pairs = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    assert len({key for key, _ in pairs}) == len(pairs), "a setting occurs twice"
    return {key: value.strip() for key, value in pairs}


def test_every_setting_has_a_comment() -> None:
    for name in ("yarn-cluster.conf", "spark-defaults.conf"):
        lines = (CONF / name).read_text().splitlines()
        for above, line in pairwise(lines):
            assert not line.startswith("spark.") or above.startswith("# "), f"{name}: {line}"


def test_settings_equal_those_of_the_jobs() -> None:
    conf = settings("yarn-cluster.conf")
    # The log level comes from log4j2.properties, which also counts before Spark has started.
    for key, value in DEFAULT_CONF.items():
        if key != "spark.log.level":
            assert conf[key] == value


def test_memory_fits_the_local_cluster_with_one_executor_a_node() -> None:
    conf = settings("yarn-cluster.conf")

    def gigabytes(key: str) -> int:
        return int(conf[f"spark.{key}.memory"][:-1]) + int(conf[f"spark.{key}.memoryOverhead"][:-1])

    site = (CONF.parent / "hadoop" / "conf" / "yarn-site.xml").read_text()
    (node,) = (
        int(line.split("<value>")[1].split("<")[0]) / 1024
        for line in site.splitlines()
        if "yarn.nodemanager.resource.memory-mb" in line
    )
    assert gigabytes("driver") + gigabytes("executor") <= node < 2 * gigabytes("executor")
