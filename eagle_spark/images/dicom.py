"""DICOM files: one grey frame of a chest, its size known before it is decoded, and few tags.

Imported where a DICOM file is met first: pydicom is the extra `dicom`, and slow to load.
Nothing here logs, and no error names what a patient's tag holds.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from collections.abc import MutableSequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.images.body_part import MODALITIES, is_chest, is_radiograph
from eagle_spark.images.codestream import frame_shape
from eagle_spark.images.decode import MAX_FILE_BYTES, check_segments, check_size
from eagle_spark.images.presentation import show
from eagle_spark.images.quiet import no_warnings

logging.getLogger("pydicom").setLevel(logging.CRITICAL)
logging.getLogger("pylibjpeg").setLevel(logging.CRITICAL)

INSTALL = "pip install 'eagle-spark[dicom]' brings it"
MAX_BITS = 16
MAX_READS = 200_000  # elements and items of sequences in a header: a real one has some hundreds
MAX_ELEMENT = 2**20  # bytes of one that is kept; the largest is a table of 65,536 grey values
_TEXT = 64  # characters, the longest that a kept tag may have

_IMAGE = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_KEPT = (
    *_IMAGE,
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "Modality",
    "BodyPartExamined",
    "PatientID",
    "IssuerOfPatientID",
    "ViewPosition",
    "StudyInstanceUID",
    "SOPInstanceUID",
    "Manufacturer",
    "ManufacturerModelName",
)
# One decoder each, so that a file means the same wherever it is read. GDCM is none of them: it ends
# the process on damaged data. pydicom's own RLE inflates whatever a run promises.
_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
_PLUGINS = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), "pylibjpeg"),
    **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), "pylibjpeg"),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), "pylibjpeg"),
    uid.RLELossless: "pylibjpeg",
}


@dataclass(frozen=True, slots=True)
class Dicom:
    """One DICOM file, decoded.

    Attributes:
        image: mode `L` where the file says how grey values are shown, or has 8 bits; else `I;16`
            or `F`, to be spread over what is found. Black is dark, whatever the file's.
        tags: those of `decode.DICOM_TAGS`; None where the file lacks one.
    """

    image: Image.Image
    tags: dict[str, str | None]


def read_dicom(data: bytes, keep_patient_id: bool = False) -> Dicom:
    """Decode the grey frame that `data` holds, shown as the file says.

    Raises:
        ImageRejected: NOT_AN_IMAGE, NOT_A_CHEST_XRAY, COLOUR, MULTIPLE_FRAMES, TOO_MANY_PIXELS,
            TOO_SMALL, NO_DECODER, TRUNCATED, CORRUPT or FILE_TOO_LARGE.
    """
    try:
        with no_warnings():
            data = _inflated(data)
            header = _header(data)
            tags = _tags(header, keep_patient_id)
            return Dicom(show(_pixels(data, header), header), tags)
    except (ImageRejected, MemoryError):
        raise
    except BaseException as error:
        # What Rust's decoders raise where they notice that they would leave their memory.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        short = isinstance(error, EOFError) or "end of the" in str(error).lower()
        reason = Reason.TRUNCATED if short else Reason.CORRUPT
        raise ImageRejected(reason, f"dicom: {_said(error)}") from None


class _Stream(BytesIO):
    """Bytes that can be read from so often: each element and item costs a read, however short."""

    left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ImageRejected(Reason.CORRUPT, f"dicom: more than {MAX_READS} elements")
        return super().read(size)


def _inflated(data: bytes) -> bytes:
    """Return a deflated file as a plain one, of bounded size."""
    # The group's own length stands in its first element.
    end = 144 + int.from_bytes(data[140:144], "little")
    name = uid.DeflatedExplicitVRLittleEndian.encode()
    if name not in data[132:end]:
        return data
    body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[end:], MAX_FILE_BYTES + 1)
    if len(body) > MAX_FILE_BYTES:
        raise ImageRejected(
            Reason.FILE_TOO_LARGE, f"dicom: inflates to more than {MAX_FILE_BYTES} bytes"
        )
    plain = uid.ExplicitVRLittleEndian.encode().ljust(len(name), b"\0")
    return data[:132] + data[132:end].replace(name, plain) + body


def _header(data: bytes) -> Dataset:
    """Return the tags that are kept, after all that can be said without pixels was checked."""
    stream = _Stream(data)
    header: Dataset = dcmread(
        stream, stop_before_pixels=True, specific_tags=list(_KEPT), defer_size=MAX_ELEMENT
    )
    for tag in list(header.keys()):
        length = getattr(header.get_item(tag), "length", 0) or 0
        if MAX_ELEMENT < length < 0xFFFFFFFF:
            raise ImageRejected(Reason.CORRUPT, f"dicom: element {tag} of {length} bytes")
    modality, part = _joined(header, "Modality"), _joined(header, "BodyPartExamined")
    if modality and not is_radiograph(modality):
        raise ImageRejected(
            Reason.NOT_A_CHEST_XRAY,
            f"dicom: modality {modality[:_TEXT]}, wanted {', '.join(sorted(MODALITIES))}",
        )
    if not is_chest(part):
        raise ImageRejected(Reason.NOT_A_CHEST_XRAY, f"dicom: body part {part[:_TEXT]}")
    if "Rows" not in header or "Columns" not in header:
        if stream.tell() > len(data):
            raise ImageRejected(Reason.TRUNCATED, "dicom: ends within its header")
        raise ImageRejected(Reason.NOT_AN_IMAGE, "dicom: holds no image")
    _check_image(header)
    return header


def _check_image(header: Dataset) -> None:
    colours = str(header.get("PhotometricInterpretation"))
    if header.get("SamplesPerPixel", 1) != 1 or colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageRejected(Reason.COLOUR, f"dicom: {colours[:_TEXT]}, wanted grey")
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise ImageRejected(Reason.MULTIPLE_FRAMES, f"dicom: one frame wanted, found {frames}")
    allocated, stored = header.BitsAllocated, header.BitsStored
    if allocated not in (8, MAX_BITS) or not 1 <= stored <= allocated:
        raise ImageRejected(
            Reason.NO_DECODER, f"dicom: {stored} bits in {allocated}, wanted up to {MAX_BITS}"
        )
    check_size(header.Columns, header.Rows, header.Columns * header.Rows)


def _pixels(data: bytes, header: Dataset) -> NDArray[Any]:
    """Return the stored values: (rows, columns), 8 or 16 bits, signed as the header says."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    plugin = _PLUGINS.get(syntax, "")
    if syntax not in _NATIVE:
        _check_decoder(syntax, plugin)
    found = dcmread(_Stream(data), specific_tags=[*_IMAGE, "PixelData"])
    if "PixelData" not in found or not found.PixelData:
        raise ImageRejected(Reason.TRUNCATED, "dicom: ends before its pixels")
    shape = (int(header.Rows), int(header.Columns))
    if syntax in _NATIVE:
        wanted = shape[0] * shape[1] * header.BitsAllocated // 8
        if len(found.PixelData) < wanted:
            raise ImageRejected(
                Reason.TRUNCATED, f"dicom: {len(found.PixelData)} bytes of pixels, wanted {wanted}"
            )
    else:
        _check_frame(get_frame(found.PixelData, 0, number_of_frames=1), syntax, shape)
    pixels: NDArray[Any]
    pixels, _ = get_decoder(syntax).as_array(found, raw=True, index=0, decoding_plugin=plugin)
    return pixels


