"""The eight plots of a training: `eagle-plots LOG [--out DIR]`.

LOG is the `training_log.csv` of a model folder, one row per epoch and rank. What all ranks share is
drawn as one line for training and one for validation, what each rank has for itself as one line per
rank.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagle_spark.errors import EagleError, InputError, OutputError
from eagle_spark.io import locate
from eagle_spark.options import Parser, local_path

MAX_LOG_BYTES = 64 * 2**20
MARKED_EPOCHS = 40  # up to so many epochs each has a marker
SIZE, DPI = (8.0, 4.8), 150  # inches
NOTE = "eagle_spark. Research use only, not a medical device."

INK, FAINT, GRID = "#1f2430", "#6b7280", "#e3e6eb"
TRAIN, VALIDATION = "#1f5fa8", "#d1660a"
RANKS = ("#1f5fa8", "#d1660a", "#2a8a57", "#8a3fa0", "#b8860b", "#c0392b", "#20808d", "#6b7280")
MARKERS = "osD^vp*h"


@dataclass(frozen=True)
class Curve:
    """One plot: its file, what it shows, and of which columns.

    Attributes:
        column: of the log, and of its `val_` twin unless `per_rank`.
        unit: text of the y axis.
        note: what the figure is, in one line.
        per_rank: a line for each rank instead of one for training and one for validation.
        divide: what a value is divided by to be of that unit.
        limits: of the y axis; None is left to the values.
        missing: what stands there when no value was measured.
    """

    name: str
    title: str
    column: str
    unit: str
    note: str
    per_rank: bool = False
    divide: float = 1.0
    limits: tuple[float | None, float | None] = (0.0, None)
    missing: str = "not measured"


NO_GPU = "not measured: no GPU"
CURVES = (
    Curve(
        *("accuracy", "Accuracy", "accuracy", "share of images, 0 to 1"),
        "images whose class is right; higher is better",
        limits=(None, None),
    ),
    Curve(
        *("loss", "Loss", "loss", "loss, no unit"),
        "classification and segmentation loss, summed; lower is better",
    ),
    Curve(
        *("segmentation_loss", "Segmentation loss", "segmentation_loss", "loss, no unit"),
        "cross-entropy of the lung mask plus one minus soft Dice; lower is better",
    ),
    Curve(
        *("epoch_time", "Time of an epoch", "seconds", "seconds"),
        "training alone, without validation and checkpoint",
        per_rank=True,
    ),
    Curve(
        *("cpu", "CPU", "cpu_percent", "% of one core"),
        "mean over the epoch, of the rank's process; 200 % are two busy cores",
        per_rank=True,
    ),
    Curve(
        *("ram", "RAM", "ram", "GB"),
        "resident memory of the rank's process at the end of the epoch",
        per_rank=True,
        divide=1e9,
    ),
    Curve(
        *("gpu", "GPU", "gpu_percent", "%"),
        "load of the GPUs of the rank's machine at the end of the epoch",
        per_rank=True,
        limits=(0.0, 100.0),
        missing=NO_GPU,
    ),
    Curve(
        *("gpu_memory", "GPU memory", "gpu_memory_percent", "% of the GPU's memory"),
        "in use on the GPUs of the rank's machine at the end of the epoch",
        per_rank=True,
        limits=(0.0, 100.0),
        missing=NO_GPU,
    ),
)
COLUMNS = ("epoch", "rank", *(curve.column for curve in CURVES))


@dataclass(frozen=True)
class TrainingLog:
    """A training log in memory.

    Attributes:
        epochs: in order.
        values: rank -> column -> one value per epoch; NaN where there is none.
    """

    epochs: tuple[int, ...]
    values: Mapping[int, Mapping[str, Sequence[float]]]

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(self.values)


def read_log(uri: str) -> TrainingLog:
    """Read a `training_log.csv`.

    Raises:
        InputError: when it cannot be read, is no CSV, or lacks a column; names file and column.
    """
    storage, path = locate(uri)
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
    """Return the log that the bytes of a CSV file hold; `name` is for errors, see `read_log`."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: not a CSV file: {error}") from error
    if missing := [column for column in COLUMNS if column not in header]:
        raise InputError(f"{name}: not a training log: columns are missing: {', '.join(missing)}")
    if not rows:
        raise InputError(f"{name}: holds no epoch, only the line of column names")
    cells: dict[tuple[int, int], dict[str, float]] = {}
    for line, row in rows:
        if None in row or None in row.values():
            raise InputError(f"{name}, line {line}: wanted {len(header)} columns, as in line 1")
        found = {
            column: _number(row[column], column, f"{name}, line {line}")
            for column in (*COLUMNS, *(f"val_{column}" for column in COLUMNS))
            if column in header
        }
        epoch, rank = (_whole(found[key], key, f"{name}, line {line}") for key in ("epoch", "rank"))
        if (epoch, rank) in cells:
            raise InputError(
                f"{name}, line {line}: epoch {epoch} of rank {rank} stands there twice"
            )
        cells[epoch, rank] = found
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


def _number(text: str, column: str, place: str) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError as error:
        raise InputError(f"{place}, column {column}: wanted a number, got {text!r}") from error


def _whole(value: float, column: str, place: str) -> int:
    if not (value >= 0 and value.is_integer()):
        raise InputError(f"{place}, column {column}: wanted a whole number, got {value:g}")
    return int(value)


@dataclass(frozen=True)
class Line:
    """One line of a plot; `values` are of the plot's unit, NaN where there is none."""

    label: str
    values: Sequence[float]
    colour: str
    marker: str


