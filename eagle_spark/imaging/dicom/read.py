"""Decode DICOM files: one grey frame of a chest X-ray and `DICOM_TAGS`.

Sizes are checked before decoding. The first DICOM file imports this module: pydicom is the extra
`dicom`, and slow to load. Nothing here logs, and no error contains the value of a patient's tag.
"""

from __future__ import annotations

import hashlib
import logging
import re
import struct
import zlib
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder

from eagle_spark.errors import ImageRejectedError, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES, check_jpeg_segments, check_size
from eagle_spark.imaging.dicom.body_part import MODALITIES, is_chest, is_radiograph
from eagle_spark.imaging.dicom.codestream import FrameHeader, find_codestream, read_frame_header
from eagle_spark.imaging.dicom.presentation import apply_voi_lut
from eagle_spark.imaging.dicom.stored_bits import normalise_words
from eagle_spark.imaging.dicom.transfer_syntax import (
    DECODER_PLUGINS,
    EQUIVALENT_SYNTAXES,
    NATIVE_SYNTAXES,
    SYNTAX_BY_MARKER,
    check_decoder,
)
from eagle_spark.imaging.quiet import suppress_warnings

logging.getLogger("pydicom").setLevel(logging.CRITICAL)
logging.getLogger("pylibjpeg").setLevel(logging.CRITICAL)

MAX_BITS = 16
MAX_READS = 200_000  # elements and items of sequences in a header; real headers have hundreds
MAX_ELEMENT_BYTES = 2**20  # of an element read here; the largest is a LUT of 65,536 grey values
_TEXT = re.compile(r"[^\x00-\x1f\x7f^=]{0,64}")  # of a tag, in the tables and in errors

_PIXEL_TAGS = (
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
# Bit position of each of the 16 possible overlays.
_OVERLAY_BIT_TAGS = tuple((group << 16) | 0x0102 for group in range(0x6000, 0x6020, 2))
_HEADER_TAGS = (
    *_PIXEL_TAGS,
    *_OVERLAY_BIT_TAGS,
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
    "PresentationIntentType",
)
_ITEM_TAG = b"\xfe\xff\x00\xe0"  # begins each fragment of encapsulated pixels
_META_OFFSET, _PREFIX = 132, b"DICM"  # offset of the meta group, and the bytes before it


@dataclass(frozen=True, slots=True)
class DicomImage:
    """One decoded DICOM file.

    Attributes:
        image: mode `L` where the file defines the displayed grey range or has 8 bits; else `I;16`
            or `F`, to be scaled by its grey range. Low values are dark in every file.
        tags: `decode.DICOM_TAGS`; None for each missing tag.
    """

    image: Image.Image
    tags: dict[str, str | None]


def read_dicom(data: bytes, keep_patient_id: bool, notes: list[str]) -> DicomImage:
    """Decode the single grey frame of a DICOM file, with its LUTs and window applied.

    Args:
        data: the whole file.
        keep_patient_id: keep PatientID instead of its hash.
        notes: the resolution of each missing or contradictory element is appended.

    Raises:
        ImageRejectedError: NOT_AN_IMAGE, NOT_A_CHEST_XRAY, COLOUR, MULTIPLE_FRAMES,
            TOO_MANY_PIXELS, TOO_SMALL, NO_DECODER, TRUNCATED, CORRUPT or FILE_TOO_LARGE.
    """
    try:
        with suppress_warnings():
            data = _inflate(_add_preamble(data))
            header = _read_header(data, notes)
            tags = _read_tags(header, keep_patient_id)
            pixels = _decode_pixels(data, header, notes)
            return DicomImage(apply_voi_lut(pixels, header, notes), tags)
    except (ImageRejectedError, MemoryError):
        raise
    except BaseException as error:
        # Decoders in Rust raise PanicException at an access outside their memory.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        is_truncated = isinstance(error, EOFError) or "end of the" in str(error).lower()
        reason = Reason.TRUNCATED if is_truncated else Reason.CORRUPT
        raise ImageRejectedError(reason, f"dicom: {_describe_error(error)}") from None


class _LimitedStream(BytesIO):
    """Stream with at most `MAX_READS` reads; each element and item costs one, however short."""

    remaining_reads = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.remaining_reads -= 1
        if self.remaining_reads < 0:
            raise ImageRejectedError(Reason.CORRUPT, f"dicom: more than {MAX_READS} elements")
        return super().read(size)


def _add_preamble(data: bytes) -> bytes:
    """Add preamble and prefix to a file that begins with its meta group."""
    if data[_META_OFFSET - 4 : _META_OFFSET] == _PREFIX or not data.startswith(b"\x02\0"):
        return data
    return bytes(_META_OFFSET - 4) + _PREFIX + data


def _inflate(data: bytes) -> bytes:
    """Decompress a deflated file to at most `MAX_FILE_BYTES`; return other files unchanged."""
    end = _find_meta_end(data)
    name = uid.DeflatedExplicitVRLittleEndian.encode()
    if name not in data[_META_OFFSET:end]:
        return data
    body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[end:], MAX_FILE_BYTES + 1)
    if len(body) > MAX_FILE_BYTES:
        raise ImageRejectedError(
            Reason.FILE_TOO_LARGE, f"dicom: inflates to more than {MAX_FILE_BYTES} bytes"
        )
    plain = uid.ExplicitVRLittleEndian.encode().ljust(len(name), b"\0")
    return data[:_META_OFFSET] + data[_META_OFFSET:end].replace(name, plain) + body


