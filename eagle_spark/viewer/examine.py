"""One image, and what the model says of it; the same for the window and for `eagle-predict`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejected, PlatformError
from eagle_spark.imaging.decode import MAX_FILE_BYTES, read_radiograph
from eagle_spark.imaging.hashes import image_id
from eagle_spark.io import printable, read_image
from eagle_spark.model.answer import Answer, answers, with_image_flags
from eagle_spark.model.bundle import INTENDED_USE, open_bundle
from eagle_spark.model.engines import choose_engine, load_engine
from eagle_spark.viewer.picture import view_of


@dataclass(frozen=True)
class Examination:
    """One file: an answer, or why there is none.

    Attributes:
        image_id: SHA-256 of its bytes; None where it cannot be read.
        width, height: pixels, as the file's header has it; 0 where it was rejected.
        view: the picture to look at, see `view_of`; None where nobody looks.
        seconds: to read and decode, and to ask the model.
        detail: what the reader decided where the file lacks or contradicts something.
    """

    path: str
    image_id: str | None
    width: int
    height: int
    answer: Answer | None
    rejected: ImageRejected | None
    view: NDArray[np.uint8] | None
    seconds: tuple[float, float]
    detail: str | None = None


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
        # The first answer takes longer than the others; here nobody takes it for the usual time.
        self._ask(np.zeros((self.bundle.size, self.bundle.size), np.uint8))

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
        answer = with_image_flags(self._ask(film.pixels), film.dicom)
        spent = (decoded - started, time.perf_counter() - decoded)
        size = (film.width, film.height)
        return Examination(path, name, *size, answer, None, view, spent, film.detail)

    def _ask(self, pixels: NDArray[np.uint8]) -> Answer:
        batch = pixels[np.newaxis]
        (answer,) = answers(self.bundle, batch, self._engine.predict(batch))
        return answer

    def record(self, found: Examination) -> dict[str, Any]:
        """Return an examination as JSON has it; columns of the table `predictions` keep names."""
        record: dict[str, Any] = {
            "path": printable(found.path),
            "image_id": found.image_id,
            "status": "scored" if found.answer else "rejected",
        }
        if answer := found.answer:
            left, right = sides(answer.lungs)
            record |= {
                "detail": found.detail and printable(found.detail),
                "width": found.width,
                "height": found.height,
                "label": answer.label,
                "confidence": answer.confidence,
                "probabilities": answer.probabilities,
                "needs_review": bool(answer.reasons),
                "review_reasons": list(answer.reasons),
                "novelty": answer.novelty,
                "lung_area": answer.lung_area,
                "lung_area_left": left,
                "lung_area_right": right,
            }
        if rejected := found.rejected:
            record |= {"reason": str(rejected.reason), "detail": printable(rejected.detail)}
        return record | {
            "model_id": self.bundle.model_id,
            "engine": self.engine,
            "seconds": round(sum(found.seconds), 4),
            "intended_use": INTENDED_USE,
        }


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
