"""What a year of 10^6, 10^8 and 10^10 images costs clusters of 10, 100 and 1,000 nodes.

    python -m benchmarks.scale
    python -m benchmarks.scale --measure [PART,…] --images DIR

The first writes docs/scale.md and results/scale.png from results/scale.json. The second measures
what stands there: tasks, entries, commits, expiry, readers, archive, storage, driver, rows. Parts
that are not named keep what was measured before.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import scale_measure as measure
from benchmarks.scale_coefficients import coefficients
from benchmarks.scale_driver import driver
from benchmarks.scale_model import (
    IMAGES,
    LIMITS,
    NODES,
    Coefficient,
    Figures,
    Model,
    Year,
    broken,
)
from benchmarks.scale_readers import readers
from benchmarks.scale_storage import FILES_PER_FOLDER, storage
from eagle_spark.model.card import table
from tests.helpers.processes import ROOT

FIGURES, PAGE, PLOT = "results/scale.json", "docs/scale.md", "results/scale.png"
TEMPLATE = ROOT / "benchmarks" / "scale.md.j2"
STOPPED = f" Stopped after {measure.SECONDS:,} s, short of {measure.COMMITS:,}."
PARTS: dict[str, Callable[..., measure.Figures]] = {
    "tasks": measure.tasks,
    "entries": measure.entries,
    "commits": measure.commits,
    "expiry": measure.expiry,
    "readers": readers,
    "archive": measure.archive,
    "storage": storage,
    "driver": driver,
    "rows": measure.rows,
}
# A memory that fills with every known image: its limit, what is there before, and of each image.
FULL = {
    "the driver's Python": (
        "driver_python",
        "driver_python_bytes",
        "driver_python_bytes_per_image",
    ),
    "its heap": ("driver_java", "driver_java_bytes", "driver_java_bytes_per_image"),
    "its results": ("result", "", "result_bytes_per_image"),
    "a worker": ("worker", "worker_bytes", "known_bytes_per_image"),
}


def render(found: Mapping[str, Any]) -> str:
    """Return the page, from what stands in the JSON alone."""
    from jinja2 import Environment, StrictUndefined

    known = {name: Coefficient(**each) for name, each in found["coefficients"].items()}
    measured = found["measured"]
    model = Model(known)
    asked = {
        moved: {(i, n): model.ask(Year(i, n, moved)) for i in IMAGES for n in NODES}
        for moved in (False, True)
    }
    entries, commits, expiry = (measured[part] for part in ("entries", "commits", "expiry"))
    last, asis, read = commits["ours"][-1], commits["iceberg"][-1], measured["readers"]
    pages = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    pages.filters["comma"] = "{:,}".format
    template = pages.from_string(TEMPLATE.read_text())
    return template.render(
        by=lambda name: short(known[name].value),
        ms=lambda seconds: f"{1e3 * seconds['cpu_seconds']:.0f} ms",
        took=took,
        mb=lambda size: short(size / 1e6),
        as_it_comes=years(asked[False]),
        moved=years(asked[True]),
        full=full(known),
        most_snapshots=max(each.snapshots for each in asked[False].values()),
        storage_lines=storage_lines(measured["storage"]),
        per_folder=FILES_PER_FOLDER,
        steps=steps(asked, known),
        limits=[
            {
                "name": limit.name,
                "value": short(limit.of(known).value),
                "unit": limit.of(known).unit,
                "source": limit.of(known).source,
                "moves": limit.moves,
            }
            for limit in LIMITS
        ],
        year_files=short(max(each.year_files for each in asked[True].values())),
        feature_images=short(
            known["feature_budget_gb"].value * 1e9 / known["feature_bytes_per_image"].value
        ),
        entries=entries,
        entry_lines=entry_lines(entries),
        last=last,
        asis={"commits": short(asis["commits"]), "gb": short(asis["folder_bytes"] / 1e9)},
        expiry=expiry,
        snapshot_ms=f"{1e3 * known['commit_seconds_per_snapshot'].value:.3f}",
        commit_loads=" to ".join(map(str, measured["machine"]["loads"]["commits"])),
        stopped="" if last["commits"] == measure.COMMITS else STOPPED,
        commits=commit_table(commits),
        readers=read,
        nights={
            name: f"{statistics.median(read[name]):.3g} s ({min(read[name]):.3g} to "
            f"{max(read[name]):.3g})"
            for name in ("nights_alone", "nights_with_readers")
        },
        not_whole=sum(read["not_whole"].values()),
        coefficients=[
            (name, {"shown": short(each.value), "unit": each.unit, "source": each.source})
            for name, each in sorted(known.items())
        ],
        cores=measured["machine"]["cores"],
        least_load=min(map(min, measured["machine"]["loads"].values())),
        most_load=max(map(max, measured["machine"]["loads"].values())),
    )


def years(asked: Mapping[tuple[int, int], Figures]) -> str:
    rows = []
    for (images, nodes), its in asked.items():
        rows.append(
            {
                "images a year": power(images),
                "nodes": f"{nodes:,}",
                "executors": f"{its.executors:,}",
                "commits a night": short(its.commits),
                "hours a night": hours(its.hours),
                "of it scoring": hours(its.scoring_hours),
                "of it passes": hours(its.passes_hours),
                "of it listing": hours(its.listing_hours),
                "HDFS objects": short(its.objects),
                "NameNode GB": short(its.heap_gb),
                "driver's Python GB": short(its.driver_python_gb),
                "its heap GB": short(its.driver_java_gb),
                "results GB": short(its.result_gb),
                "worker GB": short(its.worker_gb),
                "files a week": short(its.week_files),
                "manifests": short(its.manifests),
                "snapshots": short(its.snapshots),
                "commit s": short(its.commit_seconds),
            }
        )
    return markdown(rows)


def steps(
    asked: Mapping[bool, Mapping[tuple[int, int], Figures]], known: Mapping[str, Coefficient]
) -> str:
    """Return a table of what breaks, in order, before and after settings are moved."""
    rows = []
    for images, nodes in asked[False]:
        row = {"images a year": power(images), "nodes": f"{nodes:,}"}
        for moved, title in ((False, "as it comes"), (True, "moved")):
            found = broken(asked[moved][images, nodes], known, moved)
            over = [f"{limit.name} x {short(times)}" for limit, times in found if times > 1]
            nearest = f"nothing; nearest: {found[0][0].name}, {short(found[0][1])} of its limit"
            row[title] = "; ".join(over) or nearest
        rows.append(row)
    return markdown(rows)


def full(known: Mapping[str, Coefficient]) -> str:
    """Return how many known images fill each memory as it comes."""
    found = []
    for name, (limit, start, each) in FULL.items():
        free = 1e9 * known[f"limit_{limit}_gb"].value - (known[start].value if start else 0)
        found.append(f"{name} at {short(free / known[each].value)}")
    return ", ".join(found)


def storage_lines(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    disk, hdfs = found["disk"], found["hdfs"]
    lines = {
        f"{hdfs['files']:,} files listed": "list",
        f"a zip of {hdfs['members']:,} files listed": "list_members",
        f"a commit of one file, the mean of {hdfs['commits']}": "commit",
    }
    return [(name, took(disk[key]), took(hdfs[key])) for name, key in lines.items()]


def took(seconds: Mapping[str, float]) -> str:
    return f"{short(seconds['seconds'])} s ({short(seconds['cpu_seconds'])} s of CPU)"


def entry_lines(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    size, count = entries["manifest_bytes"], entries["planned"]
    some, snapshots = entries["planned_filtered"], entries["commits"] + 5
    return [
        (
            "manifests",
            f"{entries['manifests']:,}, {short(size / 1e6)} MB: {size / count:.0f} bytes a file",
        ),
        ("planning a scan of all", took(entries["plan_all"])),
        ("planning a scan of one run", f"{took(entries['plan_filtered'])}; {some:,} files"),
        ("heap of a planned scan", f"{entries['heap_bytes_per_file']} bytes a file"),
        (f"append of {measure.FILES_PER_COMMIT:,} files", took(entries["append"])),
        ("append of one file", took(entries["append_one"])),
        ("`DELETE` of one run, as whole files", took(entries["delete"])),
        ("publish (`fast_forward`)", took(entries["publish"])),
        ("`count(*)` of `.files`", took(entries["files"])),
        (f"`expire_snapshots` of {snapshots:,} snapshots", took(entries["expire"])),
    ]


def commit_table(commits: Mapping[str, Any]) -> str:
    """Return the growth with and without the tables' own properties."""
    without = {row["commits"]: row for row in commits["iceberg"]}
    rows = []
    for row in commits["ours"]:
        other = without.get(row["commits"])
        rows.append(
            {
                "commits": f"{row['commits']:,}",
                "a commit, ms of CPU": f"{1e3 * row['commit']['cpu_seconds']:.0f}",
                "by the clock": f"{1e3 * row['commit']['seconds']:.0f}",
                "metadata.json, MB": short(row["metadata_bytes"] / 1e6),
                "metadata folder, GB": short(row["folder_bytes"] / 1e9),
                "Iceberg's default: ms of CPU": (
                    f"{1e3 * other['commit']['cpu_seconds']:.0f}" if other else ""
                ),
                "folder, GB": short(other["folder_bytes"] / 1e9) if other else "",
            }
        )
    return markdown(rows)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    names = list(rows[0])
    return table(names, ([row[name] for name in names] for row in rows))


