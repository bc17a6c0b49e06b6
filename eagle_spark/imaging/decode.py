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
from eagle_spark.imaging.deep import deep_colour_as_grey, grey_range
from eagle_spark.imaging.png import checked_png
from eagle_spark.imaging.quiet import no_warnings
from eagle_spark.imaging.sniff import HEAD_BYTES, sniff
from eagle_spark.imaging.truncation import is_truncated

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 64_000_000
"""Three times the largest chest detector; 0.3 GB as RGB, 0.6 GB as RGB of 16 bits. Pillow's own
warning begins above it."""
MIN_SIDE = 16
MAX_SCANS = 100
"""Of a progressive JPEG; encoders write about ten. Each one is a pass over all pixels: 1,000 of
them, in a file of 250 kB, took 21 s. LibTIFF has the same limit for JPEG in TIFF."""

MAX_DETAIL = 1000
MIN_CONTRAST = 2
"""Grey levels: an image in which all lie so near to each other shows nothing."""

MAX_EXIF = 100
"""Segments of up to 64 kB; cameras write one. 2,000, in a file of 131 MB, took 85 s."""

_FILES: dict[str, type[ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
}
DICOM_TAGS = ("patient_id", "view", "study_uid", "sop_uid", "manufacturer", "device", "intent")
"""What is kept of a DICOM file's tags: the table column `dicom`."""
_DEEP_MODES = frozenset(("I;16", "I;16B", "I", "F"))
# What Pillow raises for sound files of kinds that it does not read.
_UNREAD = ("cannot handle", "unknown pixel mode", "unknown data organization")
_START_OF_SCAN, _EXIF = b"\xff\xda", b"Exif\0\0"
_WHITE_IS_ZERO = 0
_PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH, _SAMPLE_FORMAT = 262, 322, 323, 339  # TIFF tags
_UNSIGNED, _FULL = 1, 65_535


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One decoded image.

    Attributes:
        pixels: `(size, size)` uint8, grey, read-only.
        width: pixels across, as the file's header has it.
        height: pixels down, as the file's header has it.
        dicom: its `DICOM_TAGS`, each None where the file lacks it; None for another kind of file.
        guesses: how the reader decided where the file lacks, contradicts or leaves open something.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    dicom: Mapping[str, str | None] | None = None
    guesses: tuple[str, ...] = ()

    @property
    def detail(self) -> str | None:
        """The guesses as the tables keep them, each once; None where there are none."""
        return "; ".join(dict.fromkeys(self.guesses))[:MAX_DETAIL] or None


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
            TOO_MANY_PIXELS, TOO_SMALL, MULTIPLE_FRAMES, NO_DECODER or NO_CONTRAST; of DICOM also
            NOT_A_CHEST_XRAY or COLOUR.
    """
    if _kind(data) == "dicom":
        radiograph = _read_dicom(data, size, keep_patient_id)
    else:
        radiograph = _read_picture(data, size)
    low, high = int(radiograph.pixels.min()), int(radiograph.pixels.max())
    if high - low <= MIN_CONTRAST:
        raise ImageRejected(Reason.NO_CONTRAST, f"all grey values lie between {low} and {high}")
    return radiograph


def _read_picture(data: bytes, size: int) -> Radiograph:
    guesses: list[str] = []
    with open_frame(data) as image:
        width, height = image.size
        if isinstance(image, JpegImageFile):
            image.draft("L", (size, size))
        small = _shrink(load_grey(image, guesses), size, guesses)
        return Radiograph(np.asarray(upright(small, image)), width, height, guesses=tuple(guesses))


def _read_dicom(data: bytes, size: int, keep_patient_id: bool) -> Radiograph:
    try:
        from eagle_spark.imaging.dicom import read as dicom
    except ImportError as error:
        raise ImageRejected(
            Reason.NO_DECODER,
            "dicom: pydicom is not installed; pip install 'eagle-spark[dicom]' brings it",
        ) from error
    guesses: list[str] = []
    found = dicom.read_dicom(data, keep_patient_id, guesses)
    small = _shrink(found.image, size, guesses)
    width, height = found.image.size
    return Radiograph(np.asarray(small), width, height, found.tags, tuple(guesses))


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
                data = checked_png(data)
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
        if is_truncated(kind, data, image, error):
            reason = Reason.TRUNCATED
        else:
            reason = Reason.NO_DECODER if str(error).startswith(_UNREAD) else Reason.CORRUPT
        raise ImageRejected(reason, f"{kind}: {error}") from error


def is_deep(image: Image.Image) -> bool:
    """Whether the pixels have more than 8 bits."""
    return image.mode in _DEEP_MODES


def load_grey(image: ImageFile, guesses: list[str]) -> Image.Image:
    """Decode an opened image to grey at its own size: `L`, or `I;16` or `F` for more than 8 bits.

    Colours become grey by the luma weights of ITU-R 601. Transparent pixels become black, the
    colour of an unexposed margin; the colour stored under full transparency is arbitrary and must
    not show. An alpha that hides everything is none: writers leave the fourth byte of a pixel 0.

    Args:
        image: as `open_frame` yields it; its pixels are loaded here.
        guesses: grows by what is decided here.
    """
    if (deep := deep_colour_as_grey(image, guesses)) is not None:
        return deep
    image.load()
    if is_deep(image):
        return _plain_deep(image)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        alpha = layers.getchannel("A")
        if alpha.getextrema()[1]:
            return ImageChops.multiply(layers.convert("L"), alpha)
        guesses.append("an alpha of 0 everywhere is ignored")
        return layers.convert("L")
    return image.convert("L")


def _plain_deep(image: ImageFile) -> Image.Image:
    """Return 16-bit, 32-bit or float pixels as `I;16` or `F`, a low value dark."""
    values = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if values.dtype.kind == "i":
        # Pillow reads unsigned 32 bits into signed ones. Floats have fewer: so differences alone.
        is_unsigned = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
        values = values.view(np.uint32) if is_unsigned else values
        if values.min() < 0 or values.max() > _FULL:
            values = values.view(np.uint32) - values.min().astype(np.uint32)
        if values.max() <= _FULL:
            values = values.astype(np.uint16)
    is_inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if values.itemsize == 2:
        values = values.astype(np.uint16, copy=False)
        return Image.fromarray(~values if is_inverted else values)
    values = values.astype(np.float32, copy=False)
    return Image.fromarray(-values if is_inverted else values)


def _shrink(grey: Image.Image, size: int, guesses: list[str]) -> Image.Image:
    if grey.mode == "L":
        return grey.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _shrink_deep(grey, size, guesses)


def _shrink_deep(grey: Image.Image, size: int, guesses: list[str]) -> Image.Image:
    """Return `I;16` or `F` as `L`, the range that is used spread over 0 to 255.

    Exports hold 10 to 14 bits in a 16-bit file, with or without an offset; the file does not say
    which, and scaling by the full range would leave them black. `grey_range` says which is used. A
    constant image becomes black.
    """
    values = np.asarray(grey)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageRejected(Reason.CORRUPT, "pixels that are not finite numbers")
    low, high = grey_range(values)
    least, most = values.min(), values.max()
    if least < low or high < most:
        shown = f"{low:.10g} to {high:.10g} are shown, of {least:.10g} to {most:.10g}"
        guesses.append(f"grey values {shown}")
    kind = values.dtype.type
    clipped = Image.fromarray(np.clip(values, kind(low), kind(high)))
    small = np.asarray(clipped.resize((size, size), Image.Resampling.BILINEAR), np.float64)
    spread = (small - low) / ((high - low) or 1.0) * 255
    return Image.fromarray(np.rint(spread).clip(0, 255).astype(np.uint8))


def upright(small: Image.Image, image: ImageFile) -> Image.Image:
    """Turn the square `small` as the EXIF data of `image`, which it was made from, say."""
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
