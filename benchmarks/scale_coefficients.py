"""The coefficients of `benchmarks.scale`: each with its unit, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.scale_model import Coefficient, line

HERE = "measured by this benchmark"


def settings() -> dict[str, Coefficient]:
    """Return what is not measured here: the project's settings, other measurements, assumptions."""
    from eagle_spark.settings import MaintainSettings, ScoreSettings, TrainSettings
    from eagle_spark.spark.session import IMAGES_PER_TASK
    from eagle_spark.tables.maintenance import TARGET_BYTES

    conf, cloudera = "`conf/yarn-cluster.conf`", "Cloudera, HDFS: disk space versus namespace"
    half = "half of a node of its own"
    return {
        "nights_per_year": Coefficient(365, "nights", "assumed"),
        "cores_per_node": Coefficient(16, "cores", "assumed"),
        "node_gb": Coefficient(64, "GB", "assumed; what 16 executors of 4 GB take"),
        "image_mb": Coefficient(1, "MB", "assumed"),
        "zip_images": Coefficient(10_000, "images", "assumed"),
        "block_bytes": Coefficient(128 * 2**20, "bytes", "HDFS' default"),
        "heap_bytes_per_object": Coefficient(150, "bytes", cloudera),
        "images_per_core": Coefficient(
            97, "images/s", "`benchmarks.score`: 194 of 2 cores, 2000 x 2000 JPEG, int8"
        ),
        "chunk": Coefficient(ScoreSettings.chunk, "images", "default of `--chunk`"),
        "images_per_task": Coefficient(IMAGES_PER_TASK, "images", "`eagle_spark/spark/session.py`"),
        "chunk_row_bytes": Coefficient(
            200, "bytes", "assumed: path, length, time of a listed file"
        ),
        "keep_days": Coefficient(MaintainSettings.keep_days, "days", "default of `--keep-days`"),
        "target_bytes": Coefficient(TARGET_BYTES, "bytes", "`eagle_spark/tables/maintenance.py`"),
        "manifest_target_bytes": Coefficient(8 * 2**20, "bytes", "Iceberg's default"),
        "node_mb_per_second": Coefficient(1250, "MB/s", "assumed: 10 GbE"),
        "start_seconds": Coefficient(
            17, "s", "`benchmarks.score_growth`: 1,000 images in 21 s, less 4 s of scoring"
        ),
        "chunk_seconds": Coefficient(
            12,
            "s",
            "`benchmarks.score_growth`: 50,000 in 252 s, less start and scoring, by 5",
        ),
        "driver_python_bytes": Coefficient(
            0.5e9, "bytes", "`benchmarks.inventory`: at most, with 1,000,000 images known"
        ),
        "worker_bytes": Coefficient(0.58e9, "bytes", "`benchmarks.score_growth`, 50,000 images"),
        "preprocess_bytes_per_image": Coefficient(1000, "bytes", "README, limits"),
        "feature_budget_gb": Coefficient(
            TrainSettings.feature_budget, "GB", "default of `--feature-budget`"
        ),
        "feature_bytes_per_image": Coefficient(
            414e3, "bytes", "`benchmarks.train_growth`, all with masks"
        ),
        "limit_hours": Coefficient(8, "hours", "assumed"),
        "limit_heap_gb": Coefficient(64, "GB", "assumed: the NameNode's node"),
        "limit_driver_python_gb": Coefficient(
            1.5,
            "GB",
            f"{conf}: `spark.driver.memoryOverhead`, 2 GB, less 0.5 GB that Java takes beside its "
            "heap: `benchmarks.inventory`, 2.5 GB with a heap of 2",
        ),
        "limit_driver_python_gb_moved": Coefficient(32, "GB", f"assumed: {half}"),
        "limit_driver_java_gb": Coefficient(1, "GB", f"{conf}: `spark.driver.memory`"),
        "limit_driver_java_gb_moved": Coefficient(32, "GB", f"assumed: {half}"),
        "limit_result_gb": Coefficient(
            2**30 / 1e9, "GB", "Spark's default of `spark.driver.maxResultSize`"
        ),
        "limit_result_gb_moved": Coefficient(32, "GB", "assumed: as the driver's heap"),
        "limit_worker_gb": Coefficient(3, "GB", f"{conf}: `spark.executor.memoryOverhead`"),
        "limit_week_files": Coefficient(1e6, "files", "as many as were tried"),
        "limit_snapshots": Coefficient(10_000, "snapshots", "nearly as many as were tried"),
    }


