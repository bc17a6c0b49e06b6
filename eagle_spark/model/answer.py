"""What a model's outputs mean for one image: class, lungs, and whether a person has to look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from eagle_spark.model.bundle import Bundle
from eagle_spark.model.engines import Predictions
from eagle_spark.model.review import image_flags, mask_measures


@dataclass(frozen=True)
class Answer:
    """What the model says of one image.

    Attributes:
        probabilities: class -> probability, in the order of the model.
        reasons: why a person has to look, see `Flag`; empty where nobody has to.
        novelty: how unlike the training data it is, 0 usual and 1 the limit; None where not known.
        lungs: mask, `(size, size)`.
        lung_area: share of the image.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    reasons: tuple[str, ...]
    novelty: float | None
    lungs: NDArray[np.bool_]
    lung_area: float


def answers(bundle: Bundle, pixels: NDArray[np.uint8], outputs: Predictions) -> Iterator[Answer]:
    """Yield what the outputs of an engine mean, image by image.

    Args:
        pixels: what the engine was asked about, `(n, size, size)`.
    """
    news: Iterable[float | None] = repeat(None, len(pixels))
    if bundle.novelty and bundle.limits.novelty:
        surprise = bundle.novelty.surprise(pixels, outputs.statistics)
        news = bundle.limits.novelty_of(surprise).tolist()
    for probabilities, mask, novelty in zip(outputs.label, outputs.mask, news, strict=True):
        best = int(np.argmax(probabilities))
        confidence = float(probabilities[best])
        lungs = mask >= bundle.threshold
        measures = mask_measures(lungs)
        reasons = bundle.limits.flags(confidence, novelty, measures)
        yield Answer(
            label=bundle.classes[best],
            confidence=confidence,
            probabilities=dict(zip(bundle.classes, probabilities.tolist(), strict=True)),
            reasons=tuple(map(str, reasons)),
            novelty=novelty,
            lungs=lungs,
            lung_area=measures["area"],
        )


def with_image_flags(answer: Answer, dicom: Mapping[str, str | None] | None) -> Answer:
    """Return an answer that also carries why a person has to look at the image itself.

    Args:
        answer: what the model says of the image.
        dicom: as `Radiograph` has it.
    """
    return replace(answer, reasons=(*answer.reasons, *map(str, image_flags(dicom))))
