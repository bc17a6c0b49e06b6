"""One image, and what the model says of it; the same for the window and for `eagle-predict`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejected, PlatformError
from eagle_spark.images.decode import MAX_FILE_BYTES, read_radiograph
from eagle_spark.images.hashes import image_id
from eagle_spark.model.bundle import INTENDED_USE, Bundle, open_bundle
from eagle_spark.model.engines import choose_engine, load_engine
from eagle_spark.storage import printable, read_image
from eagle_spark.viewer.picture import view_of


@dataclass(frozen=True)
class Answer:
    """What the model says of one image.

    Attributes:
        probabilities: class -> probability, in the order of the model.
        review: why a person has to look; empty where nobody has to.
        lungs: probability of lung, float32 `(size, size)`.
        lung_area: share of the image.
        lung_sides: shares of the image, left and right of the column between the lungs, as seen.
    """

    label: str
    confidence: float
    probabilities: Mapping[str, float]
    review: tuple[str, ...]
    lungs: NDArray[np.float32]
    lung_area: float
    lung_sides: tuple[float, float]


@dataclass(frozen=True)
class Examination:
    """One file: an answer, or why there is none.

    Attributes:
        image_id: SHA-256 of its bytes; None where it cannot be read.
        width, height: pixels, as the file's header has it; 0 where it was rejected.
        view: the picture to look at, see `view_of`; None where nobody looks.
        seconds: to read and decode, and to ask the model.
    """

    path: str
    image_id: str | None
    width: int
    height: int
    answer: Answer | None
    rejected: ImageRejected | None
    view: NDArray[np.uint8] | None
    seconds: tuple[float, float]


class Examiner:
    """A checked model with its exported engine; never TensorFlow."""

    def __init__(self, model: str) -> None:
        """Open the model folder and start its engine.

        Raises:
            BundleError: when the folder is no sound model.
            PlatformError: when no exported engine of it can run here.
        """
        self.bundle = open_bundle(model)
        name = choose_engine(self.bundle, "auto")
        if name == "keras":
            raise PlatformError(
                f"{model}: none of its exported engines is installed here "
                f"({', '.join(sorted(set(self.bundle.engines) - {'keras'})) or 'it has none'})"
            )
        self._engine = load_engine(self.bundle, name, len(os.sched_getaffinity(0)))

    @property
    def engine(self) -> str:
        return self._engine.name

    def examine(self, path: str, look: bool = False) -> Examination:
        """Read one file and ask the model; a bad one is an examination too.

        Args:
            look: whether somebody wants to see the picture.
        """
        started = time.perf_counter()
        name = view = None
        try:
            data = read_image(path, MAX_FILE_BYTES)
            name = image_id(data)
            film = read_radiograph(data, self.bundle.size)
            if look:
                view = view_of(data, film)
        except ImageRejected as rejected:
            spent = (time.perf_counter() - started, 0.0)
            return Examination(path, name, 0, 0, None, rejected, None, spent)
        decoded = time.perf_counter()
        labels, masks = self._engine.predict(film.pixels[np.newaxis])
        answer = answer_of(self.bundle, labels[0], masks[0])
        spent = (decoded - started, time.perf_counter() - decoded)
        return Examination(path, name, film.width, film.height, answer, None, view, spent)

    def record(self, found: Examination) -> dict[str, Any]:
        """Return an examination as JSON has it; columns of the table `predictions` keep names."""
        record: dict[str, Any] = {
            "path": printable(found.path),
            "image_id": found.image_id,
            "status": "scored" if found.answer else "rejected",
        }
        if answer := found.answer:
            record |= {
                "width": found.width,
                "height": found.height,
                "label": answer.label,
                "confidence": answer.confidence,
                "probabilities": dict(answer.probabilities),
                "needs_review": bool(answer.review),
                "review_reasons": list(answer.review),
                "lung_area": answer.lung_area,
                "lung_area_left": answer.lung_sides[0],
                "lung_area_right": answer.lung_sides[1],
            }
        if rejected := found.rejected:
            record |= {"reason": str(rejected.reason), "detail": printable(rejected.detail)}
        return record | {
            "model_id": self.bundle.model_id,
            "engine": self.engine,
            "seconds": round(sum(found.seconds), 4),
            "intended_use": INTENDED_USE,
        }


def answer_of(
    bundle: Bundle, probabilities: NDArray[np.float32], lungs: NDArray[np.float32]
) -> Answer:
    """Return what one image's outputs mean.

    Args:
        probabilities: `(classes,)`, sum 1.
        lungs: `(size, size)`, probability of lung.
    """
    best = int(np.argmax(probabilities))
    confidence = float(probabilities[best])
    mask = lungs >= bundle.threshold
    return Answer(
        label=bundle.classes[best],
        confidence=confidence,
        probabilities=dict(zip(bundle.classes, probabilities.tolist(), strict=True)),
        review=review_reasons(bundle, confidence),
        lungs=lungs,
        lung_area=float(mask.mean()),
        lung_sides=sides(mask),
    )


def review_reasons(bundle: Bundle, confidence: float) -> tuple[str, ...]:
    """Return why a person has to look."""
    return ("confidence",) if confidence < bundle.review_below else ()


def sides(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the shares of the image that are lung, left and right of the column between the lungs.

    That column has the fewest lung pixels of the middle third; of equals it is the middle one.
    """
    width = mask.shape[1]
    first, last = width // 3, width - width // 3
    counts = mask.sum(axis=0)
    fewest = np.flatnonzero(counts[first:last] == counts[first:last].min()) + first
    column = int(fewest[len(fewest) // 2])
    return float(counts[:column].sum() / mask.size), float(counts[column:].sum() / mask.size)