def _find_meta_end(data: bytes) -> int:
    """Return the offset after the meta group, by its elements: its length is often wrong."""
    offset = _META_OFFSET
    while offset < len(data) and data[offset : offset + 2] == b"\x02\0":
        if data[offset + 4 : offset + 6] in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            offset += 12 + int.from_bytes(data[offset + 8 : offset + 12], "little")
        else:
            offset += 8 + int.from_bytes(data[offset + 6 : offset + 8], "little")
    return offset


def _read_header(data: bytes, notes: list[str]) -> Dataset:
    """Read `_HEADER_TAGS` and check them before any pixel is decoded."""
    stream = _LimitedStream(data)
    header: Dataset = dcmread(
        stream,
        stop_before_pixels=True,
        specific_tags=list(_HEADER_TAGS),
        defer_size=MAX_ELEMENT_BYTES,
        force=True,
    )
    for tag in list(header.keys()):
        length = getattr(header.get_item(tag, keep_deferred=True), "length", 0) or 0
        if MAX_ELEMENT_BYTES < length < 0xFFFFFFFF:
            del header[tag]  # no element read here is that long
    modality = _join_values(header, "Modality")
    body_part = _join_values(header, "BodyPartExamined")
    if modality and not is_radiograph(modality):
        raise ImageRejectedError(
            Reason.NOT_A_CHEST_XRAY,
            f"dicom: wanted modality {', '.join(sorted(MODALITIES))}; got {_quote(modality)}",
        )
    if not is_chest(body_part):
        raise ImageRejectedError(
            Reason.NOT_A_CHEST_XRAY, f"dicom: wanted body part CHEST; got {_quote(body_part)}"
        )
    if body_part != "CHEST":
        notes.append(
            f"body part {_quote(body_part)} is read as chest" if body_part else "no body part"
        )
    if "Rows" not in header or "Columns" not in header:
        if stream.tell() > len(data):
            raise ImageRejectedError(Reason.TRUNCATED, "dicom: ends inside its header")
        raise ImageRejectedError(Reason.NOT_AN_IMAGE, "dicom: no image")
    notes += _fill_missing(header)
    _check_image(header)
    return header


def _quote(value: str) -> str:
    """Return a value up to the header of the next element, which a damaged length swallows."""
    return _TEXT.match(value)[0]  # type: ignore[index]


