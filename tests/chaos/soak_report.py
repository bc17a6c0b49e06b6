"""The page of a soak, its plots, and the trends that exceed their bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from eagle_spark.model.card import render_table
from eagle_spark.report.curves import (
    DISCLAIMER,
    DPI,
    FIGURE_SIZE,
    MUTED_COLOUR,
    RANK_COLOURS,
    TEXT_COLOUR,
    style_axes,
)

MEMORY, RATE, PAGE = "soak-memory.png", "soak-rate.png", "soak.md"
JAVA, SPEED = "driver, Java", "images a second"
# Percent per 10,000 images; workers that are killed and restarted showed half of it. A leak of 5 kB
# per image would be 4 percent of two workers.
BOUND = 2.0
# Java collects late and grows until its heap, 2 GiB by conf/spark-defaults.conf, is full; it needs
# 0.5 GB besides, as `benchmarks.inventory` measured.
JAVA_GB = 2 * 2**30 / 1e9 + 0.5
# The answer of a page without problems.
FLAT = (
    f"The rate and the memory of Python stay flat, Java stays within {JAVA_GB:.2f} GB, "
    "and all sums balance."
)


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
    """Write a plot as PNG; each kill is a vertical line."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": TEXT_COLOUR}):
        figure = Figure(figsize=FIGURE_SIZE, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.095, 0.15, 0.875, 0.6))
        figure.text(0.02, 0.925, title, fontsize=15, fontweight="bold")
        figure.text(0.02, 0.87, note, fontsize=10, color=MUTED_COLOUR)
        figure.text(0.02, 0.025, DISCLAIMER, fontsize=7.5, color=MUTED_COLOUR)
        for number, line in enumerate(lines):
            axes.plot(
                [second / 60 for second in line.seconds],
                line.values,
                label=line.label,
                color=RANK_COLOURS[number],
                linewidth=1.5,
                drawstyle="steps-post" if line.steps else "default",
                zorder=3,
            )
        for number, second in enumerate(kills):
            axes.axvline(
                second / 60,
                color=MUTED_COLOUR,
                linewidth=0.8,
                linestyle=(0, (2, 3)),
                label=None if number else "a worker is killed",
            )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        style_axes(axes, "minutes from the start of the job", unit)
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


def uneven(figures: Mapping[str, Any]) -> list[str]:
    """Return the trends that are not flat: slopes above `BOUND`, and Java above `JAVA_GB`."""
    problems = []
    for name, row in figures["flat"].items():
        if row is None:
            problems.append(f"{name}: a quarter of the images was not seen")
        elif name == JAVA:
            if (most := figures["peak_gb"][JAVA]) > JAVA_GB:
                problems.append(f"{name}: {most:.2f} GB, more than {JAVA_GB:.2f}")
        elif (-row["slope"] if name == SPEED else row["slope"]) > BOUND:
            problems.append(f"{name}: {row['slope']:+.2f} percent in 10,000 images")
    return problems


def page(figures: Mapping[str, Any]) -> str:
    """Return the page of a soak as Markdown."""
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
    sums = render_table(("", "files"), [(name, f"{figures[key]:,}") for name, key in rows.items()])
    reasons = ", ".join(f"`{name}` {count:,}" for name, count in figures["by_reason"].items())
    flat = render_table(
        ("", "median", "percent in 10,000 images", "last quarter to second"),
        [
            (name, *(f"{row['median']:.4g}", f"{row['slope']:+.2f}", f"{row['ratio']:.3f}"))
            if row
            else (name, "-", "-", "-")
            for name, row in figures["flat"].items()
        ],
    )
    problems = [] if figures["balanced"] else ["**The sums do not balance**."]
    if slopes := uneven(figures):
        problems.append(f"**Not flat**: {'; '.join(slopes)}.")
    return f"""# Do memory and rate stay flat over {figures["count"]:,} images, with workers killed?

{" ".join(problems) or FLAT}

{flat}

![memory](soak-memory.png)

![rate](soak-rate.png)

Flat is: in 10,000 images the rate falls, and memory grows, by {BOUND:g} percent at most; Java, which grows \
until its heap of 2 GiB is full, takes {JAVA_GB:.2f} GB at most (here {figures["peak_gb"][JAVA]:.2f}). Memory is \
resident (GB), measured twice a second; pages that workers share count for each. The slope is that of Theil \
and Sen over all but the first tenth of the images. One worker lived for \
{figures["longest_worker_seconds"]:,.0f} s, the others less: slower growth is not visible.

## Do the sums balance?

One run of `score` predicts {figures["count"]:,} images in {figures["seconds"]:,.0f} s. SIGKILL hits a Python \
worker {figures["kills"]} times, drawn from the running ones; at least {figures["lost_tasks"]} tasks are lost \
and repeated. The files are those of a folder, repeated with a number after their end; \
{figures["broken"]:,} are broken in one of four ways. Reasons: {reasons}.

{sums}

## How to run it

<!-- not run: needs a checkout of the repository, and takes minutes -->
```bash
python -m tests.chaos.soak --images DIR --model DIR --count {figures["count"]} --seed {figures["seed"]} \
--kill-every {figures["kill_every"]:g}
```

## Date and machine

{date.today()}, {figures["cores"]} cores, engine `{figures["engine"]}`, chunks of {figures["chunk"]:,}. Research use only.
"""  # noqa: E501
