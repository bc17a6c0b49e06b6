"""Model of a year of 10^6, 10^8 and 10^10 images on clusters of 10, 100 and 1,000 nodes.

    python -m benchmarks.scale > results/scale.md

Renders results/scale.md from results/scale.json, which holds the coefficients of the model and the
measurements that they come from. Commit a475b60 has the code that measured them
(`git show a475b60:benchmarks/scale_measure.py`) and that drew results/scale.png.
"""

from __future__ import annotations

import json
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from eagle_spark.model.card import render_table

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "results" / "scale.json"
IMAGES, NODES = (10**6, 10**8, 10**10), (10, 100, 1_000)


@dataclass(frozen=True)
class Coefficient:
    """A number of the model, its unit and its origin."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Figures:
    """The figures of the last run of the first year, just before a weekly `maintain`."""

    executors: int
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
    objects: int
    heap_gb: float
    driver_python_gb: float
    driver_java_gb: float
    result_gb: float
    worker_gb: float

    @property
    def hours(self) -> float:
        return self.scoring_hours + self.passes_hours + self.listing_hours + self.other_hours


def compute_figures(
    images: int, nodes: int, coefficients: Mapping[str, Coefficient], *, moved: bool = False
) -> Figures:
    """Return the figures of a load on a cluster.

    Args:
        images: per year.
        nodes: of the cluster.
        coefficients: of the model.
        moved: False: default settings, single files. True: `--chunk` a tenth of the run, or a full
            task per slot; `--images` the folder of the run; an archive of zips.
    """
    c = {name: coefficient.value for name, coefficient in coefficients.items()}
    run_images = math.ceil(images / c["runs_per_year"])
    slots, chunk = int(nodes * c["cores_per_node"]), int(c["chunk"])
    if moved:
        chunk = max(chunk, int(slots * c["images_per_task"]), math.ceil(run_images / 10))
    chunk = min(chunk, run_images)
    chunks = math.ceil(run_images / chunk)
    tasks = min(chunk, max(slots, math.ceil(chunk / c["images_per_task"])))
    snapshots = math.ceil(2 * c["keep_days"] * (chunks + 1))  # just before a weekly maintain
    commit = c["commit_seconds"] + c["commit_seconds_per_snapshot"] * snapshots
    cores = min(tasks, slots) * c["images_per_core"]
    network = nodes * c["node_mb_per_second"] / c["image_mb"]
    per_chunk = commit + tasks * c["task_seconds"] + c["chunk_seconds"]
    other = c["start_seconds"] + c["run_core_seconds_per_image"] * images / slots
    listing = c["list_seconds_per_file"] * images
    archive_objects = 2 * images
    if moved:
        listing = c["list_seconds_per_member"] * run_images
        blocks = math.ceil(c["zip_images"] * c["image_mb"] * 1e6 / c["block_bytes"])
        archive_objects = math.ceil(images / c["zip_images"]) * (1 + blocks)
    week_files = 7 * chunks * tasks
    year_files = math.ceil(images * c["bytes_per_row"] / c["target_bytes"])
    entries = week_files + year_files
    manifests = math.ceil(entries * c["manifest_bytes_per_file"] / c["manifest_target_bytes"])
    objects = archive_objects + 2 * entries + 2 * snapshots + manifests
    chunk_bytes = c["chunk_row_bytes"] * chunk
    python_bytes = c["driver_python_bytes"] + c["driver_python_bytes_per_image"] * images
    java_bytes = c["driver_java_bytes"] + c["driver_java_bytes_per_image"] * images
    java_bytes += c["heap_bytes_per_file"] * entries
    return Figures(
        executors=slots,
        commits=chunks,
        scoring_hours=run_images / min(cores, network) / 3600,
        passes_hours=chunks * c["pass_core_seconds_per_image"] * images / slots / 3600,
        listing_hours=listing / 3600,
        other_hours=(other + chunks * per_chunk) / 3600,
        week_files=week_files,
        year_files=year_files,
        manifests=manifests,
        snapshots=snapshots,
        commit_seconds=commit,
        objects=objects,
        heap_gb=objects * c["heap_bytes_per_object"] / 1e9,
        driver_python_gb=(python_bytes + chunk_bytes) / 1e9,
        driver_java_gb=(java_bytes + chunk_bytes) / 1e9,
        result_gb=max(c["result_bytes_per_image"] * images, chunk_bytes) / 1e9,
        worker_gb=(c["worker_bytes"] + c["known_bytes_per_image"] * images) / 1e9,
    )


# Name of each limit in the page, and the attribute of `Figures` that it bounds.
LIMITS = {
    "run time": "hours",
    "NameNode heap": "heap_gb",
    "driver's Python": "driver_python_gb",
    "driver's heap": "driver_java_gb",
    "results": "result_gb",
    "worker memory": "worker_gb",
    "files a week": "week_files",
    "snapshots": "snapshots",
}


Years = Mapping[tuple[str, str], Figures]
"""Images per year and number of nodes to figures."""


def rank_limits(
    figures: Figures, coefficients: Mapping[str, Coefficient], moved: bool
) -> list[tuple[str, float]]:
    """Return the name of each limit and figure / limit, the largest ratio first."""
    ratios = []
    for name, attribute in LIMITS.items():
        limit = coefficients[f"limit_{attribute}"]
        if moved:
            limit = coefficients.get(f"limit_{attribute}_moved", limit)
        ratios.append((name, getattr(figures, attribute) / limit.value))
    return sorted(ratios, key=lambda entry: -entry[1])


def describe_limits(default: Years, moved: Years, coefficients: Mapping[str, Coefficient]) -> str:
    """Return a sentence for each form, with the limits that a number of images exceeds."""
    sentences = []
    for form, years in (("default settings", default), ("changed settings", moved)):
        exceeded: dict[str, list[str]] = {}
        for (images, _), figures in years.items():
            ranked = rank_limits(figures, coefficients, moved=years is moved)
            names = exceeded.setdefault(images, [])
            names += [name for name, ratio in ranked if ratio > 1 and name not in names]
        clauses = [
            f"{images} images a year exceed {', '.join(names) if names else 'no limit'}"
            for images, names in exceeded.items()
        ]
        sentences.append(f"With {form}, {'; '.join(clauses)}.")
    return textwrap.fill(" ".join(sentences), 110)


def read_coefficients(study: Mapping[str, Any]) -> dict[str, Coefficient]:
    """Return the coefficients by name from the content of `STUDY`."""
    return {name: Coefficient(**entry) for name, entry in study["coefficients"].items()}


def render(study: Mapping[str, Any]) -> str:
    """Return the page for the content of `STUDY`."""
    coefficients = read_coefficients(study)
    c = {name: format_number(entry.value) for name, entry in coefficients.items()}
    measured = study["measured"]
    entries, commits, expiry = measured["entries"], measured["commits"], measured["expiry"]
    disk, hdfs = measured["storage"]["disk"], measured["storage"]["hdfs"]
    cores, loads = measured["machine"]["cores"], measured["machine"]["loads"]
    readers, last, iceberg = measured["readers"], commits["ours"][-1], commits["iceberg"][-1]
    default, moved = (
        {
            (f"10^{math.log10(images):.0f}", f"{nodes:,}"): compute_figures(
                images, nodes, coefficients, moved=moved
            )
            for images, nodes in product(IMAGES, NODES)
        }
        for moved in (False, True)
    )
    budget = 1e9 * coefficients["feature_budget_gb"].value
    feature_images = format_number(budget / coefficients["feature_bytes_per_image"].value)
    sources = [
        (f"`{name}`", c[name], entry.unit, entry.source)
        for name, entry in sorted(coefficients.items())
    ]

    def limit(attribute: str) -> str:
        entry = coefficients[f"limit_{attribute}"]
        return f"{format_number(entry.value)} {entry.unit} ({entry.source})"

    def capacity(memory: str, key: str | None = None) -> str:
        """Return the number of scored images that fills a memory with default settings."""
        free = 1e9 * coefficients[f"limit_{memory}_gb"].value
        free -= coefficients[f"{memory}_bytes"].value if f"{memory}_bytes" in c else 0
        return format_number(free / coefficients[f"{key or memory}_bytes_per_image"].value)

    return f"""# What does a year of 10^6, 10^8 or 10^10 images cost on 10, 100 or 1,000 nodes?