def coefficients(measured: Mapping[str, Any]) -> dict[str, Coefficient]:
    """Return every coefficient of the model, from what was measured."""
    entries, rows, grown = measured["entries"], measured["rows"], measured["commits"]["ours"]
    # Later commits rise more steeply than earlier ones, and still later ones are asked about.
    late = [row for row in grown if row["commits"] >= grown[-1]["commits"] / 2]
    commit = line([(row["commits"], row["commit"]["seconds"]) for row in late])
    hdfs = measured["storage"]["hdfs"]
    known = {int(images): found for images, found in measured["driver"].items()}
    metadata = line([(row["commits"], row["metadata_bytes"]) for row in grown])
    sizes = {int(size): found for size, found in measured["archive"].items()}

    def slope(*steps: str) -> float:
        """Return the CPU seconds of steps for each file."""
        used = {
            size: sum(found[step]["cpu_seconds"] for step in steps) for size, found in sizes.items()
        }
        return line(list(used.items()))[1]

    def of_known(name: str) -> tuple[float, float]:
        """Return what there is without a known image, and for each of them."""
        return line([(images, found[name]) for images, found in known.items()])

    of_each = f"{HERE}: {' and '.join(f'{images:,}' for images in known)} known images"
    beside = "on HDFS on this machine, by the clock"
    archive = f"{HERE}: archives of {' and '.join(f'{size:,}' for size in sizes)} files, CPU"
    here = {
        "commit_seconds": (
            hdfs["commit"]["seconds"],
            "s",
            f"{HERE}: {hdfs['commits']} commits {beside}",
        ),
        "commit_seconds_per_snapshot": (
            commit[1],
            "s",
            f"{HERE}: commits {late[0]['commits']:,} to {late[-1]['commits']:,} on the local disk, "
            "by the clock, line",
        ),
        "metadata_bytes": (metadata[0], "bytes", f"{HERE}: commits, line"),
        "metadata_bytes_per_snapshot": (metadata[1], "bytes", f"{HERE}: commits, line"),
        "manifest_bytes_per_file": (
            entries["manifest_bytes"] / entries["planned"],
            "bytes",
            f"{HERE}: entries",
        ),
        "heap_bytes_per_file": (
            entries["heap_bytes_per_file"],
            "bytes",
            f"{HERE}: entries, a planned scan",
        ),
        "task_seconds": (
            measured["tasks"]["task_seconds"],
            "s",
            f"{HERE}: empty tasks, CPU of the driver and of the task",
        ),
        "bytes_per_row": (
            rows["bytes_per_row"],
            "bytes",
            f"{HERE}: {rows['rows']:,} real images scored",
        ),
        "list_seconds_per_file": (
            hdfs["list"]["seconds"] / hdfs["files"],
            "s",
            f"{HERE}: {hdfs['files']:,} empty files {beside}",
        ),
        "list_seconds_per_member": (
            hdfs["list_members"]["seconds"] / hdfs["members"],
            "s",
            f"{HERE}: a zip of {hdfs['members']:,} empty files {beside}",
        ),
        "driver_python_bytes_per_image": (
            of_known("python_bytes")[1],
            "bytes",
            f"{of_each}: the most resident, line",
        ),
        "driver_java_bytes": (
            of_known("java_live_bytes")[0],
            "bytes",
            f"{of_each}: heap after a collection, line; of a local JVM, which executes too",
        ),
        "driver_java_bytes_per_image": (
            of_known("java_live_bytes")[1],
            "bytes",
            f"{of_each}: heap after a collection, line",
        ),
        "result_bytes_per_image": (
            of_known("result_bytes")[1],
            "bytes",
            f"{of_each}: size of the tasks' results, line",
        ),
        "known_bytes_per_image": (
            of_known("worker_bytes")[1],
            "bytes",
            f"{of_each}: the most resident of a process that takes the broadcast, line",
        ),
        "pass_core_seconds_per_image": (
            slope("count", "left"),
            "core s",
            f"{archive}: counting what has a row, finding what has none",
        ),
        "night_core_seconds_per_image": (
            slope("compare", "known", "count", "count", "count"),
            "core s",
            f"{archive}: comparing, known images, three counts for the audit",
        ),
    }
    return settings() | {name: Coefficient(*each) for name, each in here.items()}