def _fill_missing(header: Dataset) -> list[str]:
    """Set missing elements that describe the pixels to their usual values.

    Returns:
        Notes on the elements set.
    """
    photometric = str(header.get("PhotometricInterpretation") or "").strip(" \0").upper()
    header.PhotometricInterpretation = photometric or None
    defaults: dict[str, Callable[[], object]] = {
        "SamplesPerPixel": lambda: 1,
        "PixelRepresentation": lambda: 0,
        "BitsAllocated": lambda: MAX_BITS,
        "BitsStored": lambda: header.BitsAllocated,
        "HighBit": lambda: header.BitsStored - 1,
        "PhotometricInterpretation": lambda: "MONOCHROME2",
    }
    missing = [name for name in defaults if not header.get(name) and header.get(name) != 0]
    for keyword in missing:
        setattr(header, keyword, defaults[keyword]())
    return [f"no {keyword}, {header.get(keyword)} assumed" for keyword in missing]


def _check_image(header: Dataset) -> None:
    photometric = str(header.get("PhotometricInterpretation"))
    if header.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageRejectedError(Reason.COLOUR, f"dicom: wanted grey; got {_quote(photometric)}")
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise ImageRejectedError(Reason.MULTIPLE_FRAMES, f"dicom: wanted one frame; got {frames}")
    allocated, stored = header.BitsAllocated, header.BitsStored
    if allocated not in (8, MAX_BITS) or not 1 <= stored <= allocated:
        raise ImageRejectedError(
            Reason.NO_DECODER, f"dicom: wanted up to {MAX_BITS} bits; got {stored} in {allocated}"
        )
    check_size(header.Columns, header.Rows, header.Columns * header.Rows)


def _decode_pixels(data: bytes, header: Dataset, notes: list[str]) -> NDArray[np.integer]:
    """Decode the pixels and set `BitsStored` of the header to the bits that they use.

    Where the declared transfer syntax contradicts the bytes, the bytes decide: the items of
    encapsulated pixels, the first bytes of a codestream, and the number of bytes.

    Returns:
        `(rows, columns)`, 8 or 16 bits, signed as in the header.
    """
    syntax = declared = _find_transfer_syntax(header)
    if not header.file_meta.get("TransferSyntaxUID"):
        notes.append(f"no TransferSyntaxUID, read as {syntax.name}")
    if syntax not in NATIVE_SYNTAXES:
        check_decoder(syntax)
    dataset = dcmread(_LimitedStream(data), specific_tags=[*_PIXEL_TAGS, "PixelData"], force=True)
    if "PixelData" not in dataset or not dataset.PixelData:
        raise ImageRejectedError(Reason.TRUNCATED, "dicom: ends before its pixels")
    _fill_missing(dataset)
    raw, stored = dataset.PixelData, int(header.BitsStored)
    frame = _join_fragments(raw) if raw.startswith(_ITEM_TAG) else None
    size = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    codestream = None
    if frame is not None or syntax not in NATIVE_SYNTAXES or len(raw) < size:
        codestream = find_codestream(raw if frame is None else frame)
    if codestream is not None:
        frame_header = _check_frame_header(codestream, header)
        syntax = SYNTAX_BY_MARKER.get(frame_header.marker)
        check_decoder(syntax)
        bits = frame_header.bits
        if bits != stored:
            notes.append(f"BitsStored {stored}, the compressed frame has {bits}")
        stored = min(stored, bits)
        dataset.BitsAllocated = 8 if bits <= 8 else MAX_BITS
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        _replace_pixels(dataset, encapsulate([codestream]))
    elif frame is not None:
        if syntax != uid.RLELossless:
            raise ImageRejectedError(Reason.CORRUPT, "dicom: unknown compressed format")
        _replace_pixels(dataset, encapsulate([frame]))
    elif len(raw) < size:
        raise ImageRejectedError(
            Reason.TRUNCATED, f"dicom: wanted {size} bytes of pixels; got {len(raw)}"
        )
    elif syntax not in NATIVE_SYNTAXES:
        syntax = uid.ExplicitVRLittleEndian
    if EQUIVALENT_SYNTAXES.get(syntax, syntax) != EQUIVALENT_SYNTAXES.get(declared, declared):
        notes.append(f"the pixels are {syntax.name}, the header declares {declared.name}")
    dataset.file_meta.TransferSyntaxUID = syntax
    words, _ = get_decoder(syntax).as_array(
        dataset,
        raw=True,
        index=0,
        decoding_plugin=DECODER_PLUGINS.get(syntax, ""),
        correct_unused_bits=False,
    )
    stored = min(stored, 8 * words.itemsize)
    pixels, header.BitsStored = normalise_words(
        words,
        stored,
        int(header.HighBit),
        header.PixelRepresentation == 1,
        any(header.get(tag) for tag in _OVERLAY_BIT_TAGS),
    )
    if header.BitsStored != stored:
        notes.append(f"{stored} bits stored, the pixels use {header.BitsStored}")
    return pixels


