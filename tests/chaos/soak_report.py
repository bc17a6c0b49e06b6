"""The page of a soak, its plots, and what of it is not flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagle_spark.model.card import table
from eagle_spark.report.curves import DPI, FAINT, INK, NOTE, RANKS, SIZE, frame

MEMORY, RATE, PAGE = "soak-memory.png", "soak-rate.png", "soak.md"
JAVA, SPEED = "driver, Java", "images a second"
# Percent in 10,000 images; half of it was seen of workers that are killed and begin anew. A leak of
# 5 kB in an image would be 4 percent of two workers.
BOUND = 2.0
# Java collects late and grows until its heap, 2 GiB by conf/spark-defaults.conf, is full; beside it
# are 0.5 GB, as `benchmarks.inventory` saw.
JAVA_GB = 2 * 2**30 / 1e9 + 0.5


@dataclass(frozen=True)
class Line:
    """One line of a plot: values at seconds from the start of the job.

    Attributes:
        steps: whether a value holds from its second to the next.
    """

    label: str
    seconds: Sequence[float]
    values: Sequence[float]
    steps: bool = False


def draw(
    path: Path, title: str, note: str, unit: str, lines: Sequence[Line], kills: Sequence[float]
) -> None:
    """Write a plot as PNG; each kill is a line from bottom to top."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK}):
        figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.095, 0.15, 0.875, 0.6))
        figure.text(0.02, 0.925, title, fontsize=15, fontweight="bold")
        figure.text(0.02, 0.87, note, fontsize=10, color=FAINT)
        figure.text(0.02, 0.025, NOTE, fontsize=7.5, color=FAINT)
        for number, line in enumerate(lines):
            axes.plot(
                [second / 60 for second in line.seconds],
                line.values,
                label=line.label,
                color=RANKS[number],
                linewidth=1.5,
                drawstyle="steps-post" if line.steps else "default",
                zorder=3,
            )
        for number, second in enumerate(kills):
            axes.axvline(
                second / 60,
                color=FAINT,
                linewidth=0.8,
                linestyle=(0, (2, 3)),
                label=None if number else "a worker is killed",
            )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        frame(axes, "minutes from the start of the job", unit)
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="upper left",
            bbox_to_anchor=(0.01, 0.85),
            ncols=5,
            frameon=False,
            fontsize=9,
            handlelength=1.6,
            columnspacing=1.4,
        )
        figure.savefig(path, format="png", dpi=DPI)


def uneven(found: Mapping[str, Any]) -> list[str]:
    """Return what is not flat: slopes beyond `BOUND` for the worse, and Java beyond `JAVA_GB`."""
    told = []
    for name, row in found["flat"].items():
        if row is None:
            told.append(f"{name}: a quarter of the images was not seen")
        elif name == JAVA:
            if (most := found["peak_gb"][JAVA]) > JAVA_GB:
                told.append(f"{name}: {most:.2f} GB, more than {JAVA_GB:.2f}")
        elif (-row["slope"] if name == SPEED else row["slope"]) > BOUND:
            told.append(f"{name}: {row['slope']:+.2f} percent in 10,000 images")
    return told


def page(found: Mapping[str, Any]) -> str:
    """Return the page of a soak's figures as Markdown."""
    rows = {
        "written": "count",
        "listed": "listed",
        "scored": "scored",
        "rejected": "rejected",
        "broken on purpose": "broken",
        "of these rejected for the reason expected": "as_expected",
        "rows of the table": "rows",
        "files that the rows are of": "files",
    }
    sums = table(("", "files"), [(name, f"{found[key]:,}") for name, key in rows.items()])
    reasons = ", ".join(f"`{name}` {count:,}" for name, count in found["by_reason"].items())
    flat = table(
        ("", "median", "percent in 10,000 images", "last quarter to second"),
        [
            (name, *(f"{row['median']:.4g}", f"{row['slope']:+.2f}", f"{row['ratio']:.3f}"))
            if row
            else (name, "-", "-", "-")
            for name, row in found["flat"].items()
        ],
    )
    verdict = "All sums balance" if found["balanced"] else "**The sums do not balance**"
    steady = f"**Not flat**: {'; '.join(told)}" if (told := uneven(found)) else "All is flat"
    return f"""# Soak

By `python -m tests.chaos.soak --count {found["count"]} --seed {found["seed"]} --kill-every \
{found["kill_every"]:g}`: {found["count"]:,} images scored by one run of `score` on \
{found["cores"]} cores (`{found["engine"]}`), chunks of {found["chunk"]:,}, in \
{found["seconds"]:,.0f} s. {found["kills"]} times SIGKILL hit a Python worker, drawn from those \
there; at least {found["lost_tasks"]} tasks were lost by it and done again. The files are those of \
a folder, again and again, with a number behind their end; {found["broken"]:,} are broken in one \
of four ways. Research use only.

{verdict}. Reasons: {reasons}.

{sums}

Memory is resident (GB), twice a second; pages that workers share count for each. The line is that \
of Theil and Sen over all but the first tenth of the images. Of the workers one lived for \
{found["longest_worker_seconds"]:,.0f} s, the others less: what grows more slowly does not show.

{flat}

{steady}. Flat is: in 10,000 images the rate falls, and memory grows, by {BOUND:g} percent at \
most; Java, which grows until its heap of 2 GiB is full, takes {JAVA_GB:.2f} GB at most (here \
{found["peak_gb"][JAVA]:.2f}).

![memory](soak-memory.png)

![rate](soak-rate.png)
"""
