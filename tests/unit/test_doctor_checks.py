"""The doctor's judgement: each thing broken once, on facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eagle_spark.doctor.checks import (
    Report,
    Yarn,
    check_clocks,
    check_driver_storage,
    check_executors,
    check_hadoop_conf,
    check_native,
    check_overhead,
    check_rows,
    check_space,
    check_storage,
    check_versions,
    check_writes,
    check_yarn,
    overhead,
    size_of,
)

GIB = 2**30
FINE = Report("node container", {"python": "3.11.7", "numpy": "2.4.6"}, 1000.0, None, 50 * GIB)
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
def test_sizes_are_read_as_spark_reads_them(text: str, size: int) -> None:
    assert size_of(text) == size


def test_a_size_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="not a size: much"):
        size_of("much")


def test_batches_of_the_default_length_are_too_large() -> None:
    assert check_rows({"spark.sql.execution.arrow.maxRecordsPerBatch": "64"}, 224).ok
    broken = check_rows({}, 224)
    assert broken.ok is False
    assert "10000 images of 224x224 are 479 MiB" in broken.found
    assert broken.mend == "--conf spark.sql.execution.arrow.maxRecordsPerBatch=64"


def test_no_limit_at_all_is_too_large() -> None:
    assert check_rows({"spark.sql.execution.arrow.maxRecordsPerBatch": "0"}, 32).ok is False


def test_speculation() -> None:
    assert check_writes({}).ok
    assert check_writes({"spark.speculation": "true"}).mend == "--conf spark.speculation=false"


def test_memory_beside_the_heap() -> None:
    assert [check.ok for check in check_overhead(CLUSTER, "yarn")] == [True, True]
    (broken,) = check_overhead({"spark.executor.memory": "8g"}, "yarn")
    assert broken.ok is False
    assert "0.8 GiB" in broken.found
    assert broken.mend == "--conf spark.executor.memoryOverhead=3g"
    assert check_overhead({}, "local[2]") == []


def test_overhead_is_a_tenth_or_384_mebibytes_unless_said() -> None:
    assert overhead({"spark.executor.memory": "1g"}, "executor") == 384 * 2**20
    assert overhead({"spark.executor.memory": "10g"}, "executor") == GIB
    assert overhead({"spark.executor.memoryOverheadFactor": "0.5"}, "executor") == GIB // 2


def test_a_queue_that_is_not_there_or_stopped() -> None:
    yarn = Yarn(nodes=2, free_memory=16 * GIB, free_cores=8, queue="default is RUNNING")
    assert all(check.ok for check in check_yarn(CLUSTER, yarn, here=0))
    for queue in (None, "default is STOPPED"):
        broken = check_yarn(CLUSTER, replace(yarn, queue=queue), here=0)[0]
        assert broken.ok is False
        assert "spark.yarn.queue" in broken.mend


def test_room_counts_memory_cores_and_the_executors_that_are_there() -> None:
    yarn = Yarn(nodes=2, free_memory=7 * GIB, free_cores=8, queue="default is RUNNING")
    broken = check_yarn(CLUSTER, yarn, here=0)[1]
    assert broken.ok is False
    assert "7.0 GiB and 8 vcores free; 2 more executors want 8.0 GiB" in broken.found
    assert "spark.executor.instances" in broken.mend
    assert check_yarn(CLUSTER, yarn, here=1)[1].ok
    assert check_yarn(CLUSTER, replace(yarn, free_memory=9 * GIB, free_cores=1), 0)[1].ok is False


def test_executors_that_did_not_come() -> None:
    assert check_executors(2, 2, [FINE, FINE]).ok
    broken = check_executors(2, 1, [FINE])
    assert (broken.ok, broken.found) == (False, "1 of 2 answer")
    assert "spark.executor.instances" in broken.mend


def test_executors_that_came_and_do_not_answer() -> None:
    broken = check_executors(9, 4, [FINE])
    assert (broken.ok, broken.found) == (False, "1 of 9 answer in time, 4 have come")
    assert "yarn logs" in broken.mend


def test_another_version_on_an_executor_is_named() -> None:
    assert check_versions(FINE, [FINE]).ok
    other = replace(FINE, place="node-7", versions={"python": "3.10.1", "numpy": "2.4.6"})
    broken = check_versions(FINE, [FINE, other])
    assert broken.ok is False
    assert broken.found == "python is 3.10.1 on node-7, 3.11.7 on the driver"
    assert "spark.archives" in broken.mend


def test_a_library_that_an_executor_lacks_is_named() -> None:
    broken = check_versions(FINE, [replace(FINE, versions={"python": "3.11.7"})])
    assert "numpy is None on node container" in broken.found


def test_an_executor_that_cannot_write() -> None:
    broken = check_storage([FINE, replace(FINE, storage="Permission denied")], "hdfs://n/w")
    assert broken.ok is False
    assert "Permission denied" in broken.found
    assert "--warehouse hdfs://" in check_storage([], "file:///w").mend


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
    assert (broken.ok, broken.found) == (False, trouble)
    assert mend in broken.mend


def test_native_libraries_that_cannot_be_loaded_are_named_by_place() -> None:
    assert check_native(None, [FINE]).ok
    broken = replace(FINE, place="node7", native="libarrow.so.22: cannot open shared object file")
    check = check_native("NoClassDefFoundError: org.xerial.snappy.Snappy", [FINE, broken])
    assert check.ok is False
    assert "node7: libarrow.so.22" in check.found
    assert "Java: NoClassDefFoundError" in check.found
    assert "noexec" in check.mend
    assert "environment.tar.gz" in check_native(None, [broken]).mend
    assert check_native("", [FINE]).ok is None


def test_clocks_within_the_question_are_right_others_are_named() -> None:
    assert check_clocks(999.0, 1001.0, [FINE], 1000.5).ok
    late = check_clocks(999.0, 1001.0, [replace(FINE, clock=1060.0)], 1000.5)
    assert late.ok is False
    assert "59.0 s" in late.found
    assert "node container" in late.found
    assert check_clocks(999.0, 1001.0, [FINE], 900.0).ok is False


def test_space() -> None:
    assert all(check.ok for check in check_space(FINE, [FINE], 20 * GIB))
    assert [check.ok for check in check_space(FINE, [FINE], 1 * GIB)] == [False, True]
    full = replace(FINE, place="node-9", free=GIB)
    broken = check_space(FINE, [FINE, full], 20 * GIB)[1]
    assert broken.ok is False
    assert "node-9" in broken.found


def test_hadoop_conf_is_wanted_where_hdfs_is() -> None:
    assert check_hadoop_conf(None, needed=False, is_there=False).ok
    assert check_hadoop_conf("/etc/hadoop", needed=True, is_there=True).ok
    broken = check_hadoop_conf("/etc/none", needed=True, is_there=False)
    assert broken.ok is False
    assert "core-site.xml" in broken.found
    assert "HADOOP_CONF_DIR" in broken.mend
