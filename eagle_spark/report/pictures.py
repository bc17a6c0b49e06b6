"""Pictures in a page: PNG as text, X-rays with what was found in them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.report.gallery import overlay

HEAT = (0.96, 0.45, 0.10)  # RGB of what an answer depends on
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """One image with the model's answer.

    Attributes:
        pixels: uint8 `(size, size)`.
        mask: predicted lungs, bool `(size, size)`.
        importance: at least 0, `(size, size)`, see `eagle_spark.model.occlusion.Attribution`;
            None where it was not asked for.
    """

    path: str
    truth: str
    label: str
    confidence: float
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    importance: NDArray[np.float16] | None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def lungs(self) -> str:
        """The image with its lungs, as a data URI."""
        return _jpeg(overlay(self.pixels, self.mask, 0.25))

    @property
    def heat(self) -> str | None:
        """The image with what its answer depends on, the outline of the lungs, as a data URI."""
        if self.importance is None:
            return None
        return _jpeg(heated(self.pixels, self.mask, self.importance))


def heated(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], importance: NDArray[np.float16]
) -> NDArray[np.float64]:
    """Return `(size, size, 3)` RGB, 0 to 1: the more important, the more coloured."""
    weight = importance.astype(np.float64)
    weight = 0.75 * np.sqrt(weight / weight.max()) if weight.max() > 0 else weight
    grey = overlay(pixels, mask, 0.0)
    shown: NDArray[np.float64] = grey * (1 - weight[..., None]) + np.array(HEAT) * weight[..., None]
    return shown


def png_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _jpeg(colours: NDArray[np.float64]) -> str:
    stream = io.BytesIO()
    pixels = np.rint(255 * colours.clip(0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
