"""The one way from an image to a prediction: bytes, pixels, network outputs, `Prediction`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import repeat
from typing import overload

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES, DecodedImage, decode_image
from eagle_spark.imaging.hashes import compute_image_id
from eagle_spark.io import absolute_uri, read_bytes
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import ENGINES, Engine, ModelOutputs, choose_engine
from eagle_spark.model.review import compute_image_flags, measure_mask

BATCH_IMAGES = 64
"""Images per call of the engine; results do not depend on it."""
SCORED, REJECTED = "scored", "rejected"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one image, or the reason for its rejection.

    Attributes:
        status: `scored` or `rejected`.
        image_id: SHA-256 of the bytes, hex; None if the file cannot be read.
        label: most probable class. None if rejected, like all attributes down to `lung_area`.
        confidence: probability of `label`, 0 to 1.
        probabilities: class to probability, sum 1.
        needs_review: whether a person has to check the image.
        review_reasons: values of `eagle_spark.model.review.Flag`.
        novelty: distance from the training data: 0 usual, above 1 needs review.
        mask: `(size, size)` bool, True inside the lungs.
        lung_area: share of the image that the mask covers, 0 to 1.
        reason: a value of `eagle_spark.errors.Reason`; None if scored.
        detail: the defect of a rejected image, or the reader's assumptions about a scored one.
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


def decode_outputs(
    bundle: Bundle, pixels: NDArray[np.uint8], outputs: ModelOutputs
) -> Iterator[Prediction]:
    """Yield the predictions that a network's outputs stand for, in the order of the images.

    Args:
        bundle: its classes and thresholds apply.
        pixels: uint8 `(n, size, size)`, the input of the network.
        outputs: of these n images.
    """
    metadata, thresholds = bundle.metadata, bundle.metadata.review
    novelties: Iterable[float | None] = repeat(None, len(pixels))
    if bundle.novelty and thresholds.novelty:
        nll = bundle.novelty.negative_log_density(pixels, outputs.statistics)
        novelties = thresholds.compute_novelty(nll).tolist()
    for probabilities, lungs, novelty in zip(outputs.label, outputs.mask, novelties, strict=True):
        best = int(np.argmax(probabilities))
        confidence = float(probabilities[best])
        mask = lungs >= metadata.mask_threshold
        measures = measure_mask(mask)
        reasons = tuple(map(str, thresholds.compute_flags(confidence, novelty, measures)))
        yield Prediction(
            SCORED,
            image_id=None,
            label=metadata.classes[best],
            confidence=confidence,
            probabilities=dict(zip(metadata.classes, probabilities.tolist(), strict=True)),
            needs_review=bool(reasons),
            review_reasons=reasons,
            novelty=novelty,
            mask=mask,
            lung_area=measures["area"],
        )


def add_image(prediction: Prediction, image_id: str | None, image: DecodedImage) -> Prediction:
    """Return the prediction with the facts of its image: id, DICOM tags, detail, review reasons."""
    reasons = (*prediction.review_reasons, *map(str, compute_image_flags(image.dicom)))
    return replace(
        prediction,
        image_id=image_id,
        needs_review=bool(reasons),
        review_reasons=reasons,
        detail=image.detail,
        dicom=image.dicom,
    )


def reject(error: ImageRejectedError, image_id: str | None) -> Prediction:
    """Return the prediction of an image that cannot be used."""
    return Prediction(REJECTED, image_id, reason=str(error.reason), detail=error.detail)


@dataclass(frozen=True)
class ModelRef:
    """The address of a model and its engine: small, picklable, hashable.

    Attributes:
        uri: of the folder.
        model_id: of the model that the folder has to hold; None for any.
        engine: a key of `ENGINES`.
        threads: of the engine.
    """

    uri: str
    model_id: str | None
    engine: str
    threads: int

    def load(self) -> Model:
        """Check the folder and load the engine, once per process for consecutive equal addresses.

        The gate result of the engine is not checked: the gate itself loads engines this way.

        Raises:
            ModelError: when the folder is none, or a file is missing, altered or unsafe.
            PlatformError: when the CPU cannot run the engine.
        """
        return _load(self)


@lru_cache(maxsize=1)
def _load(ref: ModelRef) -> Model:
    bundle = open_bundle(ref.uri, expected_id=ref.model_id)
    return start_engine(ref.uri, bundle, ref.engine, ref.threads)


def start_engine(uri: str, bundle: Bundle, engine: str, threads: int | None = None) -> Model:
    """Return the model of a checked folder with an engine started.

    Args:
        uri: of the folder.
        bundle: the folder.
        engine: a key of `ENGINES`.
        threads: of the engine; None takes all cores that this process may use. Other processes,
            such as Spark's workers, share the cores and then take one each.

    Raises:
        PlatformError: when the CPU cannot run the engine.
    """
    ref = ModelRef(absolute_uri(uri), bundle.metadata.model_id, engine, threads or 1)
    cores = threads or len(os.sched_getaffinity(0))
    return Model(ref, bundle, ENGINES[engine].load(bundle.path, cores))


def load_model(uri: str, engine: str = "auto", threads: int | None = None) -> Model:
    """Open a model folder, check its files against their digests and load one of its engines.

    Args:
        uri: local path, `file:///` or `hdfs://` URI.
        engine: `auto` is the fastest that passed the gate of this model and runs here.
        threads: of the engine; None takes all cores that this process may use.

    Raises:
        ModelError: when the folder is no sound model.
        PlatformError: when no engine of it can run here.

    Example::

        model = load_model("hdfs:///models/cxr")
        model.classes
    """
    bundle = open_bundle(uri)
    return start_engine(uri, bundle, choose_engine(bundle, engine), threads)


class Model:
    """A checked model folder with one engine loaded. Pickles as its `ModelRef`.

    Attributes:
        ref: address of this model, for other processes.
        uri: absolute URI of the model folder.
        id: SHA-256 over the weights, classes and input contract.
        classes: in the order of the probabilities.
        size: pixels per side of the network's input.
        engine: name of the engine that computes predictions.
        bundle: content of the model folder.
        metadata: content of `metadata.json`.
    """

    def __init__(self, ref: ModelRef, bundle: Bundle, engine: Engine) -> None:
        """Combine what `ModelRef.load` loaded."""
        self.ref, self.bundle, self._engine = ref, bundle, engine
        self.uri, self.engine = ref.uri, ref.engine
        self.metadata = metadata = bundle.metadata
        self.id, self.classes, self.size = metadata.model_id, metadata.classes, metadata.input.size

    def __reduce__(self) -> tuple[object, tuple[ModelRef]]:
        return _load, (self.ref,)

    def __repr__(self) -> str:
        classes = ", ".join(self.classes)
        return f"Model({self.uri!r}, engine={self.engine!r}, classes=({classes}))"

    @overload
    def predict(self, images: str | bytes) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Sequence[str | bytes]) -> list[Prediction]: ...

    def predict(self, images: str | bytes | Sequence[str | bytes]) -> Prediction | list[Prediction]:
        """Return the prediction for an image, or for each of several, in their order.

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
            (prediction,) = self.predict_contents([images])
            return prediction
        return self.predict_contents(images)

    def predict_contents(
        self, contents: Iterable[str | bytes | None], *, keep_patient_id: bool = False
    ) -> list[Prediction]:
        """Return a prediction for each image; None is a file that cannot be read.

        Args:
            contents: bytes, paths or URIs.
            keep_patient_id: keep DICOM's PatientID as it is, not its hash.
        """
        predictions: list[Prediction | None] = []
        batch: list[tuple[int, str, DecodedImage]] = []

        def predict_batch() -> None:
            images = [image for _, _, image in batch]
            for (index, image_id, image), prediction in zip(
                batch, self.predict_images(images), strict=True
            ):
                predictions[index] = add_image(prediction, image_id, image)
            batch.clear()

        for content in contents:
            image_id = None
            predictions.append(None)
            try:
                data = _read_content(content)
                image_id = compute_image_id(data)
                image = decode_image(data, self.size, keep_patient_id=keep_patient_id)
            except ImageRejectedError as error:
                predictions[-1] = reject(error, image_id)
                continue
            batch.append((len(predictions) - 1, image_id, image))
            if len(batch) == BATCH_IMAGES:
                predict_batch()
        predict_batch()
        return [prediction for prediction in predictions if prediction is not None]

    def predict_images(self, images: Sequence[DecodedImage]) -> Iterator[Prediction]:
        """Yield the predictions for decoded images, in their order, from one call of the engine."""
        if images:
            yield from self.predict_pixels(np.stack([image.pixels for image in images]))

    def predict_pixels(self, pixels: NDArray[np.uint8]) -> Iterator[Prediction]:
        """Yield the predictions for uint8 images `(n, size, size)` from one call of the engine."""
        yield from decode_outputs(self.bundle, pixels, self.compute_outputs(pixels))

    def compute_outputs(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        """Return the network's outputs for uint8 images `(n, size, size)`, n > 0."""
        return self._engine.predict(pixels)


def _read_content(content: str | bytes | None) -> bytes:
    if content is None:
        raise ImageRejectedError(Reason.UNREADABLE, "no content")
    return (
        content if isinstance(content, bytes) else read_bytes(absolute_uri(content), MAX_FILE_BYTES)
    )