def power(number: float) -> str:
    return f"10^{len(str(int(number))) - 1}"


def hours(number: float) -> str:
    return short(number) if number >= 0.01 else "< 0.01"


def short(number: float) -> str:
    """Return a number with two or three digits that count."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    if number >= 1000:
        return f"{float(f'{number:.3g}'):,.0f}" if number % 1 else f"{number:,.0f}"
    return f"{number:.2g}" if number < 10 else f"{number:.3g}"


def draw(commits: Mapping[str, Any], target: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from eagle_spark.report.curves import FAINT, GRID, TRAIN, VALIDATION

    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    both = figure.subplots(1, 2)
    for axes, value, name in (
        (both[0], lambda row: 1e3 * row["commit"]["cpu_seconds"], "a commit, ms of CPU"),
        (both[1], lambda row: 1e-9 * row["folder_bytes"], "metadata folder, GB"),
    ):
        for part, label, colour in (
            ("ours", "tables of eagle_spark", TRAIN),
            ("iceberg", "Iceberg's default", VALIDATION),
        ):
            rows = commits[part]
            axes.plot(
                [row["commits"] for row in rows],
                [value(row) for row in rows],
                *("o-",),
                color=colour,
                markersize=4,
                label=label,
            )
        axes.set_xlabel("commits on the branch", color=FAINT)
        axes.set_ylabel(name, color=FAINT)
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID, linewidth=0.8)
        axes.legend(frameon=False)
    figure.savefig(target, dpi=110, metadata={"Software": None})


def remeasure(parts: Sequence[str], images: Path, target: Path) -> None:
    """Measure the parts, and write the coefficients that follow once all parts are there."""
    import os

    found = json.loads(target.read_text()) if target.exists() else {"measured": {}}
    for part in parts:
        given = (images,) if part == "rows" else ()
        loads = [round(os.getloadavg()[0], 1)]
        found["measured"][part] = PARTS[part](*given)
        machine = found["measured"].setdefault("machine", {})
        machine["cores"] = os.cpu_count()
        machine.setdefault("loads", {})[part] = [*loads, round(os.getloadavg()[0], 1)]
        if set(PARTS) <= set(found["measured"]):
            derived = coefficients(found["measured"])
            found["coefficients"] = {name: vars(each) for name, each in derived.items()}
        target.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs="?", const=",".join(PARTS), metavar="PART,…")
    parser.add_argument("--images", type=Path, help="folder with masks, for rows")
    given = parser.parse_args()
    if given.measure:
        remeasure(given.measure.split(","), given.images, ROOT / FIGURES)
    found = json.loads((ROOT / FIGURES).read_text())
    if missing := [part for part in PARTS if part not in found["measured"]]:
        raise SystemExit(f"no page yet, to be measured: {', '.join(missing)}")
    (ROOT / PAGE).parent.mkdir(exist_ok=True)
    (ROOT / PAGE).write_text(render(found))
    draw(found["measured"]["commits"], ROOT / PLOT)


if __name__ == "__main__":
    main()
