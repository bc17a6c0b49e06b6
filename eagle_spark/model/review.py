"""Review: the rules that flag predictions for a human reader, with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from eagle_spark.metrics.record import Interval, Record

MIN_PART_SHARE = 0.02  # of all lung pixels; smaller parts are not counted
RANGED_MASK_MEASURES = ("area", "parts", "border")
"""The measures of a mask whose usual range training fits: the keys of `ReviewThresholds.mask`."""
MASK_MEASURES = RANGED_MASK_MEASURES
"""All measures of a mask: those with a fitted range, and any with a fixed limit."""


class Flag(str, Enum):
    """Reason for human review; stored in the tables as text.

    The order of the members is the order of the reasons in a row: first `MODEL_FLAGS`, which
    `ReviewThresholds.compute_flags` returns, then the flags that other functions append.
    """

    CONFIDENCE = "confidence"
    NOVELTY = "novelty"
    MASK = "mask"
    FOR_PROCESSING = "for_processing"

    def __str__(self) -> str:
        return self.value


FLAG_MEANINGS = {
    Flag.CONFIDENCE: "the confidence is below its threshold",
    Flag.NOVELTY: "the image differs from the training data: its novelty is above 1",
    Flag.MASK: "the area, parts or border contact of the predicted lungs is outside its range",
    Flag.FOR_PROCESSING: "the file is a detector's raw image: FOR PROCESSING in DICOM",
}
"""Flag -> the fact that sets it; the model card has these texts."""
MODEL_FLAGS = (Flag.CONFIDENCE, Flag.NOVELTY, Flag.MASK)
"""The flags that depend on the model's outputs."""


def compute_image_flags(dicom: Mapping[str, str | None] | None) -> list[Flag]:
    """Return the flags of an image that do not depend on the model's outputs.

    DICOM's `FOR PROCESSING` marks a detector's raw image, meant for neither reading nor training.

    Args:
        dicom: tags of `DecodedImage.dicom`.
    """
    intent = (dicom or {}).get("intent") or ""
    return [Flag.FOR_PROCESSING] if intent.upper() == "FOR PROCESSING" else []


def measure_mask(lungs: NDArray[np.bool_]) -> dict[str, float]:
    """Return the `MASK_MEASURES` of a mask `(size, size)`; implausible masks have unusual values.

    `area`: share of the image. `parts`: number of connected components (four neighbours, half the
    resolution) with at least `MIN_PART_SHARE` of the mask. `border`: share of the pixels along the
    image's border.
    """
    from scipy.ndimage import label

    components, _ = label(lungs[::2, ::2])
    sizes = np.bincount(components.ravel())[1:]
    edges = (lungs[0], lungs[-1], lungs[1:-1, 0], lungs[1:-1, -1])
    return {
        "area": np.count_nonzero(lungs) / lungs.size,
        "parts": float(np.sum(sizes >= MIN_PART_SHARE * sizes.sum())),
        "border": float(np.concatenate(edges).mean()),
    }


class ReviewThresholds(Record):
    """Thresholds beyond which a prediction needs review.

    Attributes:
        confidence: minimum.
        novelty: density -> (median, threshold) of its negative log density; empty when no density
            was fitted.
        mask: measure -> (minimum, maximum); likewise.
    """

    confidence: float
    novelty: Mapping[str, Interval]
    mask: Mapping[str, Interval]

    def compute_novelty(self, nll: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the novelty of n images, `(n,)`: 0 is the median, 1 the threshold.

        The maximum over all densities.

        Args:
            nll: negative log density of each density of `novelty`, `(n,)`.
        """
        novelty: NDArray[np.float64] = np.max(
            [
                (nll[name] - median) / (threshold - median)
                for name, (median, threshold) in self.novelty.items()
            ],
            axis=0,
        )
        return novelty

    def compute_flags(
        self, confidence: float, novelty: float | None, measures: Mapping[str, float]
    ) -> list[Flag]:
        """Return the flags of a prediction; empty when it needs no review.

        Args:
            measures: see `measure_mask`.
        """
        checks = {
            Flag.CONFIDENCE: confidence >= self.confidence,
            Flag.NOVELTY: novelty is None or not novelty > 1,
            Flag.MASK: all(
                low <= measures[name] <= high for name, (low, high) in self.mask.items()
            ),
        }
        return [flag for flag, passed in checks.items() if not passed]
