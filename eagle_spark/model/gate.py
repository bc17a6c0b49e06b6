"""The gate that each engine must pass against Keras on golden images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.scores import dice
from eagle_spark.model.engines import ENGINES, Engine, Predictions
from eagle_spark.model.metadata import GOLDEN

BATCHES = (1, 7, 32, 64)
LEAST_IMAGES = 16  # that each of these sizes is tried with; the largest takes all
TOLERANCE = 1e-3
DICE_FLOOR = 0.999
# Of an engine of lower precision.
DICE_LOSS = 0.002
CHANCE = 0.05  # how likely chance alone makes so many labels worse
CONFIDENCE = 0.95  # of the interval of a class' recall


def write_golden(folder: Path, pixels: NDArray[np.uint8], reference: Engine) -> Predictions:
    """Keep `pixels` (n, size, size) and the reference's outputs on them; return the outputs."""
    wanted = reference.predict(pixels)
    label, mask, statistics = wanted
    np.savez_compressed(
        folder / GOLDEN,
        pixels=pixels,
        label=label,
        mask=mask.astype(np.float16),
        statistics=statistics,
    )
    return wanted


def run_gate(
    folder: Path,
    pixels: NDArray[np.uint8],
    wanted: Predictions,
    threshold: float,
    threads: int,
    reference: Engine,
) -> dict[str, dict[str, Any]]:
    """Judge the float32 engines that a model folder has; returns name -> what `judge` gives.

    Args:
        reference: the engine of that name, which need not be loaded again.
    """
    engines = {
        name: reference if name == reference.name else kind.load(folder, threads)
        for name, kind in ENGINES.items()
        if kind.precision == "f32" and (folder / kind.file).is_file()
    }
    return {name: judge(engine, pixels, wanted, threshold) for name, engine in engines.items()}


def judge(
    engine: Engine, pixels: NDArray[np.uint8], wanted: Predictions, threshold: float
) -> dict[str, Any]:
    """Hold an engine's outputs in batches of 1, 7, 32 and 64 against the wanted ones.

    It passes when all labels are equal, probabilities differ by 1e-3 at most, and statistics by
    1e-3 of the largest one, and each mask has a Dice of 0.999 at least.

    Args:
        pixels: (n, size, size), 64 at most.
        wanted: what the reference says of the same images.

    Returns:
        `passed`, `labels_equal` (smallest share in a batch), `probability_difference` (largest),
        `statistics_difference` (likewise, as a share of the largest statistic), `dice` (smallest),
        `batches`, `precision`.
    """
    label, mask, statistics = wanted
    equal, overlap, apart = 1.0, 1.0, {"probability": 0.0, "statistics": 0.0}
    scale = float(np.abs(statistics).max()) or 1.0
    first = 0
    for size in BATCHES:
        rows = (first + np.arange(-(-max(size, LEAST_IMAGES) // size) * size)) % len(pixels)
        first += len(rows)
        for chunk in np.split(rows, len(rows) // size):
            found = engine.predict(pixels[chunk])
            equal = min(equal, float(np.mean(found.label.argmax(1) == label[chunk].argmax(1))))
            for name, one, other in (
                ("probability", found.label, label[chunk]),
                ("statistics", found.statistics / scale, statistics[chunk] / scale),
            ):
                # A NaN must fail, and would be lost in max().
                most = float(np.nan_to_num(np.abs(one - other), nan=np.inf).max())
                apart[name] = max(apart[name], most)
            likeness = dice(mask[chunk] >= threshold, found.mask >= threshold)
            overlap = min(overlap, float(likeness.min()))
    return {
        "passed": equal == 1.0 and max(apart.values()) <= TOLERANCE and overlap >= DICE_FLOOR,
        "labels_equal": equal,
        **{
            f"{name}_difference": most if np.isfinite(most) else None
            for name, most in apart.items()
        },
        "dice": overlap,
        "batches": list(BATCHES),
        "precision": "f32",
    }


@dataclass(frozen=True)
class Outcomes:
    """What an engine said of labelled images, in one order for all engines.

    Attributes:
        labels: true class numbers `(n,)`.
        predicted: class numbers `(n,)`.
        dice: `(n,)`, NaN where there is no mask.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    dice: NDArray[np.float64]


def judge_quality(reduced: Outcomes, full: Outcomes, precision: str) -> dict[str, Any]:
    """Judge an engine of lower precision by what it is worth, on the validation split.

    It passes when mean Dice is lower by 0.002 at most; when labels that only the full precision had
    right do not outnumber those that only the lower one had by more than chance allows (exact
    one-sided McNemar test, 5 %); and when no class' recall lies below the 95 % Wilson interval of
    the full precision's.

    Returns:
        `passed`, `images`, `labels_equal` (share), `accuracy_difference`, `chance` (p of the test),
        `dice_difference`, `recall_below` (classes), `precision`. Nothing passes without images.
    """
    from scipy.stats import binomtest

    count = len(full.labels)
    if not count:
        return {"passed": False, "images": 0, "precision": precision}
    was, now = full.predicted == full.labels, reduced.predicted == reduced.labels
    lost, won = int(np.sum(was & ~now)), int(np.sum(~was & now))
    chance = binomtest(lost, lost + won, 0.5, "greater").pvalue if lost + won else 1.0
    below = []
    for number in np.unique(full.labels).tolist():
        rows = full.labels == number
        found = binomtest(int(was[rows].sum()), int(rows.sum()))
        if now[rows].mean() < found.proportion_ci(CONFIDENCE, "wilson").low:
            below.append(number)
    masked = ~np.isnan(full.dice)
    loss = float(np.mean(reduced.dice[masked] - full.dice[masked])) if masked.any() else 0.0
    return {
        "passed": loss >= -DICE_LOSS and chance >= CHANCE and not below,
        "images": count,
        "labels_equal": float(np.mean(reduced.predicted == full.predicted)),
        "accuracy_difference": float(now.mean() - was.mean()),
        "chance": float(chance),
        "dice_difference": loss,
        "recall_below": below,
        "precision": precision,
    }
