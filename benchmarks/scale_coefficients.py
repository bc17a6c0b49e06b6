"""The coefficients of `benchmarks.scale`: each with its unit, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.scale_model import Coefficient, line

HERE = "measured by this benchmark"


def settings() -> dict[str, Coefficient]:
    """Return what is not measured here: the project's settings, other measurements, assumptions."""
    from eagle_spark.maintenance import TARGET_BYTES
    from eagle_spark.session import IMAGES_PER_TASK
    from eagle_spark.settings import MaintainSettings, ScoreSettings, TrainSettings

    conf, cloudera = "`conf/yarn-cluster.conf`", "Cloudera, HDFS: disk space versus namespace"
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
        "images_per_task": Coefficient(IMAGES_PER_TASK, "images", "`eagle_spark/session.py`"),
        "chunk_row_bytes": Coefficient(
            200, "bytes", "assumed: path, length, time of a listed file"
        ),
        "keep_days": Coefficient(MaintainSettings.keep_days, "days", "default of `--keep-days`"),
        "target_bytes": Coefficient(TARGET_BYTES, "bytes", "`eagle_spark/maintenance.py`"),
        "manifest_target_bytes": Coefficient(8 * 2**20, "bytes", "Iceberg's default"),
        "known_bytes_per_image": Coefficient(8, "bytes", "`eagle_spark/scoring/score.py`"),
        "node_mb_per_second": Coefficient(1250, "MB/s", "assumed: 10 GbE"),
        "start_seconds": Coefficient(
            17, "s", "`benchmarks.score_growth`: 1,000 images in 21 s, less 4 s of scoring"
        ),
        "chunk_seconds": Coefficient(
            12,
            "s",
            "`benchmarks.score_growth`: 50,000 in 252 s, less start and scoring, by 5",
        ),
        "driver_bytes": Coefficient(0.5e9, "bytes", "`benchmarks.inventory`, 1,000,000 files"),
        "driver_bytes_per_image": Coefficient(
            32, "bytes", "assumed: keys of 8 bytes as collected, in Arrow, sorted and broadcast"
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
        "limit_driver_gb": Coefficient(3, "GB", f"{conf}: 1 and 2 beside it"),
        "limit_driver_gb_moved": Coefficient(64, "GB", "assumed: a node of its own"),
        "limit_worker_gb": Coefficient(3, "GB", f"{conf}: `spark.executor.memoryOverhead`"),
        "limit_week_files": Coefficient(1e6, "files", "as many as were tried"),
        "limit_snapshots": Coefficient(10_000, "snapshots", "nearly as many as were tried"),
    }


def coefficients(measured: Mapping[str, Any]) -> dict[str, Coefficient]:
    """Return every coefficient of the model, from what was measured."""
    entries, rows, grown = measured["entries"], measured["rows"], measured["commits"]["ours"]
    commit = line([(row["commits"], row["commit"]["cpu_seconds"]) for row in grown])
    metadata = line([(row["commits"], row["metadata_bytes"]) for row in grown])
    sizes = {int(size): found for size, found in measured["archive"].items()}

    def slope(*steps: str) -> float:
        """Return the CPU seconds of steps for each file."""
        used = {
            size: sum(found[step]["cpu_seconds"] for step in steps) for size, found in sizes.items()
        }
        return line(list(used.items()))[1]

    archive = f"{HERE}: archives of {' and '.join(f'{size:,}' for size in sizes)} files, CPU"
    here = {
        "commit_seconds": (commit[0], "s", f"{HERE}: commits, CPU, line"),
        "commit_seconds_per_snapshot": (commit[1], "s", f"{HERE}: commits, CPU, line"),
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
        "list_seconds_per_file": (slope("list"), "s", archive),
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
