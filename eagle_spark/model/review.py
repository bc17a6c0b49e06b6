"""Which predictions a person has to look at, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import BundleError

PART = 0.02  # share of all lung pixels from which on a piece counts
MASK_MEASURES = ("area", "parts", "border")

Range = tuple[float, float]


class Flag(str, Enum):
    """Why a person has to look; stored in the tables as text."""

    CONFIDENCE = "confidence"
    NOVELTY = "novelty"
    MASK = "mask"
    FOR_PROCESSING = "for_processing"

    def __str__(self) -> str:
        return self.value


MODEL_FLAGS = (Flag.CONFIDENCE, Flag.NOVELTY, Flag.MASK)
"""Those that a model's answer to an image gives."""


def image_flags(dicom: Mapping[str, str | None] | None) -> list[Flag]:
    """Return why a person has to look at an image whatever the model's answer is.

    A detector's raw image, DICOM's `FOR PROCESSING`, is not what anybody reads or trains on.

    Args:
        dicom: as `Radiograph` has it.
    """
    intent = (dicom or {}).get("intent") or ""
    return [Flag.FOR_PROCESSING] if intent.upper() == "FOR PROCESSING" else []


def mask_measures(lungs: NDArray[np.bool_]) -> dict[str, float]:
    """Return what tells an implausible mask `(size, size)`, by `MASK_MEASURES`.

    `area`, the share of the image; `parts`, connected pieces (of four neighbours, at half of the
    resolution) with at least `PART` of the mask; `border`, the share of the pixels along the
    image's border.
    """
    from scipy.ndimage import label

    pieces, _ = label(lungs[::2, ::2])
    sizes = np.bincount(pieces.ravel())[1:]
    edges = (lungs[0], lungs[-1], lungs[1:-1, 0], lungs[1:-1, -1])
    return {
        "area": np.count_nonzero(lungs) / lungs.size,
        "parts": float(np.sum(sizes >= PART * sizes.sum())),
        "border": float(np.concatenate(edges).mean()),
    }


@dataclass(frozen=True)
class Limits:
    """From where on a prediction needs review; all from the validation split.

    Attributes:
        confidence: the least that is enough.
        novelty: density -> (median at home, limit) of its surprise; empty where none is known.
        mask: measure -> (lowest, highest); likewise.
    """

    confidence: float
    novelty: Mapping[str, Range] = field(default_factory=dict)
    mask: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def read(cls, found: Mapping[str, Any], where: str) -> Limits:
        """Return what `written` made of limits.

        Raises:
            BundleError: when it is none.
        """
        try:
            return cls(
                float(found["confidence"]),
                *(
                    {name: (float(low), float(high)) for name, (low, high) in found[key].items()}
                    for key in ("novelty", "mask")
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{where}: review is not what it should be: {error!r}") from error

    def written(self) -> dict[str, Any]:
        """Return what stands in `metadata.json`."""
        return asdict(self)

    def novelty_of(self, surprise: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return how new images are, `(n,)`: 0 is usual at home, 1 the limit.

        The largest over all densities.

        Args:
            surprise: of each density of `novelty`, `(n,)`.
        """
        found: NDArray[np.float64] = np.max(
            [
                (surprise[name] - usual) / (limit - usual)
                for name, (usual, limit) in self.novelty.items()
            ],
            axis=0,
        )
        return found

    def flags(
        self, confidence: float, novelty: float | None, measures: Mapping[str, float]
    ) -> list[Flag]:
        """Return why a person has to look at a prediction; empty where nobody has to."""
        held = {
            Flag.CONFIDENCE: confidence >= self.confidence,
            Flag.NOVELTY: novelty is None or not novelty > 1,
            Flag.MASK: all(
                low <= measures[name] <= high for name, (low, high) in self.mask.items()
            ),
        }
        return [flag for flag, sound in held.items() if not sound]
