"""Checks of the doctor, each with facts that fail it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eagle_spark.doctor.checks import (
    ProcessReport,
    YarnCapacity,
    check_arrow_batch,
    check_clocks,
    check_driver_storage,
    check_executor_storage,
    check_executors,
    check_hadoop_conf,
    check_memory_overhead,
    check_native_libraries,
    check_space,
    check_speculation,
    check_versions,
    check_yarn,
    memory_overhead,
    parse_size,
)

GIB = 2**30
FINE = ProcessReport(
    "node container", {"python": "3.11.7", "numpy": "2.4.6"}, 1000.0, None, 50 * GIB
)
CLUSTER = {
    "spark.submit.deployMode": "cluster",
    "spark.executor.instances": "2",
    "spark.executor.memory": "1g",
    "spark.executor.memoryOverhead": "3g",
    "spark.driver.memoryOverhead": "2g",
}


@pytest.mark.parametrize(
    ("text", "size"), [("512m", 2**29), ("3g", 3 * GIB), ("3GB", 3 * GIB), ("7", 7 * 2**20)]
)
def test_sizes_are_parsed_as_by_spark(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_an_invalid_size_is_named() -> None:
    with pytest.raises(ValueError, match="not a size: much"):
        parse_size("much")


def test_batches_of_the_default_length_are_too_large() -> None:
    assert check_arrow_batch({"spark.sql.execution.arrow.maxRecordsPerBatch": "64"}, 224).ok
    broken = check_arrow_batch({}, 224)
    assert broken.ok is False
    assert "10000 images of 224x224 are 479 MiB" in broken.observed
    assert broken.fix == "--conf spark.sql.execution.arrow.maxRecordsPerBatch=64"


def test_no_limit_at_all_is_too_large() -> None:
    assert check_arrow_batch({"spark.sql.execution.arrow.maxRecordsPerBatch": "0"}, 32).ok is False


def test_speculation() -> None:
    assert check_speculation({}).ok
    assert check_speculation({"spark.speculation": "true"}).fix == "--conf spark.speculation=false"


def test_memory_beside_the_heap() -> None:
    assert [check.ok for check in check_memory_overhead(CLUSTER, "yarn")] == [True, True]
    (broken,) = check_memory_overhead({"spark.executor.memory": "8g"}, "yarn")
    assert broken.ok is False
    assert "0.8 GiB" in broken.observed
    assert broken.fix == "--conf spark.executor.memoryOverhead=3g"
    assert check_memory_overhead({}, "local[2]") == []


def test_default_overhead_is_a_tenth_or_384_mebibytes() -> None:
    assert memory_overhead({"spark.executor.memory": "1g"}, "executor") == 384 * 2**20
    assert memory_overhead({"spark.executor.memory": "10g"}, "executor") == GIB
    assert memory_overhead({"spark.executor.memoryOverheadFactor": "0.5"}, "executor") == GIB // 2


def test_a_missing_or_stopped_queue() -> None:
    yarn = YarnCapacity(nodes=2, free_memory=16 * GIB, free_cores=8, queue="default is RUNNING")
    assert all(check.ok for check in check_yarn(CLUSTER, yarn, running=0))
    for queue in (None, "default is STOPPED"):
        broken = check_yarn(CLUSTER, replace(yarn, queue=queue), running=0)[0]
        assert broken.ok is False
        assert "spark.yarn.queue" in broken.fix


def test_room_counts_memory_cores_and_running_executors() -> None:
    yarn = YarnCapacity(nodes=2, free_memory=7 * GIB, free_cores=8, queue="default is RUNNING")
    broken = check_yarn(CLUSTER, yarn, running=0)[1]
    assert broken.ok is False
    assert "7.0 GiB and 8 vcores free; 2 more executors need 8.0 GiB" in broken.observed
    assert "spark.executor.instances" in broken.fix
    assert check_yarn(CLUSTER, yarn, running=1)[1].ok
    assert check_yarn(CLUSTER, replace(yarn, free_memory=9 * GIB, free_cores=1), 0)[1].ok is False


def test_executors_that_did_not_start() -> None:
    assert check_executors(2, 2, [FINE, FINE]).ok
    broken = check_executors(2, 1, [FINE])
    assert (broken.ok, broken.observed) == (False, "1 of 2 responded")
    assert "spark.executor.instances" in broken.fix


def test_executors_that_do_not_respond() -> None:
    broken = check_executors(9, 4, [FINE])
    assert (broken.ok, broken.observed) == (False, "1 of 9 responded in time, 4 registered")
    assert "yarn logs" in broken.fix


def test_another_version_on_an_executor_is_named() -> None:
    assert check_versions(FINE, [FINE]).ok
    other = replace(FINE, place="node-7", versions={"python": "3.10.1", "numpy": "2.4.6"})
    broken = check_versions(FINE, [FINE, other])
    assert broken.ok is False
    assert broken.observed == "python is 3.10.1 on node-7, 3.11.7 on the driver"
    assert "spark.archives" in broken.fix


def test_a_missing_library_of_an_executor_is_named() -> None:
    broken = check_versions(FINE, [replace(FINE, versions={"python": "3.11.7"})])
    assert "numpy is None on node container" in broken.observed


def test_an_executor_that_cannot_write() -> None:
    broken = check_executor_storage(
        [FINE, replace(FINE, storage="Permission denied")], "hdfs://n/w"
    )
    assert broken.ok is False
    assert "Permission denied" in broken.observed
    assert "`warehouse` hdfs://" in check_executor_storage([], "file:///w").fix


@pytest.mark.parametrize(
    ("trouble", "mend"),
    [
        ("Cannot create file. Name node is in safe mode.", "hdfs dfsadmin -safemode leave"),
        ("hdfs://h:1: HDFS cannot be reached: refused", "start HDFS"),
        ("Permission denied", "permissions"),
    ],
)
def test_a_driver_that_cannot_write(trouble: str, mend: str) -> None:
    assert check_driver_storage(FINE).ok
    broken = check_driver_storage(replace(FINE, storage=trouble))
    assert (broken.ok, broken.observed) == (False, trouble)
    assert mend in broken.fix


def test_native_libraries_that_cannot_be_loaded_are_named_by_place() -> None:
    assert check_native_libraries(None, [FINE]).ok
    broken = replace(FINE, place="node7", native="libarrow.so.22: cannot open shared object file")
    check = check_native_libraries("NoClassDefFoundError: org.xerial.snappy.Snappy", [FINE, broken])
    assert check.ok is False
    assert "node7: libarrow.so.22" in check.observed
    assert "Java: NoClassDefFoundError" in check.observed
    assert "noexec" in check.fix
    assert "yarn-score.conf" in check_native_libraries(None, [broken]).fix
    assert check_native_libraries("", [FINE]).ok is None


def test_clocks_outside_the_request_are_named() -> None:
    assert check_clocks(999.0, 1001.0, [FINE], 1000.5).ok
    late = check_clocks(999.0, 1001.0, [replace(FINE, clock=1060.0)], 1000.5)
    assert late.ok is False
    assert "59.0 s" in late.observed
    assert "node container" in late.observed
    assert check_clocks(999.0, 1001.0, [FINE], 900.0).ok is False


def test_space() -> None:
    assert all(check.ok for check in check_space(FINE, [FINE], 20 * GIB))
    assert [check.ok for check in check_space(FINE, [FINE], 1 * GIB)] == [False, True]
    full = replace(FINE, place="node-9", free=GIB)
    broken = check_space(FINE, [FINE, full], 20 * GIB)[1]
    assert broken.ok is False
    assert "node-9" in broken.observed


def test_hadoop_conf_is_required_for_hdfs() -> None:
    assert check_hadoop_conf(None, needed=False, has_core_site=False).ok
    assert check_hadoop_conf("/etc/hadoop", needed=True, has_core_site=True).ok
    broken = check_hadoop_conf("/etc/none", needed=True, has_core_site=False)
    assert broken.ok is False
    assert "core-site.xml" in broken.observed
    assert "HADOOP_CONF_DIR" in broken.fix
