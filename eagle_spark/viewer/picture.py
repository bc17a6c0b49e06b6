"""What is seen of an image: its own proportions, a window of grey levels, the lungs laid over."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from eagle_spark.imaging.decode import Radiograph, open_frame, read_radiograph
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff

VIEW_SIDE = 1024  # pixels of the longer side
LEVEL, WIDTH = 128.0, 256.0  # the window that shows all grey levels as they are
LUNGS = (38, 166, 242)  # RGB
SOFT = 1.2  # pixels of the mask; without it its outline would be stairs
EDGE, EDGE_PIXELS = 0.9, 2  # opacity and width of the outline

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)


def view_of(data: bytes, film: Radiograph) -> NDArray[np.uint8]:
    """Return the picture at its own proportions, `(height, width)`, the longer `VIEW_SIDE`.

    Small ones are enlarged, so that the outline of the lungs is as fine on all. Its grey levels are
    those that the model sees: in deep images one bright pixel would darken all others otherwise.

    Args:
        film: the same image, as the model has it.

    Raises:
        ImageRejected: as `read_radiograph`.
    """
    width, height = film.width, film.height
    if _lies_on_its_side(data):
        width, height = height, width
    scale = VIEW_SIDE / max(width, height)
    square = _levelled(Image.fromarray(read_radiograph(data, VIEW_SIDE).pixels), film.pixels)
    shape = (max(1, round(scale * width)), max(1, round(scale * height)))
    return np.asarray(square.resize(shape, Image.Resampling.BILINEAR))


def _levelled(square: Image.Image, pixels: NDArray[np.uint8]) -> Image.Image:
    """Return `square` with the mean and the spread of `pixels`, `(size, size)`."""
    small = np.asarray(square.resize(pixels.shape, Image.Resampling.BILINEAR))
    gain = pixels.std() / (small.std() or 1.0)
    curve = (np.arange(256) - small.mean()) * gain + pixels.mean()
    return square.point(np.rint(curve.clip(0, 255)).astype(int).tolist())


def _lies_on_its_side(data: bytes) -> bool:
    """Whether EXIF turns the image by 90 degrees, as `read_radiograph` does."""
    if sniff(data[:HEAD_BYTES]) not in ("jpeg", "png"):
        return False
    with open_frame(data) as image:
        try:
            return "exif" in image.info and image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
        except Exception:  # unreadable EXIF data: shown as stored
            return False


def lungs_of(lungs: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask `(size, size)` at the shape (height, width) of a view, its border smooth."""
    soft = Image.fromarray(lungs.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(SOFT))
    large = np.asarray(soft.resize(shape[::-1], Image.Resampling.BICUBIC))
    mask: NDArray[np.bool_] = large >= 128
    return mask


def grey_curve(level: float, width: float) -> NDArray[np.uint8]:
    """Return what each of 256 grey levels is shown as, after DICOM's linear VOI window.

    PS3.3 C.11.2.1.2.1, with a width of at least 2.
    """
    width = max(width, 2.0)
    shown = ((np.arange(256) - (level - 0.5)) / (width - 1) + 0.5) * 255
    curve: NDArray[np.uint8] = np.rint(shown.clip(0, 255)).astype(np.uint8)
    return curve


def compose(
    view: NDArray[np.uint8],
    lungs: NDArray[np.bool_] | None,
    curve: NDArray[np.uint8],
    opacity: float,
) -> NDArray[np.uint8]:
    """Return RGB `(height, width, 3)`: the view through `curve`, the lungs tinted and outlined.

    Args:
        lungs: `(height, width)`; None for the view alone.
        opacity: of the tint, 0 to 1; at 0 nothing of the lungs is drawn.
    """
    grey = curve[view]
    if lungs is None or opacity <= 0:
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    edge = _edge(lungs)
    colours = np.empty((*view.shape, 3), np.uint8)
    for channel, colour in enumerate(LUNGS):
        tinted = ((1 - opacity) * curve + opacity * colour).astype(np.uint8)
        drawn = ((1 - EDGE) * curve + EDGE * colour).astype(np.uint8)
        colours[..., channel] = np.where(edge, drawn[view], np.where(lungs, tinted[view], grey))
    return colours


def _edge(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner = lungs.copy()
    for axis in (0, 1):
        for shift in (-EDGE_PIXELS, EDGE_PIXELS):
            inner &= np.roll(lungs, shift, axis)
    edge: NDArray[np.bool_] = lungs & ~inner
    return edge


def png_of(colours: NDArray[np.uint8], comment: str) -> bytes:
    """Return a PNG of RGB `(height, width, 3)` with a comment in it."""
    info, stream = PngInfo(), BytesIO()
    info.add_itxt("Comment", comment)
    Image.fromarray(colours).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()
