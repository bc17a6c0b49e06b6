"""Prediction for a single image file; shared by `eagle-view` and `eagle predict`."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejectedError, PlatformError
from eagle_spark.imaging.decode import MAX_FILE_BYTES, decode_image
from eagle_spark.imaging.hashes import compute_image_id
from eagle_spark.io import read_bytes, to_utf8
from eagle_spark.model.bundle import open_bundle
from eagle_spark.model.engines import choose_engine
from eagle_spark.model.metadata import INTENDED_USE
from eagle_spark.model.predictor import Prediction, add_image, reject, start_engine
from eagle_spark.viewer.picture import render_view


@dataclass(frozen=True)
class ImageAnalysis:
    """Prediction for one file, with its display data.

    Attributes:
        path: path or URI of the file.
        width: pixels, from the file's header; 0 if the file was rejected.
        height: pixels, from the file's header; 0 if the file was rejected.
        prediction: scored or rejected.
        view: grey pixels for display, see `render_view`; None unless requested.
        seconds: time to read and decode, time of the inference.
    """

    path: str
    width: int
    height: int
    prediction: Prediction
    view: NDArray[np.uint8] | None
    seconds: tuple[float, float]


class ImageAnalyzer:
    """A verified model with one of its exported engines; never loads TensorFlow."""

    def __init__(self, model: str) -> None:
        """Open the model folder and start its engine.

        Raises:
            ModelError: when the folder is not a valid model.
            PlatformError: when none of its exported engines is installed.
        """
        self.bundle = open_bundle(model)
        name = choose_engine(self.bundle, "auto")
        if name == "keras":
            exported = sorted(set(self.bundle.metadata.engines) - {"keras"})
            raise PlatformError(
                f"{model}: none of its exported engines is installed here "
                f"({', '.join(exported) or 'it has none'})"
            )
        self._model = start_engine(model, self.bundle, name)
        # The first inference is slower than the others and would distort the reported time.
        size = self.bundle.metadata.input.size
        self._predict(np.zeros((size, size), np.uint8))

    @property
    def engine(self) -> str:
        return self._model.engine

    def analyze(self, path: str, with_view: bool = False) -> ImageAnalysis:
        """Read one file and run the model; a rejected file gives an analysis too.

        Args:
            path: local path or URI.
            with_view: whether to render the pixels for display.
        """
        started = time.perf_counter()
        image_id = view = None
        try:
            data = read_bytes(path, MAX_FILE_BYTES)
            image_id = compute_image_id(data)
            radiograph = decode_image(data, self.bundle.metadata.input.size)
            if with_view:
                view = render_view(data, radiograph)
        except ImageRejectedError as error:
            seconds = (time.perf_counter() - started, 0.0)
            return ImageAnalysis(path, 0, 0, reject(error, image_id), None, seconds)
        decoded = time.perf_counter()
        prediction = add_image(self._predict(radiograph.pixels), image_id, radiograph)
        seconds = (decoded - started, time.perf_counter() - decoded)
        return ImageAnalysis(path, radiograph.width, radiograph.height, prediction, view, seconds)

    def _predict(self, pixels: NDArray[np.uint8]) -> Prediction:
        (prediction,) = self._model.predict_pixels(pixels[np.newaxis])
        return prediction

    def to_record(self, analysis: ImageAnalysis) -> dict[str, object]:
        """Return an analysis as a JSON object, with the column names of the table `predictions`."""
        prediction = analysis.prediction
        detail = prediction.detail and to_utf8(prediction.detail)
        record: dict[str, object] = {
            "path": to_utf8(analysis.path),
            "image_id": prediction.image_id,
            "status": prediction.status,
        }
        if prediction.mask is None:
            record |= {"reason": prediction.reason, "detail": detail}
        else:
            left, right = split_lung_area(prediction.mask)
            record |= {
                "detail": detail,
                "width": analysis.width,
                "height": analysis.height,
                "label": prediction.label,
                "confidence": prediction.confidence,
                "probabilities": dict(prediction.probabilities),
                "needs_review": prediction.needs_review,
                "review_reasons": list(prediction.review_reasons),
                "novelty": prediction.novelty,
                "lung_area": prediction.lung_area,
                "lung_area_left": left,
                "lung_area_right": right,
            }
        return record | {
            "model_id": self.bundle.metadata.model_id,
            "engine": self.engine,
            "seconds": round(sum(analysis.seconds), 4),
            "intended_use": INTENDED_USE,
        }


def split_lung_area(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the lung area left and right of the column that separates the lungs.

    That column has the fewest lung pixels of the middle third; of equal ones, the middle one.

    Args:
        mask: `(height, width)`.

    Returns:
        Fractions of the image area.
    """
    width = mask.shape[1]
    first, last = width // 3, width - width // 3
    counts = mask.sum(axis=0)
    candidates = np.flatnonzero(counts[first:last] == counts[first:last].min()) + first
    column = int(candidates[len(candidates) // 2])
    return float(counts[:column].sum() / mask.size), float(counts[column:].sum() / mask.size)
