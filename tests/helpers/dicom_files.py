"""DICOM X-rays made by code, one of each transfer syntax, and those that pydicom ships.

What no library here writes (lossless JPEG) is written below; of 12-bit JPEG pydicom ships one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items

from tests.helpers.sample_images import encode_image, picture

PATIENT = "1042-Grün"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


def chest(side: int = 64, bits: int = 12) -> NDArray[np.uint16]:
    """Return the sample picture with `bits` bits and fine detail in the lower bits."""
    fine = np.indices((side, side)).sum(axis=0) % 7
    deep = picture(side).astype(np.uint16) * ((1 << bits) // 256) + (fine if bits > 8 else 0)
    return np.minimum(deep, (1 << bits) - 1).astype(np.uint16)


def dataset(pixels: NDArray[Any], bits: int = 12, **tags: Any) -> Dataset:
    """An X-ray as a detector sends it, its pixels native; `tags` by keyword, None to leave out."""
    allocated = 8 if bits <= 8 else 16
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = DX
    item.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    values = {
        "SOPClassUID": DX,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3",
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Nobody^At^All",
        "PatientID": PATIENT,
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "Manufacturer": "Eagle",
        "ManufacturerModelName": "E1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    } | tags
    for keyword, value in values.items():
        if value is not None:
            setattr(item, keyword, value)
    kind = ("i" if item.PixelRepresentation else "u") + str(allocated // 8)
    item.PixelData = pixels.astype(f"<{kind}").tobytes()
    item["PixelData"].VR = "OB" if allocated == 8 else "OW"
    return item


def written(item: Dataset) -> bytes:
    stream = BytesIO()
    item.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def dicom(pixels: NDArray[Any] | None = None, bits: int = 12, **tags: Any) -> bytes:
    return written(dataset(chest(bits=bits) if pixels is None else pixels, bits, **tags))


def lut(entries: Sequence[int], first: int = 0, bits: int = 8) -> Items:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US", list(entries))
    return Items([item])


def native(syntax: uid.UID) -> Callable[[], bytes]:
    def make() -> bytes:
        item = dataset(chest())
        item.file_meta.TransferSyntaxUID = syntax
        if syntax == uid.ExplicitVRBigEndian:
            item.PixelData = chest().astype(">u2").tobytes()
        return written(item)

    return make


def compressed(syntax: uid.UID, bits: int = 12, **options: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        item = dataset(chest(bits=bits), bits)
        item.compress(syntax, generate_instance_uid=False, **options)
        return written(item)

    return make


def enclosed(frame: bytes, syntax: uid.UID, bits: int = 12, **tags: Any) -> bytes:
    """Return a DICOM file around a compressed frame."""
    item = dataset(chest(bits=bits), bits, **tags)
    item.file_meta.TransferSyntaxUID = syntax
    item.PixelData = encapsulate([frame])
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = True
    return written(item)


def jpeg() -> bytes:
    image = Image.fromarray(chest(bits=8).astype(np.uint8))
    return enclosed(encode_image(image, "JPEG", quality=98), uid.JPEGBaseline8Bit, 8)


def lossless_jpeg(pixels: NDArray[np.uint16], bits: int) -> bytes:
    """ISO 10918-1 annex H, selection value 1 (the left neighbour), codes of 5 bits for all."""
    rows, columns = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (bits - 1)
    words = []
    for difference in (values - predicted).ravel().tolist():
        size = abs(difference).bit_length()
        extra = difference if difference >= 0 else difference + (1 << size) - 1
        words.append(f"{size:05b}" + (f"{extra:0{size}b}" if size else ""))
    stream = "".join(words)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")
    return (
        b"\xff\xd8"
        + struct.pack(">2sHBHHBBBB", b"\xff\xc3", 11, bits, rows, columns, 1, 1, 0x11, 0)
        + struct.pack(">2sHB16B17B", b"\xff\xc4", 36, 0, *(0, 0, 0, 0, 17), *[0] * 11, *range(17))
        + struct.pack(">2sHBBBBBB", b"\xff\xda", 8, 1, 1, 0, 1, 0, 0)
        + scan
        + b"\xff\xd9"
    )


def lossless(syntax: uid.UID) -> Callable[[], bytes]:
    return lambda: enclosed(lossless_jpeg(chest(), 12), syntax)


def shipped(name: str, **tags: Any) -> bytes:
    """A file that pydicom ships, called a chest X-ray; its pixels and how they are kept stay."""
    item = dcmread(str(get_testdata_file(name)))
    for keyword, value in ({"Modality": "DX", "BodyPartExamined": "CHEST"} | tags).items():
        setattr(item, keyword, value)
    stream = BytesIO()
    item.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def deflated_bomb(size: int) -> bytes:
    """A small file that inflates to `size` bytes of one private element."""
    item = dataset(chest())
    item.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data = written(item)
    end = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = packer.compress(struct.pack("<HH2sHI", 9, 0x1000, b"OB", 0, size))
    block = bytes(2**20)
    body += b"".join(packer.compress(block) for _ in range(size // len(block)))
    return data[:end] + body + packer.flush()


# UID -> factory of a file, and the largest difference of a pixel in its grey levels.
SYNTAXES: dict[uid.UID, tuple[Callable[[], bytes], int]] = {
    uid.ImplicitVRLittleEndian: (native(uid.ImplicitVRLittleEndian), 0),
    uid.ExplicitVRLittleEndian: (native(uid.ExplicitVRLittleEndian), 0),
    uid.ExplicitVRBigEndian: (native(uid.ExplicitVRBigEndian), 0),
    uid.DeflatedExplicitVRLittleEndian: (native(uid.DeflatedExplicitVRLittleEndian), 0),
    uid.RLELossless: (compressed(uid.RLELossless), 0),
    uid.JPEGBaseline8Bit: (jpeg, 8),
    uid.JPEGLossless: (lossless(uid.JPEGLossless), 0),
    uid.JPEGLosslessSV1: (lossless(uid.JPEGLosslessSV1), 0),
    uid.JPEGLSLossless: (compressed(uid.JPEGLSLossless), 0),
    uid.JPEGLSNearLossless: (compressed(uid.JPEGLSNearLossless, jls_error=2), 2),
    uid.JPEG2000Lossless: (compressed(uid.JPEG2000Lossless), 0),
    uid.JPEG2000: (compressed(uid.JPEG2000, j2k_cr=[4]), 64),
}
