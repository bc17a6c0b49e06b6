"""`eagle-dicom-seg`: the lungs that a model finds in one DICOM X-ray, as a DICOM Segmentation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eagle_spark import __version__
from eagle_spark.errors import (
    EagleError,
    ImageRejected,
    InputError,
    OutputError,
    PlatformError,
)
from eagle_spark.imaging.decode import MAX_FILE_BYTES, read_radiograph
from eagle_spark.imaging.quiet import no_warnings
from eagle_spark.io import absolute_uri, read_image
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import choose_engine, load_engine
from eagle_spark.options import Parser, local_path

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

NAME = "eagle_spark"
# Of type 2 in DICOM's patient and study modules: a file that was anonymised may lack them.
MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def segment(data: bytes, bundle: Bundle) -> Segmentation:
    """Return a Segmentation of one segment, Lung, pixel for pixel that of the image.

    It carries the patient and study of the image, as DICOM wants it: whoever may see the one may
    see the other.

    Raises:
        ImageRejected: as `read_radiograph`; NOT_AN_IMAGE for what is no DICOM.
        InputError: when the image lacks what a Segmentation has to repeat of it.
    """
    radiograph = read_radiograph(data, bundle.size)
    if radiograph.dicom is None:
        raise InputError("a DICOM image is wanted; this is none")
    engine = load_engine(bundle, choose_engine(bundle, "auto"), threads=1)
    masks = engine.predict(radiograph.pixels[None]).mask
    lungs = Image.fromarray(masks[0] >= bundle.threshold)
    whole = lungs.resize((radiograph.width, radiograph.height), Image.Resampling.NEAREST)
    return _object(data, np.asarray(whole), bundle)


def _object(data: bytes, mask: NDArray[np.bool_], bundle: Bundle) -> Segmentation:
    import highdicom as hd
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name=NAME, family=codes.DCM.ArtificialIntelligence, version=bundle.model_id[:16]
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
        with no_warnings():
            source = dcmread(BytesIO(data), stop_before_pixels=True, force=True)
            source.decode()
            # What is written repeats the text, and not how the source encoded it.
            source.SpecificCharacterSet = "ISO_IR 192"
            # A projection has no slices: measures of pixels without a thickness are none to
            # highdicom's own reader. The image that is referred to has the spacing.
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
                device_serial_number=bundle.model_id[:16],
                content_label="LUNGS",
                content_description="Research use only",
                omit_empty_frames=False,
            )
    except (AttributeError, KeyError) as error:
        # Of the whole sentence the attribute alone: nothing that stands in the file.
        name = getattr(error, "name", None) or "an attribute"
        raise InputError(f"the image lacks {name}, which a Segmentation repeats") from error
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(_refused(error)) from error


def _refused(error: Exception) -> str:
    """Return that an image cannot be repeated, in words that cannot be a patient's."""
    return (
        "the patient, study or series of the image cannot be repeated in a Segmentation:"
        f" {type(error).__name__}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the Segmentation; 2 and one line on standard error where something is to be mended."""
    parser = Parser(
        prog="eagle-dicom-seg",
        description="Write the lungs of one DICOM X-ray as a Segmentation. Research use only.",
    )
    parser.add_argument("image", metavar="IMAGE", help="DICOM file or URI")
    parser.add_argument("--model", metavar="URI", required=True, help="model folder")
    parser.add_argument(
        "--out", metavar="FILE", type=local_path, required=True, help="file to write"
    )
    given = parser.parse_args(argv)
    try:
        _write(given.image, given.model, given.out)
    except ImageRejected as rejected:
        return _failed(f"{given.image}: {rejected}", InputError.exit_code)
    except EagleError as error:
        return _failed(str(error), error.exit_code)
    print(given.out)
    return 0


def _write(image: str, model: str, out: Path) -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise PlatformError("pip install 'eagle-spark[dicom]' brings what this needs") from error
    if out.exists():
        raise OutputError(f"--out {out} exists")
    found = segment(read_image(absolute_uri(image), MAX_FILE_BYTES), open_bundle(model))
    try:
        with no_warnings():
            found.save_as(out)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written: {error.strerror}") from error
    except Exception as error:
        out.unlink(missing_ok=True)
        raise InputError(_refused(error)) from error


def _failed(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
