"""The eight plots of a training log: `eagle plots LOG [`out` DIR]`.

LOG is the `training_log.csv` of a model folder, one row per epoch and rank. Metrics that all ranks
share are drawn as one line for training and one for validation, metrics of a rank as one line per
rank.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eagle_spark.errors import InputError, OutputError
from eagle_spark.io import resolve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LOG_BYTES = 64 * 2**20
MAX_MARKED_EPOCHS = 40  # longer logs are drawn without markers
FIGURE_SIZE, DPI = (8.0, 4.8), 150  # inches
DISCLAIMER = "eagle_spark. Research use only, not a medical device."

TEXT_COLOUR, MUTED_COLOUR, GRID_COLOUR = "#1f2430", "#6b7280", "#e3e6eb"
TRAIN_COLOUR, VALIDATION_COLOUR = "#1f5fa8", "#d1660a"
RANK_COLOURS = (
    *("#1f5fa8", "#d1660a", "#2a8a57", "#8a3fa0"),
    *("#b8860b", "#c0392b", "#20808d", "#6b7280"),
)
RANK_MARKERS = "osD^vp*h"


@dataclass(frozen=True)
class Curve:
    """One plot.

    Attributes:
        name: file name without its ending.
        column: column of the log; the validation values are in its `val_` twin unless `per_rank`.
        unit: label of the y axis.
        note: definition of the metric, in one line.
        per_rank: one line per rank instead of one for training and one for validation.
        divisor: converts values of the log to `unit`.
        y_limits: limits of the y axis; None derives a limit from the values.
        missing_text: text of a plot without values.
    """

    name: str
    title: str
    column: str
    unit: str
    note: str
    per_rank: bool = False
    divisor: float = 1.0
    y_limits: tuple[float | None, float | None] = (0.0, None)
    missing_text: str = "not measured"


NO_GPU = "not measured: no GPU"
CURVES = (
    Curve(
        *("accuracy", "Accuracy", "accuracy", "share of images, 0 to 1"),
        "share of images classified correctly; higher is better",
        y_limits=(None, None),
    ),
    Curve(
        *("loss", "Loss", "loss", "loss, no unit"),
        "sum of classification and segmentation loss; lower is better",
    ),
    Curve(
        *("segmentation_loss", "Segmentation loss", "segmentation_loss", "loss, no unit"),
        "cross-entropy of the lung mask plus one minus soft Dice; lower is better",
    ),
    Curve(
        *("epoch_time", "Epoch time", "seconds", "seconds"),
        "training steps only, without validation and checkpoint",
        per_rank=True,
    ),
    Curve(
        *("cpu", "CPU", "cpu_percent", "% of one core"),
        "mean CPU utilisation of the rank's process; 200 % equals two fully used cores",
        per_rank=True,
    ),
    Curve(
        *("ram", "RAM", "ram", "GB"),
        "resident memory of the rank's process at the end of the epoch",
        per_rank=True,
        divisor=1e9,
    ),
    Curve(
        *("gpu", "GPU", "gpu_percent", "%"),
        "utilisation of the GPUs of the rank's machine at the end of the epoch",
        per_rank=True,
        y_limits=(0.0, 100.0),
        missing_text=NO_GPU,
    ),
    Curve(
        *("gpu_memory", "GPU memory", "gpu_memory_percent", "% of the GPU's memory"),
        "memory in use on the GPUs of the rank's machine at the end of the epoch",
        per_rank=True,
        y_limits=(0.0, 100.0),
        missing_text=NO_GPU,
    ),
)
COLUMNS = ("epoch", "rank", *(curve.column for curve in CURVES))


@dataclass(frozen=True)
class TrainingLog:
    """A training log in memory.

    Attributes:
        epochs: in ascending order.
        values: rank -> column -> one value per epoch; NaN for a missing value.
    """

    epochs: tuple[int, ...]
    values: Mapping[int, Mapping[str, Sequence[float]]]

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(self.values)


def read_log(uri: str) -> TrainingLog:
    """Read a `training_log.csv`.

    Raises:
        InputError: when the file is unreadable, no CSV, or without a column; names file and column.
    """
    storage, path = resolve(uri)
    try:
        data = storage.read(path, MAX_LOG_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {uri}") from error
    except IsADirectoryError as error:
        raise InputError(f"{uri} is a folder, wanted a training_log.csv") from error
    except OSError as error:
        raise InputError(f"{uri} cannot be read: {error}") from error
    if len(data) > MAX_LOG_BYTES:
        raise InputError(f"{uri}: not a training log: larger than {MAX_LOG_BYTES >> 20} MiB")
    return parse_log(data, uri)


def parse_log(data: bytes, name: str) -> TrainingLog:
    """Parse the bytes of a `training_log.csv`; `name` is for errors, see `read_log`."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: not a CSV file: {error}") from error
    if missing := [column for column in COLUMNS if column not in header]:
        raise InputError(f"{name}: not a training log: columns are missing: {', '.join(missing)}")
    if not rows:
        raise InputError(f"{name}: contains no epoch, only the header line")
    cells: dict[tuple[int, int], dict[str, float]] = {}
    for line, row in rows:
        location = f"{name}, line {line}"
        if None in row or None in row.values():
            raise InputError(f"{location}: wanted {len(header)} columns, as in line 1")
        numbers = {
            column: _parse_number(row[column], column, location)
            for column in (*COLUMNS, *(f"val_{column}" for column in COLUMNS))
            if column in header
        }
        epoch, rank = (_to_integer(numbers[key], key, location) for key in ("epoch", "rank"))
        if (epoch, rank) in cells:
            raise InputError(f"{location}: duplicate row of epoch {epoch}, rank {rank}")
        cells[epoch, rank] = numbers
    epochs = sorted({epoch for epoch, _ in cells})
    columns = [column for column in header if column in next(iter(cells.values()))]
    values = {
        rank: {
            column: [cells.get((epoch, rank), {}).get(column, math.nan) for epoch in epochs]
            for column in columns
        }
        for rank in sorted({rank for _, rank in cells})
    }
    return TrainingLog(tuple(epochs), values)


