"""The report's own charts, as SVG to stand inside the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eagle_spark.report.curves import FAINT, GRID, INK, TRAIN, VALIDATION

WIDTH, HEIGHT = 4.6, 3.6  # inches


def reliability(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> str:
    """Draw accuracy against confidence, before and after calibration."""
    figure, axes = _start("confidence", "accuracy")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (3, 3)), label="as it should")
    for curve, name, colour, marker in (
        (before, "before", VALIDATION, "s"),
        (after, "after", TRAIN, "o"),
    ):
        most = max(curve["images"], default=1)
        sizes = [12 + 90 * count / most for count in curve["images"]]
        axes.plot(curve["confidence"], curve["accuracy"], color=colour, linewidth=1.2, alpha=0.6)
        axes.scatter(
            *(curve["confidence"], curve["accuracy"]),
            s=sizes,
            color=colour,
            marker=marker,
            label=name,
            edgecolor="white",
            linewidth=0.6,
            zorder=3,
        )
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return _svg(figure)


def risk_coverage(curves: Mapping[str, Mapping[str, Sequence[float]]], wanted: float) -> str:
    """Draw the share that is wrong among the most confident share of images, by split."""
    figure, axes = _start("share of images that need no review", "share of them that is wrong")
    for (name, curve), colour in zip(curves.items(), (VALIDATION, TRAIN), strict=False):
        axes.plot(curve["coverage"], curve["risk"], color=colour, linewidth=1.6, label=name)
    axes.axhline(wanted, color=FAINT, linewidth=1, linestyle=(0, (3, 3)))
    axes.text(0.01, wanted, f" {wanted:.2f}", color=FAINT, fontsize=8, va="bottom")
    highest = max((max(curve["risk"], default=0.0) for curve in curves.values()), default=0.0)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, max(1.15 * highest, 2 * wanted))
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return _svg(figure)


def _start(across: str, up: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(across, color=FAINT, fontsize=9)
    axes.set_ylabel(up, color=FAINT, fontsize=9)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, labelsize=8.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("bottom", "left"))
        spine.set_color(GRID)
    return figure, axes


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"', 'class="chart"', text[text.index("<svg") :]
    )
