"""Exceptions, reasons of rejection, exit codes and the extras of the installation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from importlib.util import find_spec
from typing import NamedTuple

# The text before an `@`, unless only a host precedes the path. `Path` collapses two slashes into
# one.
_CREDENTIALS = re.compile(
    r"(?<=\w:)(/{1,2}(?!/)|/{3}(?=[^/\s]+:[^/\s]+@))"
    r"(?!(?:[\w.-]*|\[[\dA-Fa-f:.]+\])(?::\d{1,5})?/)\S*@",
    re.ASCII,
)


def redact_credentials(text: str) -> str:
    """Return `text` without the users and passwords of URIs."""
    return _CREDENTIALS.sub(r"\1…@", text)


class Reason(str, Enum):
    """Why a file or workbook row is rejected; the tables store the value as text."""

    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    FILE_TOO_LARGE = "file_too_large"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    MULTIPLE_FRAMES = "multiple_frames"
    NOT_A_CHEST_XRAY = "not_a_chest_xray"
    COLOUR = "colour"
    NO_CONTRAST = "no_contrast"
    NO_DECODER = "no_decoder"
    MASK_MISSING = "mask_missing"
    MASK_INVALID = "mask_invalid"
    MASK_EMPTY = "mask_empty"
    METADATA_WITHOUT_FILE = "metadata_without_file"
    BAD_METADATA_ROW = "bad_metadata_row"
    UNSAFE_NAME = "unsafe_name"
    AMBIGUOUS_FILE = "ambiguous_file"
    BAD_ARCHIVE = "bad_archive"
    BAD_MEMBER = "bad_member"
    CONFLICTING_LABELS = "conflicting_labels"
    UNKNOWN_CLASS = "unknown_class"

    def __str__(self) -> str:
        return self.value


REASON_MEANINGS = {
    Reason.EMPTY_FILE: "the file is empty",
    Reason.UNREADABLE: "the file cannot be read",
    Reason.FILE_TOO_LARGE: "the file is too large",
    Reason.NOT_AN_IMAGE: "unsupported image format",
    Reason.TRUNCATED: "the file is truncated",
    Reason.CORRUPT: "the file is corrupt",
    Reason.TOO_MANY_PIXELS: "the image has too many pixels",
    Reason.TOO_SMALL: "the image is too small",
    Reason.MULTIPLE_FRAMES: "the file contains several images",
    Reason.NOT_A_CHEST_XRAY: "the image is not a chest X-ray",
    Reason.COLOUR: "the image is in colour",
    Reason.NO_CONTRAST: "the image has no contrast",
    Reason.NO_DECODER: "no decoder for this format is installed",
    Reason.MASK_MISSING: "the class folder has masks, but none for this image",
    Reason.MASK_INVALID: "the mask cannot be read, or an area is neither background nor lung",
    Reason.MASK_EMPTY: "the mask has no lung pixel at the stored size",
    Reason.METADATA_WITHOUT_FILE: "no image belongs to the workbook row",
    Reason.BAD_METADATA_ROW: "the workbook row is not usable, or contradicts another row",
    Reason.UNSAFE_NAME: "a name leaves the class folder, or is not valid UTF-8",
    Reason.AMBIGUOUS_FILE: "several images fit a workbook row, or several masks fit the image",
    Reason.BAD_ARCHIVE: "the archive cannot be read to its end",
    Reason.BAD_MEMBER: "the archive member is encrypted, not a regular file, unsafe or damaged",
    Reason.CONFLICTING_LABELS: "the same bytes occur with two labels",
    Reason.UNKNOWN_CLASS: "the model has no class of this name",
}
"""Reason -> the fact that causes the rejection; the viewer and the reference pages show it."""
# Exit code of a job that published a result which a person must check.
EXIT_NEEDS_ATTENTION = 3
RETRYABLE_REASONS = (Reason.UNREADABLE, Reason.BAD_ARCHIVE, Reason.NO_DECODER)
"""Reasons that may not apply to the same file in the next run."""


class EagleError(Exception):
    """Raised when a job fails; exit code 1. The JSON line of the job contains `figures`.

    The text omits credentials of URIs.
    """

    exit_code = 1
    figures: Mapping[str, object] = {}  # read-only

    def __str__(self) -> str:
        return redact_credentials(super().__str__())


class UserError(EagleError):
    """Raised when the user must correct arguments, input or environment; exit code 2."""

    exit_code = 2


class SettingsError(UserError):
    """Raised when an option or a key of the settings file is unknown or out of range."""


class InputError(UserError):
    """Raised when an input is missing or cannot be read by the job."""


class SplitLeakageError(InputError):
    """Raised when a patient, a file or its near duplicates are in more than one split."""


class WorkbookError(InputError):
    """Raised when a metadata workbook cannot be read."""


class OutputError(UserError):
    """Raised when an output path is not writable or already exists."""


class PlatformError(UserError):
    """Raised when Java, Spark, a jar or another resource of a job is missing."""


class ModelError(UserError):
    """Raised when a model folder is incomplete, altered or of another format."""


class AuditError(EagleError):
    """Raised when the row counts of a run do not add up; nothing is published."""


class CommitConflictError(EagleError):
    """Raised when another run published to the table first."""


class FailureRateError(EagleError):
    """Raised when more images fail than the run allows; nothing is published."""


class ImageRejectedError(EagleError):
    """Raised when one image or mask is rejected; becomes a row and does not stop the run."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageRejectedError], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)


class Extra(NamedTuple):
    """An extra of the package `eagle-spark`.

    Attributes:
        purpose: what needs it, in errors.
        modules: one of each of its packages, in the order of `pyproject.toml`.
    """

    purpose: str
    modules: tuple[str, ...]


EXTRAS = {
    "train": Extra(
        "training",
        (
            *("tensorflow", "keras", "spark_tensorflow_distributor", "nncf", "h5py", "psutil"),
            *("pynvml", "tensorboard"),
        ),
    ),
    "report": Extra("the report", ("matplotlib", "jinja2", "sklearn")),
    "dicom": Extra(
        "DICOM", ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle", "jpeg_ls", "highdicom")
    ),
    "exports": Extra("the export", ("onnx", "tf2onnx", "onnxruntime", "ai_edge_litert")),
    "viewer": Extra("the window", ("PySide6", "psutil")),
}


def require_extra(extra: str, *modules: str, purpose: str = "") -> None:
    """Check that modules of an extra are installed, without importing them.

    Args:
        extra: a key of `EXTRAS`.
        modules: the modules that are needed; without any, all of the extra.
        purpose: what needs them, for the error; by default that of the extra.

    Raises:
        PlatformError: names the first missing module and the command that installs it.
    """
    for module in modules or EXTRAS[extra].modules:
        if not is_installed(module):
            raise PlatformError(describe_missing(extra, module, purpose))


def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return find_spec(module) is not None


def describe_missing(extra: str, part: str, purpose: str = "") -> str:
    """Return the text of an error about a missing part of the installation.

    Args:
        extra: a key of `EXTRAS`, or empty for a part that every installation has.
        part: the missing module, for example.
        purpose: what needs it; by default that of the extra.
    """
    package = f"'eagle-spark[{extra}]'" if extra else "eagle-spark"
    purpose = purpose or EXTRAS[extra].purpose
    return f"{purpose} needs {part}, which is not installed: pip install {package}"
