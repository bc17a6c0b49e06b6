"""The gate that each engine must pass against Keras on golden images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.engines import ENGINES, Engine, Predictions
from eagle_spark.model.metadata import GOLDEN
from eagle_spark.model.metrics import dice

BATCHES = (1, 7, 32, 64)
PROBABILITY_TOLERANCE = 1e-3
DICE_FLOOR = 0.999


def write_golden(folder: Path, pixels: NDArray[np.uint8], reference: Engine) -> Predictions:
    """Keep `pixels` (n, size, size) and the reference's outputs on them; return the outputs."""
    label, mask = reference.predict(pixels)
    np.savez_compressed(folder / GOLDEN, pixels=pixels, label=label, mask=mask.astype(np.float16))
    return label, mask


def run_gate(
    folder: Path,
    pixels: NDArray[np.uint8],
    wanted: Predictions,
    threshold: float,
    threads: int,
) -> dict[str, dict[str, Any]]:
    """Judge every engine of a model folder; returns name -> what `judge` gives."""
    return {
        name: judge(kind(folder, threads), pixels, wanted, threshold)
        for name, (kind, _) in ENGINES.items()
    }


def judge(
    engine: Engine, pixels: NDArray[np.uint8], wanted: Predictions, threshold: float
) -> dict[str, Any]:
    """Hold an engine's outputs in batches of 1, 7, 32 and 64 against the wanted ones.

    It passes when all labels are equal, probabilities differ by 1e-3 at most, and each mask has a
    Dice of 0.999 at least.

    Args:
        pixels: (n, size, size).
        wanted: label and mask probabilities of the same images.

    Returns:
        `passed`, `labels_equal` (smallest share in a batch), `probability_difference` (largest),
        `dice` (smallest), `batches`, `precision`.
    """
    label, mask = wanted
    equal, difference, overlap = 1.0, 0.0, 1.0
    for size in BATCHES:
        rows = np.arange(-(-len(pixels) // size) * size) % len(pixels)
        for chunk in np.split(rows, len(rows) // size):
            labels, masks = engine.predict(pixels[chunk])
            equal = min(equal, float(np.mean(labels.argmax(1) == label[chunk].argmax(1))))
            # A NaN must fail, and would be lost in max().
            found = float(np.nan_to_num(np.abs(labels - label[chunk]), nan=np.inf).max())
            difference = max(difference, found)
            likeness = dice(mask[chunk] >= threshold, masks >= threshold)
            overlap = min(overlap, float(likeness.min()))
    return {
        "passed": equal == 1.0 and difference <= PROBABILITY_TOLERANCE and overlap >= DICE_FLOOR,
        "labels_equal": equal,
        "probability_difference": difference if np.isfinite(difference) else None,
        "dice": overlap,
        "batches": list(BATCHES),
        "precision": "f32",
    }
