"""Transfer syntaxes of DICOM, and which decoder reads each."""

from __future__ import annotations

from pydicom import uid
from pydicom.pixels import get_decoder

from eagle_spark.errors import ImageRejected, Reason
from eagle_spark.imaging.dicom.codestream import JPEG_LS

INSTALL = "pip install 'eagle-spark[dicom]' brings it"
_TEXT = 64  # characters, the longest name of a syntax in an error
# One decoder each, so that a file means the same wherever it is read. GDCM is none of them: it ends
# the process on damaged data. pydicom's own RLE inflates whatever a run promises.
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
PLUGINS = {
    **dict.fromkeys((uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit), "pylibjpeg"),
    **dict.fromkeys((uid.JPEGLossless, uid.JPEGLosslessSV1), "pylibjpeg"),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), "pyjpegls"),
    **dict.fromkeys((uid.JPEG2000Lossless, uid.JPEG2000), "pylibjpeg"),
    uid.RLELossless: "pylibjpeg",
}
# What a codestream is, whatever the file calls it: marker of its frame, None of JPEG 2000.
BY_MARKER: dict[int | None, uid.UID] = {
    0xC0: uid.JPEGBaseline8Bit,
    0xC1: uid.JPEGExtended12Bit,
    0xC3: uid.JPEGLossless,
    JPEG_LS: uid.JPEGLSLossless,
    None: uid.JPEG2000,
}
# Names of the same pixels: the codestream says whether and how they are lossless.
ALIKE = {
    uid.JPEGExtended12Bit: uid.JPEGBaseline8Bit,
    uid.JPEGLosslessSV1: uid.JPEGLossless,
    uid.JPEGLSNearLossless: uid.JPEGLSLossless,
    uid.JPEG2000Lossless: uid.JPEG2000,
}


def check_decoder(syntax: uid.UID | None) -> None:
    """Raise ImageRejected, NO_DECODER, unless the decoder of a transfer syntax is installed."""
    plugin = PLUGINS.get(syntax, "")
    if syntax is None or not plugin:
        name = syntax.name[:_TEXT] if syntax else "this kind of JPEG"
        raise ImageRejected(Reason.NO_DECODER, f"dicom: no decoder for {name}")
    if plugin not in get_decoder(syntax).available_plugins:
        raise ImageRejected(
            Reason.NO_DECODER, f"dicom: no decoder for {syntax.name} installed; {INSTALL}"
        )
