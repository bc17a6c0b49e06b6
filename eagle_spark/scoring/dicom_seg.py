"""The predicted lungs of one DICOM X-ray as a DICOM Segmentation."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eagle_spark import __version__
from eagle_spark.errors import InputError, OutputError, require_extra
from eagle_spark.imaging.decode import MAX_FILE_BYTES, decode_image
from eagle_spark.imaging.quiet import suppress_warnings
from eagle_spark.io import absolute_uri, read_bytes
from eagle_spark.model.predictor import Model, load_model

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

NAME = "eagle_spark"
# Type 2 in DICOM's patient and study modules: anonymised files may lack them.
MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def segment(data: bytes, model: Model) -> Segmentation:
    """Return a Segmentation of one segment, Lung, in the pixels of the image.

    It repeats the patient and study of the image, as DICOM requires: access to both has to be
    restricted in the same way.

    Args:
        data: a DICOM file.
        model: predicts the lungs.

    Raises:
        ImageRejectedError: as `decode_image`.
        InputError: when the file is no DICOM, or an attribute that is repeated is missing.
    """
    image = decode_image(data, model.size)
    if image.dicom is None:
        raise InputError("wanted a DICOM image; got another format")
    (prediction,) = model.predict_images([image])
    assert prediction.mask is not None
    lungs = Image.fromarray(prediction.mask)
    whole = lungs.resize((image.width, image.height), Image.Resampling.NEAREST)
    return _make_segmentation(data, np.asarray(whole), model.id)


def _make_segmentation(data: bytes, mask: NDArray[np.bool_], model_id: str) -> Segmentation:
    import highdicom as hd
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name=NAME, family=codes.DCM.ArtificialIntelligence, version=model_id[:16]
    )
    lung = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Lungs",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    try:
        with suppress_warnings():
            source = dcmread(BytesIO(data), stop_before_pixels=True, force=True)
            source.decode()
            # The text is repeated, in another encoding than that of the source.
            source.SpecificCharacterSet = "ISO_IR 192"
            # A projection has no slices, and highdicom's reader rejects a pixel spacing without a
            # slice thickness. The referenced image has the spacing.
            source.pop("PixelSpacing", None)
            for keyword in MAY_BE_EMPTY:
                source.setdefault(keyword, "")
            return hd.seg.Segmentation(
                source_images=[source],
                pixel_array=mask,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[lung],
                series_instance_uid=hd.UID(),
                series_number=1,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=NAME,
                manufacturer_model_name=NAME,
                software_versions=__version__,
                device_serial_number=model_id[:16],
                content_label="LUNGS",
                content_description="Research use only",
                omit_empty_frames=False,
            )
    except (AttributeError, KeyError) as error:
        # The name of the attribute alone: no text of the file.
        name = getattr(error, "name", None) or "an attribute"
        raise InputError(f"the image lacks {name}, which a Segmentation repeats") from error
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(_describe_defect(error)) from error


def _describe_defect(error: Exception) -> str:
    """Return an error text without any text of the file, which may be a patient's."""
    return (
        "the patient, study or series of the image cannot be repeated in a Segmentation:"
        f" {type(error).__name__}"
    )


def write_segmentation(image: str, model: str, out: Path) -> None:
    """Write the lungs of a DICOM X-ray as a Segmentation.

    Args:
        image: path or URI of the DICOM file.
        model: URI of the model folder.
        out: file to write; must not exist.

    Raises:
        ImageRejectedError: as `decode_image`.
        InputError: when the image is no DICOM, or an attribute that is repeated is missing.
        OutputError: when `out` exists or cannot be written.
        PlatformError: when the extra `dicom` is not installed.
    """
    require_extra("dicom", "highdicom")
    if out.exists():
        raise OutputError(f"`out` {out} exists")
    segmentation = segment(read_bytes(absolute_uri(image), MAX_FILE_BYTES), load_model(model))
    try:
        with suppress_warnings():
            segmentation.save_as(out)
    except OSError as error:
        raise OutputError(f"`out` {out} cannot be written: {error.strerror}") from error
    except Exception as error:
        out.unlink(missing_ok=True)
        raise InputError(_describe_defect(error)) from error
