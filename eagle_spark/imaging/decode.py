"""Decode image files to grey pixels of one size, or reject them with a `Reason`.

Pillow's file classes are called directly instead of `Image.open`: only four formats can be reached,
and the size limit is per image instead of Pillow's process-wide one. `dicom` decodes DICOM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from eagle_spark.errors import ImageRejectedError, Reason, describe_missing
from eagle_spark.imaging.deep import compute_grey_range, load_16_bit_colour
from eagle_spark.imaging.png import sanitise_png
from eagle_spark.imaging.quiet import suppress_warnings
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff
from eagle_spark.imaging.truncation import is_truncated

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 64_000_000
"""Three times the largest chest detector; 0.3 GB as RGB, 0.6 GB as RGB of 16 bits. Pillow's warning
begins above it."""
MIN_SIDE = 16
MAX_SCANS = 100
"""Limit for progressive JPEG; encoders write about ten. Each scan is a pass over all pixels: 1,000
scans, in a file of 250 kB, took 21 s. LibTIFF has the same limit for JPEG in TIFF."""

MAX_DETAIL_LENGTH = 1000
MIN_CONTRAST = 2
"""Range of grey levels; an image with a range of at most this is rejected."""

MAX_EXIF_SEGMENTS = 100
"""Segments of up to 64 kB; cameras write one. 2,000, in a file of 131 MB, took 85 s."""

_FILE_CLASSES: dict[str, type[ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
}
DICOM_TAGS = ("patient_id", "view", "study_uid", "sop_uid", "manufacturer", "device", "intent")
"""Tags of a DICOM file in the table column `dicom`."""
_HIGH_DEPTH_MODES = frozenset(("I;16", "I;16B", "I", "F"))
# Pillow's errors for valid files of a kind that it does not support.
_UNSUPPORTED_ERRORS = ("cannot handle", "unknown pixel mode", "unknown data organization")
_START_OF_SCAN, _EXIF_HEADER = b"\xff\xda", b"Exif\0\0"
_BLOCK_BYTES = 1 << 16  # of a JPEG, searched at a time: they fit into the cache of a core
_WHITE_IS_ZERO = 0
_PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH, _SAMPLE_FORMAT = 262, 322, 323, 339  # TIFF tags
_UNSIGNED, _MAX_UINT16 = 1, 65_535


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One decoded image.

    Attributes:
        pixels: `(size, size)` uint8, grey, read-only.
        width: columns in the file's header.
        height: rows in the file's header.
        dicom: `DICOM_TAGS` of a DICOM file, None for each missing tag; None for other formats.
        notes: how the decoder resolved missing, contradictory or ambiguous data.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    dicom: Mapping[str, str | None] | None = None
    notes: tuple[str, ...] = ()

    @property
    def detail(self) -> str | None:
        """Unique notes as one text, as in the tables; None without notes."""
        return "; ".join(dict.fromkeys(self.notes))[:MAX_DETAIL_LENGTH] or None


def decode_image(data: bytes, size: int, *, keep_patient_id: bool = False) -> DecodedImage:
    """Decode an X-ray to grey and resize it to `size` x `size`, ignoring its aspect ratio.

    The triangle filter (Pillow's BILINEAR) averages over the whole footprint when it shrinks,
    interpolates when it enlarges, and has no negative lobes that would ring around markers.
    The EXIF orientation and DICOM's rescale, LUTs and window are applied, as in any viewer.

    Args:
        data: the whole file.
        size: pixels per side.
        keep_patient_id: keep DICOM's PatientID instead of its hash.

    Raises:
        ImageRejectedError: EMPTY_FILE, FILE_TOO_LARGE, NOT_AN_IMAGE, TRUNCATED, CORRUPT,
            TOO_MANY_PIXELS, TOO_SMALL, MULTIPLE_FRAMES, NO_DECODER or NO_CONTRAST; of DICOM also
            NOT_A_CHEST_XRAY or COLOUR.
    """
    if _detect_format(data) == "dicom":
        image = _decode_dicom(data, size, keep_patient_id)
    else:
        image = _decode_with_pillow(data, size)
    low, high = int(image.pixels.min()), int(image.pixels.max())
    if high - low <= MIN_CONTRAST:
        raise ImageRejectedError(
            Reason.NO_CONTRAST, f"all grey values lie between {low} and {high}"
        )
    return image


def _decode_with_pillow(data: bytes, size: int) -> DecodedImage:
    notes: list[str] = []
    with open_frame(data) as image:
        width, height = image.size
        if isinstance(image, JpegImageFile):
            image.draft("L", (size, size))
        resized = apply_exif_orientation(_resize(load_grey(image, notes), size, notes), image)
        return DecodedImage(np.asarray(resized), width, height, notes=tuple(notes))


def _decode_dicom(data: bytes, size: int, keep_patient_id: bool) -> DecodedImage:
    try:
        from eagle_spark.imaging.dicom import read as dicom
    except ImportError as error:
        missing = describe_missing("dicom", "pydicom")
        raise ImageRejectedError(Reason.NO_DECODER, missing) from error
    notes: list[str] = []
    decoded = dicom.read_dicom(data, keep_patient_id, notes)
    resized = _resize(decoded.image, size, notes)
    width, height = decoded.image.size
    return DecodedImage(np.asarray(resized), width, height, decoded.tags, tuple(notes))


@contextmanager
def open_frame(data: bytes) -> Iterator[ImageFile]:
    """Yield the single frame of `data` with its header checked and its pixels not yet decoded.

    Every error of Pillow but MemoryError, here or in the caller's block, becomes an
    ImageRejectedError; Pillow's warnings about odd metadata are suppressed.
    """
    file_format = _detect_format(data)
    image: ImageFile | None = None
    try:
        with suppress_warnings():
            if file_format == "png":
                data = sanitise_png(data)
            elif file_format == "jpeg":
                check_jpeg_segments(data)
            elif file_format == "dicom":
                raise ImageRejectedError(
                    Reason.NOT_AN_IMAGE, "wanted PNG, JPEG, BMP or TIFF; got DICOM"
                )
            image = _FILE_CLASSES[file_format](BytesIO(data))
            _check_header(image)
            yield image
    except (ImageRejectedError, MemoryError):
        raise
    except Exception as error:
        if is_truncated(file_format, data, image, error):
            reason = Reason.TRUNCATED
        else:
            is_unsupported = str(error).startswith(_UNSUPPORTED_ERRORS)
            reason = Reason.NO_DECODER if is_unsupported else Reason.CORRUPT
        raise ImageRejectedError(reason, f"{file_format}: {error}") from error


def has_high_depth(image: Image.Image) -> bool:
    """Return whether the pixels have more than 8 bits."""
    return image.mode in _HIGH_DEPTH_MODES


def load_grey(image: ImageFile, notes: list[str]) -> Image.Image:
    """Decode an opened image to grey at its original size.

    Colours become grey by the luma weights of ITU-R 601. Transparent pixels become black, the
    colour of an unexposed margin; the colour stored under full transparency is arbitrary and must
    not show. An alpha of 0 everywhere is ignored: some writers leave the fourth byte of a pixel 0.

    Args:
        image: as `open_frame` yields it; its pixels are loaded here.
        notes: decisions of the decoder are appended.

    Returns:
        Mode `L`, or `I;16` or `F` for more than 8 bits.
    """
    if (grey := load_16_bit_colour(image, notes)) is not None:
        return grey
    image.load()
    if has_high_depth(image):
        return _normalise_high_depth(image)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        alpha = layers.getchannel("A")
        if alpha.getextrema()[1]:
            return ImageChops.multiply(layers.convert("L"), alpha)
        notes.append("an alpha of 0 everywhere is ignored")
        return layers.convert("L")
    return image.convert("L")


def _normalise_high_depth(image: ImageFile) -> Image.Image:
    """Convert 16-bit, 32-bit or float pixels to `I;16` or `F`, low values dark."""
    values = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if values.dtype.kind == "i":
        # Pillow reads unsigned 32 bits as signed. Float32 holds 24: the minimum is subtracted.
        is_unsigned = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
        values = values.view(np.uint32) if is_unsigned else values
        if values.min() < 0 or values.max() > _MAX_UINT16:
            values = values.view(np.uint32) - values.min().astype(np.uint32)
        if values.max() <= _MAX_UINT16:
            values = values.astype(np.uint16)
    is_inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if values.itemsize == 2:
        values = values.astype(np.uint16, copy=False)
        return Image.fromarray(~values if is_inverted else values)
    values = values.astype(np.float32, copy=False)
    return Image.fromarray(-values if is_inverted else values)


def _resize(grey: Image.Image, size: int, notes: list[str]) -> Image.Image:
    if grey.mode == "L":
        return grey.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _resize_high_depth(grey, size, notes)


def _resize_high_depth(grey: Image.Image, size: int, notes: list[str]) -> Image.Image:
    """Resize `I;16` or `F` to `L`, with `compute_grey_range` scaled to 0 to 255.

    Exports hold 10 to 14 bits in a 16-bit file, with or without an offset that the file does not
    state; scaling by the full range would leave them black. A constant image becomes black.
    """
    values = np.asarray(grey)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageRejectedError(Reason.CORRUPT, "pixels are not finite numbers")
    low, high = compute_grey_range(values)
    lowest, highest = values.min(), values.max()
    if lowest < low or high < highest:
        shown = f"{low:.10g} to {high:.10g} are shown, of {lowest:.10g} to {highest:.10g}"
        notes.append(f"grey values {shown}")
    dtype = values.dtype.type
    clipped = Image.fromarray(np.clip(values, dtype(low), dtype(high)))
    resized = np.asarray(clipped.resize((size, size), Image.Resampling.BILINEAR), np.float64)
    scaled = (resized - low) / ((high - low) or 1.0) * 255
    return Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))


def apply_exif_orientation(square: Image.Image, image: ImageFile) -> Image.Image:
    """Transpose `square`, the resized pixels of `image`, by the EXIF orientation of `image`."""
    if "exif" not in image.info or isinstance(image, TiffImageFile):  # Pillow transposes TIFFs
        return square
    square.info = image.info
    try:
        return ImageOps.exif_transpose(square)
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF data: the pixels are valid as stored
        return square


def _detect_format(data: bytes) -> str:
    if not data:
        raise ImageRejectedError(Reason.EMPTY_FILE, "0 bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ImageRejectedError(
            Reason.FILE_TOO_LARGE, f"{len(data)} bytes; wanted at most {MAX_FILE_BYTES}"
        )
    file_format = sniff(data[:HEAD_BYTES])
    if file_format is None:
        raise ImageRejectedError(
            Reason.NOT_AN_IMAGE, "wanted PNG, JPEG, BMP, TIFF or DICOM; got other content"
        )
    return file_format


def check_jpeg_segments(data: bytes) -> None:
    """Check a JPEG for at most `MAX_SCANS` scans and `MAX_EXIF_SEGMENTS` EXIF segments.

    Raises:
        ImageRejectedError: CORRUPT.
    """
    scans = _count_pairs(data, _START_OF_SCAN)  # entropy-coded data escapes FF
    if scans > MAX_SCANS:
        raise ImageRejectedError(Reason.CORRUPT, f"jpeg: {scans} scans; wanted at most {MAX_SCANS}")
    segments = 0
    if _count_pairs(data, _EXIF_HEADER[:2]) > MAX_EXIF_SEGMENTS:
        segments = data.count(_EXIF_HEADER)
    if segments > MAX_EXIF_SEGMENTS:  # Pillow joins them in quadratic time
        raise ImageRejectedError(
            Reason.CORRUPT, f"jpeg: {segments} EXIF segments; wanted at most {MAX_EXIF_SEGMENTS}"
        )


def _count_pairs(data: bytes, pair: bytes) -> int:
    """Count a pair of different bytes. `bytes.count` took 5 % of the time of a large image."""
    first, second = pair
    count = 0
    for start in range(0, len(data) - 1, _BLOCK_BYTES):
        length = min(_BLOCK_BYTES + 1, len(data) - start)  # blocks share a byte
        block = np.frombuffer(data, np.uint8, length, start)
        count += int(np.count_nonzero((block[:-1] == first) & (block[1:] == second)))
    return count


def _check_header(image: ImageFile) -> None:
    width, height = image.size
    pixels = width * height
    if isinstance(image, TiffImageFile):  # a tile is decoded into its own buffer
        tile = image.tag_v2.get(_TILE_WIDTH, 0) * image.tag_v2.get(_TILE_LENGTH, 0)
        pixels = max(pixels, tile)
    check_size(width, height, pixels)
    if getattr(image, "is_animated", False):
        raise ImageRejectedError(Reason.MULTIPLE_FRAMES, "wanted one image; got several")


def check_size(width: int, height: int, pixels: int) -> None:
    """Check the size in a header before decoding.

    Args:
        width: columns.
        height: rows.
        pixels: pixels that a decoder would allocate.

    Raises:
        ImageRejectedError: TOO_MANY_PIXELS or TOO_SMALL.
    """
    if pixels > MAX_PIXELS:
        raise ImageRejectedError(
            Reason.TOO_MANY_PIXELS,
            f"{pixels} pixels to decode for {width}x{height}; wanted at most {MAX_PIXELS}",
        )
    if min(width, height) < MIN_SIDE:
        raise ImageRejectedError(
            Reason.TOO_SMALL, f"{width}x{height}; wanted at least {MIN_SIDE}x{MIN_SIDE}"
        )