{describe_limits(default, moved, coefficients)}

## Assumptions

A year has {c["runs_per_year"]} runs, and a run has {c["limit_hours"]} hours. The figures are those of the last run of the first
year, just before a weekly `maintain`. A node has {c["cores_per_node"]} cores and {c["node_gb"]} GB, and an executor for each core, as
in `conf/yarn-score.conf`. A file has {c["image_mb"]} MB, is one HDFS block, and is new once; there is one model. A node reads
{c["node_mb_per_second"]} MB/s at most. Work of tasks is divided by the slots, work of the driver is not. Stragglers, failures
and other users of the cluster are left out. The model is that of commit a475b60, before tasks compared the
listing with the data files: it reads the whole table after each chunk.

## Default settings

Single files, `--images` the whole archive, `--chunk` {c["chunk"]}.

{render_years(default)}

`hours: scoring` is the time of the predictions, `hours: passes` the time of the scans of the whole table
after each chunk. `files a week` are those of `predictions` before `maintain`, which leaves at most {format_number(max(f.year_files for f in moved.values()))} for a
year. The driver's Python and its heap have a limit each; the heap is what lives after a collection, without
garbage. `results` are the bytes that tasks send to the driver at once. All of these, and the memory of a
worker, grow with every image that has a row. Images alone fill the driver's Python at {capacity("driver_python")}, its heap at
{capacity("driver_java")}, its results at {capacity("result")}, a worker at {capacity("worker", "known")}.

