"""Bytes to grey pixels of one size, or a named reason why not.

Pillow's file classes are called by kind, past `Image.open`: only four formats can be reached, and
the size limit is ours and per image instead of Pillow's process-wide one. DICOM is read in `dicom`.
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

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.images.png import check_chunks
from eagle_spark.images.quiet import no_warnings
from eagle_spark.images.sniff import HEAD_BYTES, sniff
from eagle_spark.images.truncation import is_truncated

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 64_000_000
"""Three times the largest chest detector; 0.3 GB as RGB. Pillow's own warning begins above it."""
MIN_SIDE = 16
MAX_SCANS = 100
"""Of a progressive JPEG; encoders write about ten. Each one is a pass over all pixels: 1,000 of
them, in a file of 250 kB, took 21 s. LibTIFF has the same limit for JPEG in TIFF."""

MAX_EXIF = 100
"""Segments of up to 64 kB; cameras write one. 2,000, in a file of 131 MB, took 85 s."""

_FILES: dict[str, type[ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
}
DICOM_TAGS = ("patient_id", "view", "study_uid", "sop_uid", "manufacturer", "device")
"""What is kept of a DICOM file's tags: the table column `dicom`."""
_DEEP_MODES = frozenset(("I;16", "I;16B", "I", "F"))
_START_OF_SCAN, _EXIF = b"\xff\xda", b"Exif\0\0"
_WHITE_IS_ZERO = 0
_PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 262, 322, 323  # TIFF tags


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One decoded image.

    Attributes:
        pixels: `(size, size)` uint8, grey, read-only.
        width: pixels across, as the file's header has it.
        height: pixels down, as the file's header has it.
        dicom: its `DICOM_TAGS`, each None where not told; None for another kind of file.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    dicom: Mapping[str, str | None] | None = None


def read_radiograph(data: bytes, size: int, *, keep_patient_id: bool = False) -> Radiograph:
    """Decode an X-ray, turn it grey and resize it to `size` x `size`, whatever its proportions.

    The triangle filter (Pillow's BILINEAR) averages over the whole footprint when it shrinks,
    interpolates when it enlarges, and has no negative lobes that would ring around markers.
    The EXIF orientation is applied, so that the pixels are those that any viewer shows; so are
    the rescale, LUTs and window of DICOM.

    Args:
        data: the whole file.
        size: side of the pixels wanted.
        keep_patient_id: take DICOM's PatientID as it is, not its hash.

    Raises:
        ImageRejected: EMPTY_FILE, FILE_TOO_LARGE, NOT_AN_IMAGE, TRUNCATED, CORRUPT,
            TOO_MANY_PIXELS, TOO_SMALL or MULTIPLE_FRAMES; of DICOM also NOT_A_CHEST_XRAY, COLOUR or
            NO_DECODER.
    """
    if _kind(data) == "dicom":
        return _read_dicom(data, size, keep_patient_id)
    with open_frame(data) as image:
        width, height = image.size
        if isinstance(image, JpegImageFile):
            image.draft("L", (size, size))
        image.load()
        small = _shrink_deep(image, size) if is_deep(image) else _shrink(image, size)
        return Radiograph(np.asarray(_upright(small, image)), width, height)


def _read_dicom(data: bytes, size: int, keep_patient_id: bool) -> Radiograph:
    try:
        from eagle_spark.images import dicom
    except ImportError as error:
        raise ImageRejected(
            Reason.NO_DECODER,
            "dicom: pydicom is not installed; pip install 'eagle-spark[dicom]' brings it",
        ) from error
    found = dicom.read_dicom(data, keep_patient_id)
    image = found.image
    small = _shrink_deep(image, size) if is_deep(image) else _shrink(image, size)
    return Radiograph(np.asarray(small), image.width, image.height, found.tags)


@contextmanager
def open_frame(data: bytes) -> Iterator[ImageFile]:
    """Yield the one frame that `data` holds, its header checked, its pixels not yet decoded.

    Whatever Pillow raises, here or in the caller's block, comes out as ImageRejected; its
    warnings about odd metadata are dropped. Only MemoryError passes.
    """
    kind = _kind(data)
    image: ImageFile | None = None
    try:
        with no_warnings():
            if kind == "png":
                check_chunks(data)
            elif kind == "jpeg":
                check_segments(data)
            elif kind == "dicom":
                raise ImageRejected(Reason.NOT_AN_IMAGE, "DICOM, wanted PNG, JPEG, BMP or TIFF")
            image = _FILES[kind](BytesIO(data))
            _check_header(image)
            yield image
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:
        short = is_truncated(kind, data, image, error)
        reason = Reason.TRUNCATED if short else Reason.CORRUPT
        raise ImageRejected(reason, f"{kind}: {error}") from error


def is_deep(image: Image.Image) -> bool:
    """Whether the pixels have more than 8 bits."""
    return image.mode in _DEEP_MODES


def to_grey(image: Image.Image) -> Image.Image:
    """Return an 8-bit image as mode `L`, by the luma weights of ITU-R 601.

    Transparent pixels become black, the colour of an unexposed margin; the colour stored under
    full transparency is arbitrary and must not show. An alpha that hides everything is none:
    writers leave the fourth byte of a pixel 0.
    """
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        alpha = layers.getchannel("A")
        if alpha.getextrema()[1]:
            return ImageChops.multiply(layers.convert("L"), alpha)
        return layers.convert("L")
    return image.convert("L")


def _shrink(image: Image.Image, size: int) -> Image.Image:
    return to_grey(image).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _shrink_deep(image: Image.Image, size: int) -> Image.Image:
    """Return 16-bit, 32-bit or float pixels as `L`, the found range spread over 0 to 255.

    Exports hold 10 to 14 bits in a 16-bit file, with or without an offset; the file does not say
    which, and scaling by the full range would leave them black. The range is taken after the
    resize, so that one dead detector pixel does not set it. A constant image becomes black.
    """
    if image.mode == "I;16B":
        deep = Image.fromarray(np.asarray(image).astype(np.uint16))
    else:
        deep = image.convert("F") if image.mode == "I" else image
    values = np.asarray(deep.resize((size, size), Image.Resampling.BILINEAR), np.float64)
    if not np.isfinite(values).all():
        raise ImageRejected(Reason.CORRUPT, "pixels that are not finite numbers")
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = -values
    values = values - values.min()
    values = values / (values.max() or 1.0) * 255
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _upright(small: Image.Image, image: ImageFile) -> Image.Image:
    """Turn `small` as the EXIF data of `image` say; a square may be turned after the resize."""
    if "exif" not in image.info or isinstance(image, TiffImageFile):  # Pillow turns TIFFs itself
        return small
    small.info = image.info
    try:
        return ImageOps.exif_transpose(small)
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF data: the pixels are good, as stored
        return small


def _kind(data: bytes) -> str:
    if not data:
        raise ImageRejected(Reason.EMPTY_FILE, "0 bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ImageRejected(
            Reason.FILE_TOO_LARGE, f"{len(data)} bytes, more than {MAX_FILE_BYTES} allowed"
        )
    kind = sniff(data[:HEAD_BYTES])
    if kind is None:
        raise ImageRejected(Reason.NOT_AN_IMAGE, "content is no PNG, JPEG, BMP, TIFF or DICOM")
    return kind


def check_segments(data: bytes) -> None:
    """Raise ImageRejected for a JPEG of more than `MAX_SCANS` scans, or `MAX_EXIF` of EXIF."""
    scans = data.count(_START_OF_SCAN)  # in compressed data no other byte follows FF
    if scans > MAX_SCANS:
        raise ImageRejected(Reason.CORRUPT, f"jpeg: {scans} scans, at most {MAX_SCANS} are read")
    segments = data.count(_EXIF)
    if segments > MAX_EXIF:  # Pillow joins them in time that goes by their square
        raise ImageRejected(
            Reason.CORRUPT, f"jpeg: {segments} EXIF segments, at most {MAX_EXIF} are read"
        )


def _check_header(image: ImageFile) -> None:
    width, height = image.size
    pixels = width * height
    if isinstance(image, TiffImageFile):  # a tile is a buffer of its own, whatever the image's size
        tile = image.tag_v2.get(_TILE_WIDTH, 0) * image.tag_v2.get(_TILE_LENGTH, 0)
        pixels = max(pixels, tile)
    check_size(width, height, pixels)
    if getattr(image, "is_animated", False):
        raise ImageRejected(Reason.MULTIPLE_FRAMES, "one image wanted, found several")


def check_size(width: int, height: int, pixels: int) -> None:
    """Check a size before anything is decoded; `pixels` is what a decoder would make room for.

    Raises:
        ImageRejected: TOO_MANY_PIXELS or TOO_SMALL.
    """
    if pixels > MAX_PIXELS:
        raise ImageRejected(
            Reason.TOO_MANY_PIXELS,
            f"{pixels} pixels to decode for {width}x{height}, at most {MAX_PIXELS} allowed",
        )
    if min(width, height) < MIN_SIDE:
        raise ImageRejected(
            Reason.TOO_SMALL, f"{width}x{height}, at least {MIN_SIDE}x{MIN_SIDE} wanted"
        )