def _parse_number(text: str, column: str, location: str) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError as error:
        raise InputError(f"{location}, column {column}: wanted a number, got {text!r}") from error


def _to_integer(value: float, column: str, location: str) -> int:
    if not (value >= 0 and value.is_integer()):
        raise InputError(f"{location}, column {column}: wanted a whole number, got {value:g}")
    return int(value)


@dataclass(frozen=True)
class Line:
    """One line of a plot; `values` in the plot's unit, NaN for a missing value."""

    label: str
    values: Sequence[float]
    colour: str
    marker: str


def select_lines(curve: Curve, log: TrainingLog) -> list[Line]:
    """Return the lines of a plot that have at least one finite value."""
    if curve.per_rank:
        lines = [
            Line(
                f"rank {rank}",
                [value / curve.divisor for value in log.values[rank][curve.column]],
                RANK_COLOURS[number % len(RANK_COLOURS)],
                RANK_MARKERS[number % len(RANK_MARKERS)],
            )
            for number, rank in enumerate(log.ranks)
        ]
    else:
        shared = log.values[log.ranks[0]]  # the same on all ranks
        lines = [
            Line(label, shared[column], colour, marker)
            for label, column, colour, marker in (
                ("training", curve.column, TRAIN_COLOUR, "o"),
                ("validation", f"val_{curve.column}", VALIDATION_COLOUR, "s"),
            )
            if column in shared
        ]
    return [line for line in lines if any(math.isfinite(value) for value in line.values)]


