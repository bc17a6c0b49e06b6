"""Gallery of predictions: X-ray with the predicted lung mask, class and confidence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagle_spark.imaging.decode import MAX_FILE_BYTES, decode_image
from eagle_spark.imaging.mask import decode_mask
from eagle_spark.io import read_bytes

LUNG_COLOUR = (0.15, 0.65, 0.95)  # RGB of the overlay


@dataclass(frozen=True)
class GalleryEntry:
    """One prediction of the gallery; `mask` as encoded in the table."""

    path: str
    label: str
    confidence: float
    needs_review: bool
    mask: bytes


def overlay_mask(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], opacity: float = 0.35
) -> NDArray[np.float64]:
    """Return the grey image with a tinted and outlined mask.

    Args:
        pixels: `(size, size)`.
        mask: `(size, size)`.
        opacity: of the tint, 0 to 1; the outline is opaque.

    Returns:
        RGB `(size, size, 3)`, 0 to 1.
    """
    rgb = np.repeat(pixels[..., None] / 255.0, 3, axis=2)
    interior = mask.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            interior &= np.roll(mask, shift, axis)
    outline = mask & ~interior
    colour = np.asarray(LUNG_COLOUR)
    rgb[mask] = (1 - opacity) * rgb[mask] + opacity * colour
    rgb[outline] = colour
    return rgb


def draw_gallery(entries: Sequence[GalleryEntry], title: str, path: Path) -> None:
    """Write a PNG of the predictions, six per line.

    Raises:
        ImageRejectedError: when the file of a scored row is no longer readable.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 6
    lines = max(1, -(-len(entries) // columns))
    figure = Figure(figsize=(2.35 * columns, 2.75 * lines + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    grid = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, entry in zip(grid, entries, strict=False):
        mask = decode_mask(entry.mask)
        pixels = decode_image(read_bytes(entry.path, MAX_FILE_BYTES), len(mask)).pixels
        axes.imshow(overlay_mask(pixels, mask))
        review = "\nneeds review" if entry.needs_review else ""
        axes.set_title(f"{entry.label} {entry.confidence:.2f}{review}", fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    path.write_bytes(stream.getvalue())