def _check_decoder(syntax: uid.UID | None, plugin: str) -> None:
    if syntax is None:
        raise ImageRejected(Reason.CORRUPT, "dicom: names no transfer syntax")
    if not plugin:
        raise ImageRejected(Reason.NO_DECODER, f"dicom: no decoder for {syntax.name[:_TEXT]}")
    if plugin not in get_decoder(syntax).available_plugins:
        raise ImageRejected(
            Reason.NO_DECODER, f"dicom: no decoder for {syntax.name} installed; {INSTALL}"
        )


def _check_frame(frame: bytes, syntax: uid.UID, shape: tuple[int, int]) -> None:
    """Check that what a decoder will make room for is what the header promised."""
    if syntax == uid.RLELossless:  # has no size of its own; the decoder stops at the header's
        return
    check_segments(frame)
    found = frame_shape(frame)
    if found != (*shape, 1):
        raise ImageRejected(
            Reason.CORRUPT, f"dicom: header says {(*shape, 1)}, compressed frame {found}"
        )


def _tags(header: Dataset, keep_patient_id: bool) -> dict[str, str | None]:
    patient = _text(header, "PatientID")
    if patient and not keep_patient_id:
        patient = patient_key(patient, _text(header, "IssuerOfPatientID"))
    return {
        "patient_id": patient,
        "view": _text(header, "ViewPosition"),
        "study_uid": _text(header, "StudyInstanceUID"),
        "sop_uid": _text(header, "SOPInstanceUID"),
        "manufacturer": _text(header, "Manufacturer"),
        "device": _text(header, "ManufacturerModelName"),
    }


def patient_key(patient_id: str, issuer: str | None) -> str:
    """Return what stands for a patient: SHA-256 of issuer (or nothing), newline, id; in UTF-8."""
    return hashlib.sha256(f"{issuer or ''}\n{patient_id}".encode()).hexdigest()


def _joined(header: Dataset, keyword: str) -> str:
    """Return one or several values of an element, in upper case; empty where there is none."""
    value = header.get(keyword)
    several = value if isinstance(value, MutableSequence) else [value or ""]
    return "\\".join(str(one) for one in several).replace("\0", "").strip().upper()


def _text(header: Dataset, keyword: str) -> str | None:
    try:
        text = str(header.get(keyword) or "").replace("\0", "").strip()
    except MemoryError:
        raise
    except Exception:  # not even text: the pixels are good, and no error may say what stands there
        return None
    return text[:_TEXT] or None


def _said(error: BaseException) -> str:
    """Return an error in words that cannot be a patient's."""
    known = (InvalidDicomError, struct.error, ValueError, RuntimeError, AttributeError)
    return str(error)[:200] if isinstance(error, known) else type(error).__name__