## Changed settings

Zips of {c["zip_images"]} images; `--images` the folder of the run; `--chunk` a tenth of the run, or {c["images_per_task"]} images for
each slot if that is more; the driver has a node of its own. `hours: passes` is an upper bound: it was
measured with a listing as long as the table.

{render_years(moved)}

## Which limits are exceeded?

Exceeded limits, each with the ratio of figure to limit, the largest first.

{render_exceeded_limits(default, moved, coefficients)}

| limit | value | what to change |
| --- | --- | --- |
| run time | {limit("hours")} | a larger `--chunk`: after each chunk the whole table is read again; then nodes; then a warehouse for each year or hospital, as every run compares with all rows |
| NameNode heap | {limit("heap_gb")} | zips instead of single files, which score reads where they are; then a second namespace |
| driver's Python | {limit("driver_python_gb")} | `spark.driver.memoryOverhead`; it collects and sorts a key of every known image: then a warehouse for each year or hospital |
| driver's heap | {limit("driver_java_gb")} | `spark.driver.memory`: keys to be sent to workers, planned files, a chunk |
| results | {limit("result_gb")} | `spark.driver.maxResultSize`: the same keys on their way to the driver, or a chunk |
| worker memory | {limit("worker_gb")} | `spark.executor.memoryOverhead`; a worker takes a key of every known image: then a warehouse for each year or hospital |
| files a week | {limit("week_files")} | a larger `--chunk`: one that gives a slot fewer than 512 images makes smaller files, not fewer; `maintain` every day |
| snapshots | {limit("snapshots")} | a larger `--chunk`; `maintain` every day, with a smaller `--keep-days` |

Training and preprocess grow with the labelled images, not with the runs: `--feature-budget`
({c["feature_budget_gb"]} GB) is full at {feature_images} images with masks, and the driver of preprocess, at {c["preprocess_bytes_per_image"]} bytes
an image, fills its 1 GB at a million.

## A table of {entries["planned"]:,} data files

Iceberg's own API wrote the metadata in {entries["commits"]} commits; the data files do not exist. The heap may be {entries["driver_heap_limit"]}.

