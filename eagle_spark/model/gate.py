"""The gate: each engine must reproduce Keras' outputs on golden images before a model uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.scores import dice
from eagle_spark.model.engines import ENGINES, Engine, ModelOutputs
from eagle_spark.model.metadata import GOLDEN, GateResult

BATCH_SIZES = (1, 7, 32, 64)
MIN_IMAGES = 16  # compared at each batch size; the largest takes all
TOLERANCE = 1e-3
MIN_DICE = 0.999
# Of an engine of lower precision.
MAX_DICE_LOSS = 0.002
SIGNIFICANCE_LEVEL = 0.05  # of the test whether more labels are wrong
CONFIDENCE_LEVEL = 0.95  # of the interval of a class' recall


def write_golden(folder: Path, pixels: NDArray[np.uint8], reference: Engine) -> ModelOutputs:
    """Write golden images and the reference engine's outputs; return the outputs.

    Args:
        pixels: `(n, size, size)`.
    """
    expected = reference.predict(pixels)
    label, mask, statistics = expected
    np.savez_compressed(
        folder / GOLDEN,
        pixels=pixels,
        label=label,
        mask=mask.astype(np.float16),
        statistics=statistics,
    )
    return expected


def run_gate(
    folder: Path,
    pixels: NDArray[np.uint8],
    expected: ModelOutputs,
    threshold: float,
    threads: int,
    reference: Engine,
) -> dict[str, GateResult]:
    """Compare every float32 engine in a model folder with the expected outputs.

    Args:
        reference: a loaded engine, reused under its name.

    Returns:
        Engine -> result of `compare_with_reference`.
    """
    engines = {
        name: reference if name == reference.name else kind.load(folder, threads)
        for name, kind in ENGINES.items()
        if kind.precision == "f32" and (folder / kind.file).is_file()
    }
    return {
        name: compare_with_reference(engine, pixels, expected, threshold)
        for name, engine in engines.items()
    }


def compare_with_reference(
    engine: Engine, pixels: NDArray[np.uint8], expected: ModelOutputs, threshold: float
) -> GateResult:
    """Compare an engine's outputs in batches of 1, 7, 32 and 64 with the expected outputs.

    The engine passes when all labels are equal, probabilities differ by 1e-3 at most, statistics by
    1e-3 of the largest one, and each mask has a Dice of 0.999 at least.

    Args:
        pixels: (n, size, size), 64 at most.
        expected: the reference engine's outputs on the same images.
        threshold: minimum lung probability of a mask's pixels.
    """
    label, mask, statistics = expected
    labels_equal, min_dice, differences = 1.0, 1.0, {"probability": 0.0, "statistics": 0.0}
    scale = float(np.abs(statistics).max()) or 1.0
    first = 0
    for size in BATCH_SIZES:
        rows = (first + np.arange(-(-max(size, MIN_IMAGES) // size) * size)) % len(pixels)
        first += len(rows)
        for batch in np.split(rows, len(rows) // size):
            outputs = engine.predict(pixels[batch])
            same = outputs.label.argmax(1) == label[batch].argmax(1)
            labels_equal = min(labels_equal, float(np.mean(same)))
            for name, actual, reference in (
                ("probability", outputs.label, label[batch]),
                ("statistics", outputs.statistics / scale, statistics[batch] / scale),
            ):
                # A NaN must fail, and would be lost in max().
                largest = float(np.nan_to_num(np.abs(actual - reference), nan=np.inf).max())
                differences[name] = max(differences[name], largest)
            overlap = dice(mask[batch] >= threshold, outputs.mask >= threshold)
            min_dice = min(min_dice, float(overlap.min()))
    return GateResult(
        passed=labels_equal == 1.0
        and max(differences.values()) <= TOLERANCE
        and min_dice >= MIN_DICE,
        labels_equal=labels_equal,
        probability_difference=_to_optional(differences["probability"]),
        statistics_difference=_to_optional(differences["statistics"]),
        dice=min_dice,
        batches=list(BATCH_SIZES),
        precision="f32",
    )


def _to_optional(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Outcomes:
    """An engine's outcomes on labelled images, in the same order for all engines.

    Attributes:
        labels: true class numbers `(n,)`.
        predicted: class numbers `(n,)`.
        dice: `(n,)`, NaN where there is no mask.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    dice: NDArray[np.float64]


def compare_outcomes(reduced: Outcomes, full: Outcomes, precision: str) -> GateResult:
    """Compare an engine of lower precision with full precision on the validation split.

    It passes when mean Dice is lower by 0.002 at most; when the labels that are right only in full
    precision do not significantly outnumber those that are right only in lower precision (exact
    one-sided McNemar test, 5 %); and when no class' recall lies below the 95 % Wilson interval of
    its recall in full precision. No engine passes without images.
    """
    from scipy.stats import binomtest

    count = len(full.labels)
    if not count:
        return GateResult(passed=False, images=0, precision=precision)
    full_right = full.predicted == full.labels
    reduced_right = reduced.predicted == reduced.labels
    lost = int(np.sum(full_right & ~reduced_right))
    gained = int(np.sum(~full_right & reduced_right))
    changed = lost + gained
    p_value = float(binomtest(lost, changed, 0.5, "greater").pvalue) if changed else 1.0
    recall_below: list[int] = []
    for number in np.unique(full.labels).tolist():
        rows = full.labels == number
        recall = binomtest(int(full_right[rows].sum()), int(rows.sum()))
        if reduced_right[rows].mean() < recall.proportion_ci(CONFIDENCE_LEVEL, "wilson").low:
            recall_below.append(number)
    masked = ~np.isnan(full.dice)
    dice_difference = (
        float(np.mean(reduced.dice[masked] - full.dice[masked])) if masked.any() else 0.0
    )
    return GateResult(
        passed=dice_difference >= -MAX_DICE_LOSS
        and p_value >= SIGNIFICANCE_LEVEL
        and not recall_below,
        images=count,
        labels_equal=float(np.mean(reduced.predicted == full.predicted)),
        accuracy_difference=float(reduced_right.mean() - full_right.mean()),
        chance=p_value,
        dice_difference=dice_difference,
        recall_below=recall_below,
        precision=precision,
    )