def draw_curve(curve: Curve, log: TrainingLog) -> bytes:
    """Return the PNG of one plot."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = select_lines(curve, log)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": TEXT_COLOUR}):
        figure = Figure(figsize=FIGURE_SIZE, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.095, 0.15, 0.875, 0.65))
        figure.text(0.02, 0.925, curve.title, fontsize=15, fontweight="bold")
        figure.text(0.02, 0.87, curve.note, fontsize=10, color=MUTED_COLOUR)
        figure.text(0.02, 0.025, DISCLAIMER, fontsize=7.5, color=MUTED_COLOUR)
        size = f"{_count(len(log.epochs), 'epoch')}, {_count(len(log.ranks), 'rank')}"
        figure.text(0.98, 0.025, size, fontsize=7.5, color=MUTED_COLOUR, ha="right")
        if lines:
            _draw_lines(axes, curve, log.epochs, lines)
        else:
            axes.set_axis_off()
            axes.text(
                *(0.5, 0.5, curve.missing_text),
                transform=axes.transAxes,
                ha="center",
                va="center",
                fontsize=14,
                color=MUTED_COLOUR,
            )
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _draw_lines(axes: Axes, curve: Curve, epochs: Sequence[int], lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    crowded = len(lines) > len(RANK_COLOURS)
    marked = (len(epochs) <= MAX_MARKED_EPOCHS and not crowded) or any(
        _has_isolated_value(line.values) for line in lines
    )
    large = len(epochs) <= 10 and not crowded
    for number, line in enumerate(lines):
        # Ranks hardly differ: lines below others are a little wider, so that each one is visible.
        covering = len(lines) - 1 - number if curve.per_rank and len(lines) <= 3 else 0
        axes.plot(
            *(epochs, line.values),
            label=line.label,
            color=RANK_COLOURS[0] if crowded else line.colour,
            alpha=0.6 if crowded else 1.0,
            linewidth=(1.8 if marked else 1.3) + 0.6 * covering,
            marker=line.marker if marked else None,
            markersize=(7 if large else 4) + (2.5 if large else 0.8) * covering,
            markeredgecolor="white" if large else None,
            markeredgewidth=0.8 if large else 0.0,
            zorder=3 + number,
        )
    margin = max(0.5, 0.02 * (epochs[-1] - epochs[0]))
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    axes.set_xticks(_epoch_ticks(epochs[0], epochs[-1]))
    axes.set_ylim(*_y_limits(curve, lines))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    style_axes(axes, "epoch", curve.unit)
    handles, labels = axes.get_legend_handles_labels()
    if crowded:
        handles, labels = handles[:1], [f"{len(lines)} ranks, one line each"]
    axes.figure.legend(
        *(handles, labels),
        loc="upper right",
        bbox_to_anchor=(0.985, 0.985),
        ncols=4,
        frameon=False,
        fontsize=9.5,
        handlelength=1.6,
        columnspacing=1.4,
        borderaxespad=0.0,
    )


def style_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Label both axes; draw the x axis and light grid lines behind the data."""
    axes.set_xlabel(x_label, color=MUTED_COLOUR)
    axes.set_ylabel(y_label, color=MUTED_COLOUR)
    axes.grid(axis="y", color=GRID_COLOUR, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED_COLOUR, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID_COLOUR)


def _epoch_ticks(first: int, last: int) -> list[int]:
    """Return at most about 12 tick positions: the first epoch and round ones."""
    step = next(n * 10**k for k in range(9) for n in (1, 2, 5) if (last - first) / n / 10**k <= 11)
    return [first, *(epoch for epoch in range(0, last + 1, step) if epoch > first + 0.4 * step)]


def _has_isolated_value(values: Sequence[float]) -> bool:
    """Whether a value has no finite neighbour: a line without markers does not show it."""
    finite = [False, *(math.isfinite(value) for value in values), False]
    return any(
        current and not previous and not following
        for previous, current, following in zip(finite, finite[1:], finite[2:], strict=False)
    )


def _y_limits(curve: Curve, lines: Sequence[Line]) -> tuple[float, float]:
    """Return y limits with a margin; the margin of an accuracy ends near 1."""
    values = [value for line in lines for value in line.values if math.isfinite(value)]
    low, high = curve.y_limits
    minimum, maximum = min(values), max(values)
    if low is None:  # a share
        margin = max(0.1 * (maximum - minimum), 0.01)
        return max(minimum - margin, -0.01), min(maximum + margin, 1.0 + margin / 3)
    if high is None:
        return min(low, minimum), maximum * 1.12 if maximum > 0 else 1.0
    return low, max(high, maximum)


def draw_curves(log: TrainingLog) -> dict[str, bytes]:
    """Return the eight plots, file name -> PNG."""
    return {f"{curve.name}.png": draw_curve(curve, log) for curve in CURVES}


def write_curves(log: TrainingLog, folder: Path) -> list[Path]:
    """Write the eight plots into `folder`, create it if necessary, and return the files.

    Raises:
        OutputError: when the folder is not writable.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, png in draw_curves(log).items():
            (folder / name).write_bytes(png)
            written.append(folder / name)
    except OSError as error:
        raise OutputError(f"`out` {folder} cannot be written: {error}") from error
    return written