def _find_transfer_syntax(header: Dataset) -> uid.UID:
    """Return the declared transfer syntax, else that in which pydicom read the dataset."""
    if declared := header.file_meta.get("TransferSyntaxUID"):
        return uid.UID(declared)
    is_implicit, is_little_endian = header.original_encoding
    if is_implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if is_little_endian else uid.ExplicitVRBigEndian


def _join_fragments(raw: bytes) -> bytes:
    """Join the fragments of encapsulated pixels by their items, ignoring the offset table."""
    stream = BytesIO(raw)
    parse_basic_offsets(stream)
    return b"".join(generate_fragments(stream))


def _replace_pixels(dataset: Dataset, encapsulated: bytes) -> None:
    dataset.PixelData = encapsulated
    dataset["PixelData"].is_undefined_length = True


def _check_frame_header(codestream: bytes, header: Dataset) -> FrameHeader:
    """Check that a decoder will allocate no other size than that of the header."""
    check_jpeg_segments(codestream)
    frame = read_frame_header(codestream)
    expected = (int(header.Rows), int(header.Columns), 1)
    shape = frame and (frame.rows, frame.columns, frame.components)
    if frame is None or shape != expected:
        raise ImageRejectedError(
            Reason.CORRUPT, f"dicom: wanted a compressed frame of {expected}; got {shape}"
        )
    return frame


def _read_tags(header: Dataset, keep_patient_id: bool) -> dict[str, str | None]:
    patient_id = _read_text(header, "PatientID")
    if patient_id and not keep_patient_id:
        patient_id = hash_patient_id(patient_id, _read_text(header, "IssuerOfPatientID"))
    return {
        "patient_id": patient_id,
        "view": _read_text(header, "ViewPosition"),
        "study_uid": _read_text(header, "StudyInstanceUID"),
        "sop_uid": _read_text(header, "SOPInstanceUID"),
        "manufacturer": _read_text(header, "Manufacturer"),
        "device": _read_text(header, "ManufacturerModelName"),
        "intent": _read_text(header, "PresentationIntentType"),
    }


def hash_patient_id(patient_id: str, issuer: str | None) -> str:
    """Return the SHA-256 of issuer (or nothing), newline and id, in UTF-8."""
    return hashlib.sha256(f"{issuer or ''}\n{patient_id}".encode()).hexdigest()


def _join_values(header: Dataset, keyword: str) -> str:
    """Return the values of an element in upper case, joined by backslashes; empty without one."""
    values = header.get(keyword)
    values = values if isinstance(values, MutableSequence) else [values or ""]
    return "\\".join(str(value) for value in values).replace("\0", "").strip().upper()


def _read_text(header: Dataset, keyword: str) -> str | None:
    try:
        text = str(header.get(keyword) or "").replace("\0", "").strip()
    except MemoryError:
        raise
    except Exception:  # not even text: the pixels are valid, and no error may contain the value
        return None
    return _quote(text) or None


def _describe_error(error: BaseException) -> str:
    """Describe an error without text that could contain a patient's data."""
    safe_types = (InvalidDicomError, struct.error, ValueError, RuntimeError, AttributeError)
    return str(error)[:200] if isinstance(error, safe_types) else type(error).__name__
