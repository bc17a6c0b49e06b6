"""DICOM files: one grey frame of a chest, its size known before it is decoded, and few tags.

Imported where a DICOM file is met first: pydicom is the extra `dicom`, and slow to load.
Nothing here logs, and no error names what a patient's tag holds.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging.decode import MAX_FILE_BYTES, check_segments, check_size
from eagle_spark.imaging.dicom.body_part import MODALITIES, is_chest, is_radiograph
from eagle_spark.imaging.dicom.codestream import Frame, find_codestream, read_frame
from eagle_spark.imaging.dicom.presentation import show
from eagle_spark.imaging.dicom.stored_bits import normalise_words
from eagle_spark.imaging.dicom.transfer_syntax import (
    ALIKE,
    BY_MARKER,
    NATIVE,
    PLUGINS,
    check_decoder,
)
from eagle_spark.imaging.quiet import no_warnings

logging.getLogger("pydicom").setLevel(logging.CRITICAL)
logging.getLogger("pylibjpeg").setLevel(logging.CRITICAL)

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
# Where a bit plane of an overlay lies, of each of the 16 overlays that there may be.
_OVERLAY_BITS = tuple((group << 16) | 0x0102 for group in range(0x6000, 0x6020, 2))
_KEPT = (
    *_IMAGE,
    *_OVERLAY_BITS,
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
_ITEM = b"\xfe\xff\x00\xe0"  # tag that begins each part of encapsulated pixels
_META, _DICM = 132, b"DICM"  # where the file's meta group begins, and what stands before it


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


def read_dicom(data: bytes, keep_patient_id: bool, guesses: list[str]) -> Dicom:
    """Decode the grey frame that `data` holds, shown as the file says.

    Args:
        data: the whole file.
        keep_patient_id: take PatientID as it is, not its hash.
        guesses: grows by how each contradiction or gap in the header was resolved.

    Raises:
        ImageRejected: NOT_AN_IMAGE, NOT_A_CHEST_XRAY, COLOUR, MULTIPLE_FRAMES, TOO_MANY_PIXELS,
            TOO_SMALL, NO_DECODER, TRUNCATED, CORRUPT or FILE_TOO_LARGE.
    """
    try:
        with no_warnings():
            data = _inflated(_with_preamble(data))
            header = _header(data, guesses)
            tags = _tags(header, keep_patient_id)
            return Dicom(show(_pixels(data, header, guesses), header, guesses), tags)
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


def _with_preamble(data: bytes) -> bytes:
    """Return a file that begins with its meta group as one that has what comes before it."""
    if data[_META - 4 : _META] == _DICM or not data.startswith(b"\x02\0"):
        return data
    return bytes(_META - 4) + _DICM + data


def _inflated(data: bytes) -> bytes:
    """Return a deflated file as a plain one, of bounded size."""
    end = _end_of_meta(data)
    name = uid.DeflatedExplicitVRLittleEndian.encode()
    if name not in data[_META:end]:
        return data
    body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[end:], MAX_FILE_BYTES + 1)
    if len(body) > MAX_FILE_BYTES:
        raise ImageRejected(
            Reason.FILE_TOO_LARGE, f"dicom: inflates to more than {MAX_FILE_BYTES} bytes"
        )
    plain = uid.ExplicitVRLittleEndian.encode().ljust(len(name), b"\0")
    return data[:_META] + data[_META:end].replace(name, plain) + body


def _end_of_meta(data: bytes) -> int:
    """Return where the meta group ends, by its elements: its own length is often told wrong."""
    at = _META
    while at < len(data) and data[at : at + 2] == b"\x02\0":
        if data[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            at += 12 + int.from_bytes(data[at + 8 : at + 12], "little")
        else:
            at += 8 + int.from_bytes(data[at + 6 : at + 8], "little")
    return at


def _header(data: bytes, guesses: list[str]) -> Dataset:
    """Return the tags that are kept, after all that can be said without pixels was checked."""
    stream = _Stream(data)
    header: Dataset = dcmread(
        stream,
        stop_before_pixels=True,
        specific_tags=list(_KEPT),
        defer_size=MAX_ELEMENT,
        force=True,
    )
    for tag in list(header.keys()):
        length = getattr(header.get_item(tag, keep_deferred=True), "length", 0) or 0
        if MAX_ELEMENT < length < 0xFFFFFFFF:
            del header[tag]  # nothing that is kept is so long
    modality, part = _joined(header, "Modality"), _joined(header, "BodyPartExamined")
    if modality and not is_radiograph(modality):
        raise ImageRejected(
            Reason.NOT_A_CHEST_XRAY,
            f"dicom: modality {modality[:_TEXT]}, wanted {', '.join(sorted(MODALITIES))}",
        )
    if not is_chest(part):
        raise ImageRejected(Reason.NOT_A_CHEST_XRAY, f"dicom: body part {part[:_TEXT]}")
    if part != "CHEST":
        guesses.append(
            f"body part {part[:_TEXT]} is taken for the chest" if part else "no body part"
        )
    if "Rows" not in header or "Columns" not in header:
        if stream.tell() > len(data):
            raise ImageRejected(Reason.TRUNCATED, "dicom: ends within its header")
        raise ImageRejected(Reason.NOT_AN_IMAGE, "dicom: holds no image")
    guesses += _complete(header)
    _check_image(header)
    return header


def _complete(header: Dataset) -> list[str]:
    """Give what describes the pixels its usual value where a file lacks it, or writes it oddly.

    Returns:
        What was set.
    """
    colours = str(header.get("PhotometricInterpretation") or "").strip(" \0").upper()
    header.PhotometricInterpretation = colours or None
    usual: dict[str, Callable[[], object]] = {
        "SamplesPerPixel": lambda: 1,
        "PixelRepresentation": lambda: 0,
        "BitsAllocated": lambda: MAX_BITS,
        "BitsStored": lambda: header.BitsAllocated,
        "HighBit": lambda: header.BitsStored - 1,
        "PhotometricInterpretation": lambda: "MONOCHROME2",
    }
    missing = [keyword for keyword in usual if not header.get(keyword) and header.get(keyword) != 0]
    for keyword in missing:
        setattr(header, keyword, usual[keyword]())
    return [f"no {keyword}, {header.get(keyword)} assumed" for keyword in missing]


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


def _pixels(data: bytes, header: Dataset, guesses: list[str]) -> NDArray[Any]:
    """Return the pixels: (rows, columns), 8 or 16 bits, signed as the header says.

    What the bytes are is told by themselves, where the file says something else: by the items that
    compressed pixels lie in, the first bytes of a codestream, and their number. `BitsStored` of the
    header becomes what the pixels have.
    """
    syntax = named = _syntax(header)
    if not header.file_meta.get("TransferSyntaxUID"):
        guesses.append(f"no TransferSyntaxUID, read as {syntax.name}")
    if syntax not in NATIVE:
        check_decoder(syntax)
    found = dcmread(_Stream(data), specific_tags=[*_IMAGE, "PixelData"], force=True)
    if "PixelData" not in found or not found.PixelData:
        raise ImageRejected(Reason.TRUNCATED, "dicom: ends before its pixels")
    _complete(found)
    raw, stored = found.PixelData, int(header.BitsStored)
    frame = _joined_fragments(raw) if raw.startswith(_ITEM) else None
    size = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    codestream = None
    if frame is not None or syntax not in NATIVE or len(raw) < size:
        codestream = find_codestream(raw if frame is None else frame)
    if codestream is not None:
        told = _check_frame(codestream, header)
        syntax = BY_MARKER.get(told.kind)
        check_decoder(syntax)
        if told.bits != stored:
            guesses.append(f"BitsStored {stored}, the compressed frame has {told.bits}")
        stored = min(stored, told.bits)
        found.BitsAllocated = 8 if told.bits <= 8 else MAX_BITS
        found.BitsStored, found.HighBit = told.bits, told.bits - 1
        _replace_pixels(found, encapsulate([codestream]))
    elif frame is not None:
        if syntax != uid.RLELossless:
            raise ImageRejected(Reason.CORRUPT, "dicom: a compressed frame of no known kind")
        _replace_pixels(found, encapsulate([frame]))
    elif len(raw) < size:
        raise ImageRejected(Reason.TRUNCATED, f"dicom: {len(raw)} bytes of pixels, wanted {size}")
    elif syntax not in NATIVE:
        syntax = uid.ExplicitVRLittleEndian
    if ALIKE.get(syntax, syntax) != ALIKE.get(named, named):
        guesses.append(f"the pixels are {syntax.name}, the header says {named.name}")
    found.file_meta.TransferSyntaxUID = syntax
    words, _ = get_decoder(syntax).as_array(
        found,
        raw=True,
        index=0,
        decoding_plugin=PLUGINS.get(syntax, ""),
        correct_unused_bits=False,
    )
    stored = min(stored, 8 * words.itemsize)
    pixels, header.BitsStored = normalise_words(
        words,
        stored,
        int(header.HighBit),
        header.PixelRepresentation == 1,
        any(header.get(tag) for tag in _OVERLAY_BITS),
    )
    if header.BitsStored != stored:
        guesses.append(f"{stored} bits stored, the pixels use {header.BitsStored}")
    return pixels


def _syntax(header: Dataset) -> uid.UID:
    """Return the transfer syntax; where none is named, that in which the dataset was read."""
    if named := header.file_meta.get("TransferSyntaxUID"):
        return uid.UID(named)
    implicit, little = header.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _joined_fragments(raw: bytes) -> bytes:
    """Return the one frame of encapsulated pixels; where its parts begin, the items say."""
    stream = BytesIO(raw)
    parse_basic_offsets(stream)
    return b"".join(generate_fragments(stream))


def _replace_pixels(found: Dataset, encapsulated: bytes) -> None:
    found.PixelData = encapsulated
    found["PixelData"].is_undefined_length = True


def _check_frame(codestream: bytes, header: Dataset) -> Frame:
    """Check that what a decoder will make room for is what the header promised."""
    check_segments(codestream)
    found = read_frame(codestream)
    wanted = (int(header.Rows), int(header.Columns), 1)
    shape = found and (found.rows, found.columns, found.components)
    if found is None or shape != wanted:
        raise ImageRejected(
            Reason.CORRUPT, f"dicom: header says {wanted}, compressed frame {shape}"
        )
    return found


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
        "intent": _text(header, "PresentationIntentType"),
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
