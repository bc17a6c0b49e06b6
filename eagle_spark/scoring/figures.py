"""What an audit and a drift need of the rows of a task: counts that add up over tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eagle_spark.imaging.mask import encode_mask
from eagle_spark.metrics.distribution import Distribution, count_grid_bins, merge_distributions
from eagle_spark.metrics.drift import NUMERIC_COLUMNS
from eagle_spark.model.predictor import REJECTED, SCORED
from eagle_spark.model.review import Flag
from eagle_spark.scoring.diff import StatusCounts

ANY_FLAG = "any"
DISTRIBUTION_COLUMNS = ["label", *NUMERIC_COLUMNS]
FLAG_COUNTS = (ANY_FLAG, *map(str, Flag))
"""The keys of `Figures.flags`."""
MAX_SUM_ERROR = 1e-3  # of the probabilities of a row
_PNG_HEADER = 26  # bytes: signature, and width, height, depth and colour type of the first chunk


@dataclass(frozen=True)
class Rules:
    """What figures depend on, beside the rows. Picklable.

    Attributes:
        size: pixels per side of the model's input.
        edges: numeric column to the ascending edges between its bins; each belongs to the bin above
            it.
    """

    size: int
    edges: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Figures:
    """Counts of rows of `predictions`. Picklable.

    Attributes:
        statuses: rows by status.
        distribution: of the scored rows.
        flags: rows by review reason, and with `ANY_FLAG`.
        bins: numeric column to scored rows in each bin of the rules; a null is in the first one.
        invalid: the first path, in the order of the alphabet, of a row that
            `audit.valid_row_condition` excludes; None without one.
    """

    statuses: StatusCounts
    distribution: Distribution
    flags: Mapping[str, int]
    bins: Mapping[str, Sequence[int]]
    invalid: str | None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(self.statuses.values())


def mask_header(size: int) -> bytes:
    """Return the first bytes of every mask of a model of that input size."""
    return encode_mask(np.zeros((size, size), bool))[:_PNG_HEADER]


def compute_figures(rows: pa.Table, rules: Rules) -> Figures:
    """Return the figures of rows of `predictions`."""
    return merge_figures(_compute_batch(batch, rules) for batch in rows.to_batches())


def merge_figures(parts: Iterable[Figures]) -> Figures:
    """Return the figures of the rows of all parts, which have the same rules."""
    statuses: Counter[str] = Counter()
    distributions: list[Distribution] = []
    flags = dict.fromkeys(FLAG_COUNTS, 0)
    bins: dict[str, list[int]] = {}
    invalid: list[str] = []
    for part in parts:
        statuses.update(part.statuses)
        distributions.append(part.distribution)
        flags = {name: count + part.flags[name] for name, count in flags.items()}
        for name, counts in part.bins.items():
            before = bins.get(name, [0] * len(counts))
            bins[name] = [sum(pair) for pair in zip(before, counts, strict=True)]
        invalid += [part.invalid] if part.invalid is not None else []
    distribution = merge_distributions(distributions)
    return Figures(dict(statuses), distribution, flags, bins, min(invalid, default=None))


def compute_distribution(scored: pa.RecordBatch) -> Distribution:
    """Return the distribution of scored rows, of their label and numeric columns."""
    bins = {
        name: count_grid_bins(name, scored[name].drop_null().to_numpy()) for name in NUMERIC_COLUMNS
    }
    return Distribution(scored.num_rows, _count_values(scored["label"]), bins)


def _compute_batch(rows: pa.RecordBatch, rules: Rules) -> Figures:
    measured = rows.select(DISTRIBUTION_COLUMNS)  # without the masks, which a filter copies
    scored = measured.filter(pc.equal(rows["status"], SCORED))
    invalid = rows["path"].filter(pc.invert(_is_valid(rows, rules.size)))
    return Figures(
        statuses=_count_values(rows["status"]),
        distribution=compute_distribution(scored),
        flags=_count_flags(rows),
        bins={name: _count_bins(scored[name], edges) for name, edges in rules.edges.items()},
        invalid=pc.min(invalid).as_py(),
    )


def _is_valid(rows: pa.RecordBatch, size: int) -> pa.Array:
    """Return whether each row fulfils `audit.valid_row_condition`, without nulls."""
    header = pc.binary_slice(rows["mask"], 0, _PNG_HEADER)
    numbers, values = _flatten(rows["probabilities"], rows["probabilities"].items)
    shares = values.to_numpy(zero_copy_only=False)
    sums = np.bincount(numbers, shares, rows.num_rows)
    scored = [
        pc.equal(rows["status"], SCORED),
        rows["label"].is_valid(),
        rows["needs_review"].is_valid(),
        pc.equal(header, mask_header(size)),
        pc.greater_equal(rows["lung_area"], 0.0),
        pc.less_equal(rows["lung_area"], 1.0),
        pa.array(np.abs(sums - 1) < MAX_SUM_ERROR),
    ]
    rejected = [pc.equal(rows["status"], REJECTED), rows["reason"].is_valid()]
    return pc.or_(*(pc.fill_null(reduce(pc.and_, tests), False) for tests in (scored, rejected)))


def _count_values(values: pa.Array) -> dict[str, int]:
    """Return each value but null with its number."""
    pairs = pc.value_counts(values.drop_null()).to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs}


def _count_flags(rows: pa.RecordBatch) -> dict[str, int]:
    """Return what `monitor.count_flags` returns."""
    reasons = rows["review_reasons"]
    numbers, values = _flatten(reasons, reasons.values)
    counts = {ANY_FLAG: int(pc.sum(rows["needs_review"], min_count=0).as_py())}
    for flag in map(str, Flag):
        is_flag = pc.fill_null(pc.equal(values, flag), False).to_numpy(zero_copy_only=False)
        counts[flag] = len(np.unique(numbers[is_flag]))
    return counts


def _count_bins(values: pa.Array, edges: Sequence[float]) -> list[int]:
    """Return the number of values in each bin; nulls are in the first one."""
    present = values.drop_null().to_numpy()
    # NaN is above all edges, as in Spark.
    bins = np.searchsorted(np.asarray(edges, np.float64), present, side="right")
    counts: list[int] = np.bincount(bins, minlength=len(edges) + 1).tolist()
    counts[0] += values.null_count
    return counts


def _flatten(column: pa.Array, elements: pa.Array) -> tuple[NDArray[np.intp], pa.Array]:
    """Return row number and value of each element of a column of lists or maps.

    Args:
        column: n rows.
        elements: values of the lists, or items of the maps, as Arrow stores them.
    """
    offsets = column.offsets.to_numpy()
    lengths = np.diff(offsets)
    numbers = np.repeat(np.arange(len(column)), lengths)
    used = elements.slice(offsets[0], offsets[-1] - offsets[0])
    # Arrow allows elements below a null.
    is_valid = np.repeat(column.is_valid().to_numpy(zero_copy_only=False), lengths)
    return numbers[is_valid], used.filter(pa.array(is_valid))
