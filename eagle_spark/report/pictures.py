"""Pictures of the HTML report, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eagle_spark.report.gallery import overlay_mask

IMPORTANCE_COLOUR = (0.96, 0.45, 0.10)  # RGB of the occlusion importance
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """One image with its prediction.

    Attributes:
        truth: true class.
        label: predicted class.
        pixels: uint8 `(size, size)`.
        mask: predicted lungs, bool `(size, size)`.
        importance: at least 0, `(size, size)`, see `eagle_spark.model.occlusion.Attribution`;
            None for an image without occlusion importance.
    """

    path: str
    truth: str
    label: str
    confidence: float
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    importance: NDArray[np.float16] | None

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def mask_uri(self) -> str:
        """Data URI of the image with the predicted lung mask."""
        return _to_jpeg_uri(overlay_mask(self.pixels, self.mask, 0.25))

    @property
    def importance_uri(self) -> str | None:
        """Data URI of the image with the occlusion importance and the outline of the lungs."""
        if self.importance is None:
            return None
        return _to_jpeg_uri(overlay_importance(self.pixels, self.mask, self.importance))


def overlay_importance(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], importance: NDArray[np.float16]
) -> NDArray[np.float64]:
    """Return the image tinted by importance, with an outlined mask: RGB `(size, size, 3)`, 0-1."""
    weight = importance.astype(np.float64)
    weight = 0.75 * np.sqrt(weight / weight.max()) if weight.max() > 0 else weight
    base = overlay_mask(pixels, mask, 0.0)
    tint = np.array(IMPORTANCE_COLOUR)
    rgb: NDArray[np.float64] = base * (1 - weight[..., None]) + tint * weight[..., None]
    return rgb


def to_png_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _to_jpeg_uri(rgb: NDArray[np.float64]) -> str:
    stream = io.BytesIO()
    pixels = np.rint(255 * rgb.clip(0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