def lines_of(curve: Curve, log: TrainingLog) -> list[Line]:
    """Return the lines that hold at least one value."""
    if curve.per_rank:
        found = [
            Line(
                f"rank {rank}",
                [value / curve.divide for value in log.values[rank][curve.column]],
                RANKS[number % len(RANKS)],
                MARKERS[number % len(MARKERS)],
            )
            for number, rank in enumerate(log.ranks)
        ]
    else:
        shared = log.values[log.ranks[0]]  # the same on all ranks
        kinds = (("training", "", TRAIN, "o"), ("validation", "val_", VALIDATION, "s"))
        found = [
            Line(label, shared[prefix + curve.column], colour, marker)
            for label, prefix, colour, marker in kinds
            if prefix + curve.column in shared
        ]
    return [line for line in found if any(math.isfinite(value) for value in line.values)]


def draw_curve(curve: Curve, log: TrainingLog) -> bytes:
    """Return the PNG of one plot."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = lines_of(curve, log)
    with rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK}):
        figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.095, 0.15, 0.875, 0.65))
        figure.text(0.02, 0.925, curve.title, fontsize=15, fontweight="bold")
        figure.text(0.02, 0.87, curve.note, fontsize=10, color=FAINT)
        figure.text(0.02, 0.025, NOTE, fontsize=7.5, color=FAINT)
        size = f"{_count(len(log.epochs), 'epoch')}, {_count(len(log.ranks), 'rank')}"
        figure.text(0.98, 0.025, size, fontsize=7.5, color=FAINT, ha="right")
        if lines:
            _draw_lines(axes, curve, log.epochs, lines)
        else:
            axes.set_axis_off()
            axes.text(
                *(0.5, 0.5, curve.missing),
                transform=axes.transAxes,
                ha="center",
                va="center",
                fontsize=14,
                color=FAINT,
            )
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _draw_lines(axes: Any, curve: Curve, epochs: Sequence[int], lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    crowd = len(lines) > len(RANKS)
    marked = (len(epochs) <= MARKED_EPOCHS and not crowd) or any(
        _lonely(line.values) for line in lines
    )
    big = len(epochs) <= 10 and not crowd
    for number, line in enumerate(lines):
        # Ranks hardly differ: the first lies below, and a little wider, so that each one shows.
        below = len(lines) - 1 - number if curve.per_rank and len(lines) <= 3 else 0
        axes.plot(
            *(epochs, line.values),
            label=line.label,
            color=RANKS[0] if crowd else line.colour,
            alpha=0.6 if crowd else 1.0,
            linewidth=(1.8 if marked else 1.3) + 0.6 * below,
            marker=line.marker if marked else None,
            markersize=(7 if big else 4) + (2.5 if big else 0.8) * below,
            markeredgecolor="white" if big else None,
            markeredgewidth=0.8 if big else 0.0,
            zorder=3 + number,
        )
    room = max(0.5, 0.02 * (epochs[-1] - epochs[0]))
    axes.set_xlim(epochs[0] - room, epochs[-1] + room)
    axes.set_xticks(_ticks(epochs[0], epochs[-1]))
    axes.set_ylim(*_y_limits(curve, lines))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    frame(axes, "epoch", curve.unit)
    handles, labels = axes.get_legend_handles_labels()
    if crowd:
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


def frame(axes: Any, across: str, up: str) -> None:
    """Name both axes, and draw the one below and faint lines behind the data."""
    axes.set_xlabel(across, color=FAINT)
    axes.set_ylabel(up, color=FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _ticks(first: int, last: int) -> list[int]:
    """Return at most about 12 epochs to be named: the first, and round ones."""
    step = next(n * 10**k for k in range(9) for n in (1, 2, 5) if (last - first) / n / 10**k <= 11)
    return [first, *(epoch for epoch in range(0, last + 1, step) if epoch > first + 0.4 * step)]


def _lonely(values: Sequence[float]) -> bool:
    """Whether a value has none beside it, so that a line without markers would not show it."""
    known = [False, *(math.isfinite(value) for value in values), False]
    return any(
        here and not before and not after
        for before, here, after in zip(known, known[1:], known[2:], strict=False)
    )


def _y_limits(curve: Curve, lines: Sequence[Line]) -> tuple[float, float]:
    """Return limits with some room; an accuracy's room ends at 1."""
    values = [value for line in lines for value in line.values if math.isfinite(value)]
    low, high = curve.limits
    least, most = min(values), max(values)
    if low is None:  # a share
        room = max(0.1 * (most - least), 0.01)
        return max(least - room, -0.01), min(most + room, 1.0 + room / 3)
    if high is None:
        return min(low, least), most * 1.12 if most > 0 else 1.0
    return low, max(high, most)


def draw_curves(log: TrainingLog) -> dict[str, bytes]:
    """Return the eight plots as PNG, by the names of their files."""
    return {f"{curve.name}.png": draw_curve(curve, log) for curve in CURVES}


def write_curves(log: TrainingLog, folder: Path) -> list[Path]:
    """Write the eight plots into a folder, which is made where it is missing; return the files.

    Raises:
        OutputError: when the folder cannot be written to.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in draw_curves(log).items():
            (folder / name).write_bytes(picture)
            written.append(folder / name)
    except OSError as error:
        raise OutputError(f"--out {folder} cannot be written: {error}") from error
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the plots; 2 and one line on standard error where log or folder have to be mended."""
    parser = Parser(prog="eagle-plots", description="Draw a training's log.")
    parser.add_argument("log", metavar="LOG", help="training_log.csv of a model folder, or a URI")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=local_path,
        default=Path("plots"),
        help="folder (default plots)",
    )
    given = parser.parse_args(argv)
    try:
        for path in write_curves(read_log(given.log), given.out):
            print(path)
    except EagleError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
