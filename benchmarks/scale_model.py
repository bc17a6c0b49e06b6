"""What a year of images costs a cluster: coefficients in, figures out. No Spark, no files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

IMAGES = (10**6, 10**8, 10**10)
NODES = (10, 100, 1_000)


@dataclass(frozen=True)
class Coefficient:
    """One number: its unit, and where it comes from."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Year:
    """What is asked: images a year on so many nodes, with the settings as they come or moved.

    Moved are `--chunk` (a tenth of the night, or a whole task for every slot), `--images` (the
    night's own folder) and the archive's form (zips).
    """

    images: int
    nodes: int
    moved: bool = False


@dataclass(frozen=True)
class Figures:
    """What it takes, at the end of the first year."""

    executors: int
    night_images: int
    chunk: int
    commits: int
    scoring_hours: float
    passes_hours: float
    listing_hours: float
    other_hours: float
    week_files: int
    year_files: int
    manifests: int
    snapshots: int
    commit_seconds: float
    metadata_mb: float
    objects: int
    heap_gb: float
    driver_python_gb: float
    driver_java_gb: float
    result_gb: float
    worker_gb: float

    @property
    def hours(self) -> float:
        return self.scoring_hours + self.passes_hours + self.listing_hours + self.other_hours


class Model:
    """The figures of a year, from coefficients by name."""

    def __init__(self, coefficients: Mapping[str, Coefficient]) -> None:
        self._known = coefficients

    def __getitem__(self, name: str) -> float:
        return self._known[name].value

    def snapshots_seconds(self, snapshots: float) -> float:
        """Return the seconds of a commit to a table that knows so many snapshots."""
        return self["commit_seconds"] + self["commit_seconds_per_snapshot"] * snapshots

    def ask(self, year: Year) -> Figures:
        night = math.ceil(year.images / self["nights_per_year"])
        slots = int(year.nodes * self["cores_per_node"])
        chunk = int(self["chunk"])
        if year.moved:
            chunk = max(chunk, int(slots * self["images_per_task"]), math.ceil(night / 10))
        chunk = min(chunk, night)
        chunks = math.ceil(night / chunk)
        tasks = min(chunk, max(slots, math.ceil(chunk / self["images_per_task"])))
        kept_nights = 2 * self["keep_days"]  # just before a weekly maintain
        snapshots = math.ceil(kept_nights * (chunks + 1))
        commit = self.snapshots_seconds(snapshots)
        metadata = self["metadata_bytes"] + self["metadata_bytes_per_snapshot"] * snapshots
        running = min(tasks, slots)
        cores = running * self["images_per_core"]
        network = year.nodes * self["node_mb_per_second"] / self["image_mb"]
        scoring = night / min(cores, network)
        known = year.images
        one_pass = self["pass_core_seconds_per_image"] * year.images / slots
        passes = chunks * one_pass
        per_chunk = commit + tasks * self["task_seconds"] + self["chunk_seconds"]
        others = self["night_core_seconds_per_image"] * year.images / slots
        listing = self["list_seconds_per_file"] * year.images
        if year.moved:
            listing = self["list_seconds_per_member"] * night
        week = math.ceil(7 * chunks * tasks)
        bytes_of_year = year.images * self["bytes_per_row"]
        large = math.ceil(bytes_of_year / self["target_bytes"])
        entries = week + large
        manifests = math.ceil(
            entries * self["manifest_bytes_per_file"] / self["manifest_target_bytes"]
        )
        files = 2 * entries + 2 * snapshots + manifests
        chunk_bytes = self["chunk_row_bytes"] * chunk
        archive = 2 * year.images
        if year.moved:
            zipped = self["zip_images"] * self["image_mb"] * 1e6
            archive = math.ceil(year.images / self["zip_images"]) * (
                1 + math.ceil(zipped / self["block_bytes"])
            )
        objects = archive + files
        return Figures(
            executors=slots,
            night_images=night,
            chunk=chunk,
            commits=chunks,
            scoring_hours=scoring / 3600,
            passes_hours=passes / 3600,
            listing_hours=listing / 3600,
            other_hours=(self["start_seconds"] + others + chunks * per_chunk) / 3600,
            week_files=week,
            year_files=large,
            manifests=manifests,
            snapshots=snapshots,
            commit_seconds=commit,
            metadata_mb=metadata / 1e6,
            objects=objects,
            heap_gb=objects * self["heap_bytes_per_object"] / 1e9,
            driver_python_gb=(
                self["driver_python_bytes"]
                + self["driver_python_bytes_per_image"] * known
                + chunk_bytes
            )
            / 1e9,
            driver_java_gb=(
                self["driver_java_bytes"]
                + self["driver_java_bytes_per_image"] * known
                + self["heap_bytes_per_file"] * entries
                + chunk_bytes
            )
            / 1e9,
            result_gb=max(self["result_bytes_per_image"] * known, chunk_bytes) / 1e9,
            worker_gb=(self["worker_bytes"] + self["known_bytes_per_image"] * known) / 1e9,
        )


@dataclass(frozen=True)
class Limit:
    """What may break: a figure, and what moves it where it is above its limit."""

    name: str
    figure: str
    moves: str

    def of(self, known: Mapping[str, Coefficient], moved: bool = False) -> Coefficient:
        """Return the limit; some are another one once settings are moved."""
        name = f"limit_{self.figure}"
        return known.get(f"{name}_moved", known[name]) if moved else known[name]


LIMITS = (
    Limit(
        "night",
        "hours",
        "a larger `--chunk`: after each chunk the whole table is read again; then nodes; then a "
        "warehouse for each year or hospital, as every night compares with all rows",
    ),
    Limit(
        "NameNode heap",
        "heap_gb",
        "zips instead of single files, which score reads where they are; then a second namespace",
    ),
    Limit(
        "driver's Python",
        "driver_python_gb",
        "`spark.driver.memoryOverhead`; it collects and sorts a key of every known image: then "
        "a warehouse for each year or hospital",
    ),
    Limit(
        "driver's heap",
        "driver_java_gb",
        "`spark.driver.memory`: keys to be sent to workers, planned files, a chunk",
    ),
    Limit(
        "results",
        "result_gb",
        "`spark.driver.maxResultSize`: the same keys on their way to the driver, or a chunk",
    ),
    Limit(
        "worker memory",
        "worker_gb",
        "`spark.executor.memoryOverhead`; a worker takes a key of every known image: then "
        "a warehouse for each year or hospital",
    ),
    Limit(
        "files a week",
        "week_files",
        "a larger `--chunk`: one that gives a slot fewer than 512 images makes smaller files, not "
        "fewer; `maintain` every night",
    ),
    Limit(
        "snapshots",
        "snapshots",
        "a larger `--chunk`; `maintain` every night, with a smaller `--keep-days`",
    ),
)


def broken(
    figures: Figures, known: Mapping[str, Coefficient], moved: bool
) -> list[tuple[Limit, float]]:
    """Return the limits by how many times they are reached, the most first."""
    found = [
        (limit, getattr(figures, limit.figure) / limit.of(known, moved).value) for limit in LIMITS
    ]
    return sorted(found, key=lambda each: -each[1])


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return start and slope, both at least 0, of the least-squares line through points."""
    across = sum(x for x, _ in points) / len(points)
    up = sum(y for _, y in points) / len(points)
    spread = sum((x - across) ** 2 for x, _ in points)
    slope = sum((x - across) * (y - up) for x, y in points) / spread if spread else 0.0
    slope = max(0.0, slope)
    return max(0.0, up - slope * across), slope