| operation | cost |
| --- | --- |
| manifests | {entries["manifests"]}, {format_number(entries["manifest_bytes"] / 1e6)} MB: {entries["manifest_bytes"] / entries["planned"]:.0f} bytes a file |
| planning a scan of all | {format_seconds(entries["plan_all"])} |
| planning a scan of one run | {format_seconds(entries["plan_filtered"])}; {entries["planned_filtered"]:,} files |
| heap of a planned scan | {entries["heap_bytes_per_file"]} bytes a file |
| append of 10,000 files | {format_seconds(entries["append"])} |
| append of one file | {format_seconds(entries["append_one"])} |
| `DELETE` of one run, as whole files | {format_seconds(entries["delete"])} |
| publish (`fast_forward`) | {format_seconds(entries["publish"])} |
| `count(*)` of `.files` | {format_seconds(entries["files"])} |
| `expire_snapshots` of {entries["commits"] + 5} snapshots | {format_seconds(entries["expire"])} |

## Storage

The listing goes from the storage into Parquet, as in score; files are empty, 1,000 in a folder. HDFS is a
NameNode and two DataNodes on the same {cores} cores, without other users: across a network and among others it
takes longer. The model takes the same cost for each listed file up to 10^10.

| operation | local disk | HDFS |
| --- | --- | --- |
| {hdfs["files"]:,} files listed | {format_seconds(disk["list"])} | {format_seconds(hdfs["list"])} |
| a zip of {hdfs["members"]:,} files listed | {format_seconds(disk["list_members"])} | {format_seconds(hdfs["list_members"])} |
| a commit of one file, the mean of {hdfs["commits"]} | {format_seconds(disk["commit"])} | {format_seconds(hdfs["commit"])} |

## {last["commits"]:,} commits on a branch

A file each, on the local disk. Every commit writes `metadata.json` with all snapshots again. The tables
above take {c["commit_seconds"]} s for a commit to a small table on HDFS, and {1e3 * coefficients["commit_seconds_per_snapshot"].value:.3f} ms for each snapshot: the slope by
the clock (load {" to ".join(map(str, loads["commits"]))}) through the later half, which is steeper than the first half. They extend
it to {max(f.snapshots for f in default.values()):,} snapshots; {last["commits"]:,} were measured.

![Time of a commit, and size of the metadata folder, by number of commits](scale.png)

{render_commits(commits)}

Iceberg's default keeps every `metadata.json`, {format_number(iceberg["folder_bytes"] / 1e9)} GB after {format_number(iceberg["commits"])} commits, and grows as the square of their
number. Tables of eagle_spark keep the last 100 (`write.metadata.delete-after-commit.enabled`). A table of an
earlier version keeps all until `maintain` removes them, or until
`ALTER TABLE … SET TBLPROPERTIES ('write.metadata.delete-after-commit.enabled'='true')`.

Expiry of {expiry["snapshots"]:,} snapshots but one, as `maintain` does it, took {format_seconds(expiry["expire"])}; `metadata.json` went from {format_number(expiry["metadata_bytes_before"] / 1e6)} to
{format_number(expiry["metadata_bytes"] / 1e6)} MB, a commit from {cpu_ms(expiry["commit_before"])} ms to {cpu_ms(expiry["commit"])} ms of CPU.

## {readers["readers"]} readers while a writer publishes

{readers["readers"]} threads load the table, plan and read `main` without a pause, while a run of three chunks is committed to a
branch and published: {readers["nights"]} such runs, in turn with as many without readers, after one that does not
count. {readers["looks"]:,} reads, of which {readers["in_flight"]} in the median were under way at a time, saw {readers["states_seen"]} states;
{sum(readers["not_whole"].values())} saw part of one, or an error. A read took {readers["median_seconds"]} s in the median, {readers["p95_seconds"]} s at 95 %; a run
{format_range(readers["nights_with_readers"])}, without readers {format_range(readers["nights_alone"])}. No process waits for a lock; all share {cores} cores.

## Coefficients

{render_table(("name", "value", "unit", "source"), sources)}

## How to run it

<!-- not run: needs a checkout of the repository -->
```bash
python -m benchmarks.scale > results/scale.md
```

The command computes this page from [scale.json](scale.json). Commit a475b60 has the code that measured the
coefficients: `git show a475b60:benchmarks/scale_measure.py`.

## Date and machine

