"""Pictures of predictions: the X-ray, the predicted lungs laid over it, class and confidence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagle_spark.imaging.decode import MAX_FILE_BYTES, read_radiograph
from eagle_spark.imaging.mask import decode_mask
from eagle_spark.io import read_image

LUNGS = (0.15, 0.65, 0.95)  # RGB of the overlay


@dataclass(frozen=True)
class Shown:
    """One prediction to draw: file, its outcome, and the mask as it stands in the table."""

    path: str
    label: str
    confidence: float
    needs_review: bool
    mask: bytes


def overlay(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], opacity: float = 0.35
) -> NDArray[np.float64]:
    """Return (size, size, 3) RGB, 0-1: the grey image with the mask tinted and outlined."""
    grey = np.repeat(pixels[..., None] / 255.0, 3, axis=2)
    inner = mask.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(mask, shift, axis)
    edge = mask & ~inner
    colour = np.asarray(LUNGS)
    grey[mask] = (1 - opacity) * grey[mask] + opacity * colour
    grey[edge] = colour
    return grey


def draw_gallery(rows: Sequence[Shown], title: str, target: Path) -> None:
    """Write a PNG of the predictions, six to a line.

    Raises:
        ImageRejected: when a file of a scored row can no longer be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = 6
    down = max(1, -(-len(rows) // across))
    figure = Figure(figsize=(2.35 * across, 2.75 * down + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    axes = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, rows, strict=False):
        mask = decode_mask(row.mask)
        pixels = read_radiograph(read_image(row.path, MAX_FILE_BYTES), len(mask)).pixels
        axis.imshow(overlay(pixels, mask))
        review = "\nneeds review" if row.needs_review else ""
        axis.set_title(f"{row.label} {row.confidence:.2f}{review}", fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    target.write_bytes(picture.getvalue())
