"""DICOM transfer syntaxes and their decoders."""

from __future__ import annotations

from pydicom import uid
from pydicom.pixels import get_decoder

from eagle_spark.errors import ImageRejectedError, Reason, describe_missing
from eagle_spark.imaging.dicom.codestream import JPEG_LS

_MAX_NAME_LENGTH = 64  # characters of a syntax in an error
NATIVE_SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
# One decoder per syntax, so that a file has the same pixels on every machine. GDCM is excluded: it
# ends the process on damaged data. pydicom's own RLE decoder does not limit the size of a run.
DECODER_PLUGINS = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), "pylibjpeg"),
    **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), "pylibjpeg"),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), "pylibjpeg"),
    uid.RLELossless: "pylibjpeg",
}
# Transfer syntax by frame marker, whatever the file declares; None for JPEG 2000.
SYNTAX_BY_MARKER: dict[int | None, uid.UID] = {
    0xC0: uid.JPEGBaseline8Bit,
    0xC1: uid.JPEGExtended12Bit,
    0xC3: uid.JPEGLossless,
    JPEG_LS: uid.JPEGLSLossless,
    None: uid.JPEG2000,
}
# Syntaxes with the same codestream format, whose header states whether and how it is lossless.
EQUIVALENT_SYNTAXES = {
    uid.JPEGExtended12Bit: uid.JPEGBaseline8Bit,
    uid.JPEGLosslessSV1: uid.JPEGLossless,
    uid.JPEGLSNearLossless: uid.JPEGLSLossless,
    uid.JPEG2000Lossless: uid.JPEG2000,
}


def check_decoder(syntax: uid.UID | None) -> None:
    """Raise ImageRejectedError (NO_DECODER) where no installed decoder supports a syntax."""
    plugin = DECODER_PLUGINS.get(syntax, "")
    if syntax is None or not plugin:
        name = syntax.name[:_MAX_NAME_LENGTH] if syntax else "this kind of JPEG"
        raise ImageRejectedError(Reason.NO_DECODER, f"dicom: no decoder for {name}")
    if plugin not in get_decoder(syntax).available_plugins:
        missing = describe_missing("dicom", f"a decoder for {syntax.name}")
        raise ImageRejectedError(Reason.NO_DECODER, missing)
