"""A model in this process: from the bytes of an image to a typed prediction."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES, Radiograph, read_radiograph
from eagle_spark.imaging.hashes import image_id
from eagle_spark.io import absolute_uri, read_image
from eagle_spark.model.answer import Answer, answers, with_image_flags
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.engines import choose_engine, load_engine

BATCH_IMAGES = 64
"""Images that go through the engine together; results do not depend on it."""
SCORED, REJECTED = "scored", "rejected"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model predicts for one image, or why the image was rejected.

    Attributes:
        status: `scored` or `rejected`.
        image_id: SHA-256 of the bytes, hex; None where the file cannot be read.
        label: most probable class; None when rejected, as all that follows down to `lung_area`.
        confidence: probability of `label`, 0 to 1.
        probabilities: class to probability, sum 1.
        needs_review: whether a person has to look at the image.
        review_reasons: why, see `eagle_spark.model.review.Flag`.
        novelty: how unlike the training data the image is: 0 usual, above 1 needs review.
        mask: `(size, size)` bool, True inside the lungs.
        lung_area: share of the image that the mask covers, 0 to 1.
        reason: why the image was rejected, a value of `eagle_spark.errors.Reason`.
        detail: what is wrong with a rejected image, or what the reader decided about a scored one.
        dicom: tags of a DICOM file; None for other files.
    """

    status: str
    image_id: str | None
    label: str | None = None
    confidence: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    needs_review: bool | None = None
    review_reasons: tuple[str, ...] = ()
    novelty: float | None = None
    mask: NDArray[np.bool_] | None = None
    lung_area: float | None = None
    reason: str | None = None
    detail: str | None = None
    dicom: Mapping[str, str | None] | None = None


class Model:
    """A checked model folder and one of its engines, loaded. Pickles as its address.

    Attributes:
        uri: absolute URI of the model folder.
        id: SHA-256 over the weights, classes and input contract.
        classes: in the order of the probabilities.
        size: pixels per side of the network's input.
        engine: name of the engine that computes predictions.
        metadata: all that stands in `metadata.json`.
    """

    def __init__(
        self, uri: str, engine: str = "auto", threads: int | None = None, id: str | None = None
    ) -> None:
        """Open the folder, check its files against their digests and load an engine.

        Args:
            uri: local path, `file:///` or `hdfs://` URI of a model folder.
            engine: `auto` is the fastest that passed the gate of this model and runs here.
            threads: of the engine; None takes all cores that this process may use.
            id: the model id that the folder has to hold; None for any.

        Raises:
            BundleError: when the folder is none, or a file is missing, altered or unsafe.
            PlatformError: when no engine can run here.
        """
        self.uri = absolute_uri(uri)
        self._bundle = open_bundle(self.uri, expected_id=id)
        self.engine = choose_engine(self._bundle, engine)
        self._threads = threads
        self._engine = load_engine(
            self._bundle, self.engine, threads or len(os.sched_getaffinity(0))
        )
        self.id = self._bundle.model_id
        self.classes = self._bundle.classes
        self.size = self._bundle.size
        self.metadata: Mapping[str, Any] = self._bundle.metadata

    def __reduce__(self) -> tuple[type[Model], tuple[str, str, int | None, str]]:
        return Model, (self.uri, self.engine, self._threads, self.id)

    def __repr__(self) -> str:
        classes = ", ".join(self.classes)
        return f"Model({self.uri!r}, engine={self.engine!r}, classes=({classes}))"

    @overload
    def predict(self, images: str | bytes) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Sequence[str | bytes]) -> list[Prediction]: ...

    def predict(self, images: str | bytes | Sequence[str | bytes]) -> Prediction | list[Prediction]:
        """Return the prediction of an image, or of each of several, in their order.

        Args:
            images: the bytes of a file, or its path or URI; or a sequence of these.

        Returns:
            One prediction for one image, a list for a sequence. An image that cannot be used is
            `rejected` with its reason; no image raises.

        Example::

            model = load_model("demo/model")
            model.predict("chest.png").label
        """
        if isinstance(images, (str, bytes)):
            (found,) = self.predict_all([images])
            return found
        return self.predict_all(images)

    def predict_all(
        self, images: Iterable[str | bytes | None], *, keep_patient_id: bool = False
    ) -> list[Prediction]:
        """Return a prediction for each image; None is a file that cannot be read.

        Args:
            images: bytes, paths or URIs.
            keep_patient_id: take DICOM's PatientID as it is, not its hash.
        """
        found: list[Prediction | None] = []
        waiting: list[tuple[int, str, Radiograph]] = []
        for image in images:
            found.append(None)
            name = None
            try:
                data = _content(image)
                name = image_id(data)
                film = read_radiograph(data, self.size, keep_patient_id=keep_patient_id)
            except ImageRejected as rejected:
                reason = str(rejected.reason)
                found[-1] = Prediction(REJECTED, name, reason=reason, detail=rejected.detail)
                continue
            waiting.append((len(found) - 1, name, film))
            if len(waiting) == BATCH_IMAGES:
                self._fill(found, waiting)
        self._fill(found, waiting)
        return [one for one in found if one is not None]

    def _fill(
        self, found: list[Prediction | None], waiting: list[tuple[int, str, Radiograph]]
    ) -> None:
        if not waiting:
            return
        pixels = np.stack([film.pixels for _, _, film in waiting])
        computed = answers(self._bundle, pixels, self._engine.predict(pixels))
        for (place, name, film), answer in zip(waiting, computed, strict=True):
            found[place] = _prediction(name, with_image_flags(answer, film.dicom), film)
        waiting.clear()


def _content(image: str | bytes | None) -> bytes:
    if image is None:
        raise ImageRejected(Reason.UNREADABLE, "no content")
    return image if isinstance(image, bytes) else read_image(absolute_uri(image), MAX_FILE_BYTES)


def _prediction(name: str, answer: Answer, film: Radiograph) -> Prediction:
    return Prediction(
        SCORED,
        name,
        label=answer.label,
        confidence=answer.confidence,
        probabilities=answer.probabilities,
        needs_review=bool(answer.reasons),
        review_reasons=answer.reasons,
        novelty=answer.novelty,
        mask=answer.lungs,
        lung_area=answer.lung_area,
        detail=film.detail,
        dicom=film.dicom,
    )
