"""Calibration charts of the HTML report, as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from eagle_spark.metrics.calibration import ReliabilityCurve, RiskCoverage
from eagle_spark.report.curves import (
    GRID_COLOUR,
    MUTED_COLOUR,
    TEXT_COLOUR,
    TRAIN_COLOUR,
    VALIDATION_COLOUR,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.6, 3.6  # inches


def draw_reliability(before: ReliabilityCurve, after: ReliabilityCurve) -> str:
    """Return a reliability diagram: accuracy against confidence before and after calibration."""
    figure, axes = _new_axes("confidence", "accuracy")
    axes.plot(
        *([0, 1], [0, 1]),
        color=MUTED_COLOUR,
        linewidth=1,
        linestyle=(0, (3, 3)),
        label="perfect calibration",
    )
    for curve, label, colour, marker in (
        (before, "before temperature scaling", VALIDATION_COLOUR, "s"),
        (after, "after temperature scaling", TRAIN_COLOUR, "o"),
    ):
        max_count = max(curve.images, default=1)
        sizes = [12 + 90 * count / max_count for count in curve.images]
        axes.plot(curve.confidence, curve.accuracy, color=colour, linewidth=1.2, alpha=0.6)
        axes.scatter(
            *(curve.confidence, curve.accuracy),
            s=sizes,
            color=colour,
            marker=marker,
            label=label,
            edgecolor="white",
            linewidth=0.6,
            zorder=3,
        )
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return _render_svg(figure)


def draw_risk_coverage(curves: Mapping[str, RiskCoverage], target_risk: float) -> str:
    """Return a risk-coverage chart with one curve per split.

    Args:
        curves: split -> curve.
        target_risk: risk of the dashed horizontal line.
    """
    figure, axes = _new_axes(
        "coverage (share of images without review)", "risk (share of wrong predictions)"
    )
    colours = (VALIDATION_COLOUR, TRAIN_COLOUR)
    for (split, curve), colour in zip(curves.items(), colours, strict=False):
        axes.plot(curve.coverage, curve.risk, color=colour, linewidth=1.6, label=split)
    axes.axhline(target_risk, color=MUTED_COLOUR, linewidth=1, linestyle=(0, (3, 3)))
    axes.text(0.01, target_risk, f" {target_risk:.2f}", color=MUTED_COLOUR, fontsize=8, va="bottom")
    max_risk = max((max(curve.risk, default=0.0) for curve in curves.values()), default=0.0)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, max(1.15 * max_risk, 2 * target_risk))
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return _render_svg(figure)


def _new_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=MUTED_COLOUR, fontsize=9)
    axes.set_ylabel(y_label, color=MUTED_COLOUR, fontsize=9)
    axes.grid(color=GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOUR, length=0, labelsize=8.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("bottom", "left"))
        spine.set_color(GRID_COLOUR)
    return figure, axes


def _render_svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"', 'class="chart"', text[text.index("<svg") :]
    )