2026-11-26 and 2026-11-27, {cores} cores with a local disk, some coefficients with an HDFS on the same cores. No
cluster was available; the last table marks each coefficient as measured or assumed. Other programs kept the
cores busy (load {min(map(min, loads.values()))} to {max(map(max, loads.values()))}), so seconds by the clock are too many: the coefficients are seconds of CPU,
except those of listing and commits, which wait for storage and are by the clock.
"""  # noqa: E501


def render_years(years: Years) -> str:
    """Return a table with one row per number of images and nodes."""
    header = ["images a year", "nodes", "executors", "commits a run", "hours a run"]
    header += ["hours: scoring", "hours: passes", "hours: listing", "HDFS objects", "NameNode GB"]
    header += ["driver's Python GB", "its heap GB", "results GB", "worker GB", "files a week"]
    header += ["manifests", "snapshots", "commit s"]
    rows = []
    for scenario, f in years.items():
        hours = (f.hours, f.scoring_hours, f.passes_hours, f.listing_hours)
        sizes = [f.objects, f.heap_gb, f.driver_python_gb, f.driver_java_gb, f.result_gb]
        sizes += [f.worker_gb, f.week_files, f.manifests, f.snapshots, f.commit_seconds]
        row = (*scenario, f"{f.executors:,}", format_number(f.commits))
        rows.append((*row, *map(format_hours, hours), *map(format_number, sizes)))
    return render_table(header, rows)


def render_exceeded_limits(
    default: Years, moved: Years, coefficients: Mapping[str, Coefficient]
) -> str:
    """Return a table of the limits that are exceeded, before and after settings are moved."""

    def describe(figures: Figures, is_moved: bool) -> str:
        ratios = rank_limits(figures, coefficients, is_moved)
        exceeded = [f"{name} x {format_number(ratio)}" for name, ratio in ratios if ratio > 1]
        name, ratio = ratios[0]
        nearest = f"nothing; nearest: {name}, {format_number(ratio)} of its limit"
        return "; ".join(exceeded) or nearest

    rows = [
        (*scenario, describe(figures, False), describe(moved[scenario], True))
        for scenario, figures in default.items()
    ]
    return render_table(("images a year", "nodes", "default settings", "changed settings"), rows)


def render_commits(commits: Mapping[str, Any]) -> str:
    """Return the growth of metadata with the tables' properties, and with Iceberg's defaults."""
    defaults = {row["commits"]: row for row in commits["iceberg"]}
    header = ["commits", "a commit, ms of CPU", "by the clock", "metadata.json, MB"]
    header += ["metadata folder, GB", "Iceberg's default: ms of CPU", "folder, GB"]
    rows = []
    for row in commits["ours"]:
        times = (cpu_ms(row["commit"]), f"{1e3 * row['commit']['seconds']:.0f}")
        sizes = (row["metadata_bytes"] / 1e6, row["folder_bytes"] / 1e9)
        other = ("", "")
        if default := defaults.get(row["commits"]):
            other = (cpu_ms(default["commit"]), format_number(default["folder_bytes"] / 1e9))
        rows.append((f"{row['commits']:,}", *times, *map(format_number, sizes), *other))
    return render_table(header, rows)


def format_seconds(measured: Mapping[str, float]) -> str:
    """Return the seconds of an operation, by the clock and of CPU."""
    clock, cpu = format_number(measured["seconds"]), format_number(measured["cpu_seconds"])
    return f"{clock} s ({cpu} s of CPU)"


def cpu_ms(seconds: Mapping[str, float]) -> str:
    return f"{1e3 * seconds['cpu_seconds']:.0f}"


def format_range(seconds: Sequence[float]) -> str:
    low, high = min(seconds), max(seconds)
    return f"{statistics.median(seconds):.3g} s ({low:.3g} to {high:.3g})"


def format_hours(hours: float) -> str:
    return format_number(hours) if hours >= 0.01 else "< 0.01"


def format_number(number: float) -> str:
    """Return a number with two or three significant digits."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    if number >= 1000:
        return f"{float(f'{number:.3g}'):,.0f}" if number % 1 else f"{number:,.0f}"
    return f"{number:.2g}" if number < 10 else f"{number:.3g}"


if __name__ == "__main__":
    print(render(json.loads(STUDY.read_text())), end="")
