"""Image rendering: original aspect ratio, grey-level window, overlay of the lung mask."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from eagle_spark.imaging.decode import DecodedImage, decode_image, open_frame
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff

VIEW_SIDE = 1024  # pixels of the longer side
DEFAULT_LEVEL, DEFAULT_WIDTH = 128.0, 256.0  # the window that leaves all grey levels unchanged
LUNG_COLOUR = (38, 166, 242)  # RGB
_BLUR_RADIUS = 1.2  # pixels of the mask; smooths the stair-stepped outline
_OUTLINE_OPACITY, _OUTLINE_PIXELS = 0.9, 2

_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


def render_view(data: bytes, radiograph: DecodedImage) -> NDArray[np.uint8]:
    """Return the grey pixels at the original aspect ratio, the longer side `VIEW_SIDE`.

    Small images are enlarged, so that the outline of the lungs is equally fine on all images. The
    grey levels are matched to the model's input: in images of high bit depth, one bright pixel
    would otherwise darken all others.

    Args:
        data: content of the file.
        radiograph: the same image, decoded at the model's input size.

    Returns:
        `(height, width)` uint8.

    Raises:
        ImageRejectedError: as `decode_image`.
    """
    width, height = radiograph.width, radiograph.height
    if _is_quarter_turned(data):
        width, height = height, width
    scale = VIEW_SIDE / max(width, height)
    square = _match_levels(Image.fromarray(decode_image(data, VIEW_SIDE).pixels), radiograph.pixels)
    shape = (max(1, round(scale * width)), max(1, round(scale * height)))
    return np.asarray(square.resize(shape, Image.Resampling.BILINEAR))


def _match_levels(square: Image.Image, pixels: NDArray[np.uint8]) -> Image.Image:
    """Return `square` with the mean and the standard deviation of `pixels`, `(size, size)`."""
    small = np.asarray(square.resize(pixels.shape, Image.Resampling.BILINEAR))
    gain = pixels.std() / (small.std() or 1.0)
    curve = (np.arange(256) - small.mean()) * gain + pixels.mean()
    return square.point(np.rint(curve.clip(0, 255)).astype(int).tolist())


def _is_quarter_turned(data: bytes) -> bool:
    """Whether the EXIF orientation rotates the image by 90 degrees; `decode_image` applies it."""
    if sniff(data[:HEAD_BYTES]) not in ("jpeg", "png"):
        return False
    with open_frame(data) as image:
        try:
            return "exif" in image.info and image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
        except Exception:  # unreadable EXIF data: shown as stored
            return False


def resize_lung_mask(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask `(size, size)` resized to `shape` (height, width) with a smooth outline."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    blurred = image.filter(ImageFilter.GaussianBlur(_BLUR_RADIUS))
    resized = np.asarray(blurred.resize(shape[::-1], Image.Resampling.BICUBIC))
    lungs: NDArray[np.bool_] = resized >= 128
    return lungs


def compute_window_lut(level: float, width: float) -> NDArray[np.uint8]:
    """Return the look-up table of DICOM's linear VOI window, `(256,)` uint8.

    PS3.3 C.11.2.1.2.1, with a width of at least 2.
    """
    width = max(width, 2.0)
    levels = ((np.arange(256) - (level - 0.5)) / (width - 1) + 0.5) * 255
    lut: NDArray[np.uint8] = np.rint(levels.clip(0, 255)).astype(np.uint8)
    return lut


def render_overlay(
    view: NDArray[np.uint8],
    lungs: NDArray[np.bool_] | None,
    lut: NDArray[np.uint8],
    opacity: float,
) -> NDArray[np.uint8]:
    """Return the view with tinted and outlined lungs.

    Args:
        view: `(height, width)` uint8.
        lungs: mask `(height, width)`; None for the view alone.
        lut: `(256,)` uint8, grey level of the view -> grey level on the screen.
        opacity: of the tint, 0 to 1; 0 hides the outline too.

    Returns:
        RGB `(height, width, 3)` uint8.
    """
    grey = lut[view]
    if lungs is None or opacity <= 0:
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    outline = _compute_outline(lungs)
    rgb = np.empty((*view.shape, 3), np.uint8)
    for channel, colour in enumerate(LUNG_COLOUR):
        tint_lut = ((1 - opacity) * lut + opacity * colour).astype(np.uint8)
        outline_lut = ((1 - _OUTLINE_OPACITY) * lut + _OUTLINE_OPACITY * colour).astype(np.uint8)
        tinted = np.where(lungs, tint_lut[view], grey)
        rgb[..., channel] = np.where(outline, outline_lut[view], tinted)
    return rgb


def _compute_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner = mask.copy()
    for axis in (0, 1):
        for shift in (-_OUTLINE_PIXELS, _OUTLINE_PIXELS):
            inner &= np.roll(mask, shift, axis)
    outline: NDArray[np.bool_] = mask & ~inner
    return outline


def encode_png(rgb: NDArray[np.uint8], comment: str) -> bytes:
    """Return the PNG of an RGB image `(height, width, 3)` with a text chunk `Comment`."""
    info, stream = PngInfo(), BytesIO()
    info.add_itxt("Comment", comment)
    Image.fromarray(rgb).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()
