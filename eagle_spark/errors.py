"""Everything that can go wrong, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

# What stands before an `@`, unless a host alone stands before the path. `Path` makes one slash of
# two.
_WHO = re.compile(
    r"(?<=\w:)(/{1,2}(?!/)|/{3}(?=[^/\s]+:[^/\s]+@))"
    r"(?!(?:[\w.-]*|\[[\dA-Fa-f:.]+\])(?::\d{1,5})?/)\S*@",
    re.ASCII,
)


def masked(text: str) -> str:
    """Return `text` without the users and passwords of URIs."""
    return _WHO.sub(r"\1…@", text)


class Reason(str, Enum):
    """Why one file or workbook row was not taken; stored in the tables as text."""

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


# Exit code of a job that did what it was told, with a result to be looked at before it is believed.
LOOK_FIRST = 3
PASSING = (Reason.UNREADABLE, Reason.BAD_ARCHIVE, Reason.NO_DECODER)
"""What may be otherwise the next time, though the file is the same."""


class EagleError(Exception):
    """Raised when a job cannot reach its end; exit code 1. `figures` go into its JSON line.

    As text it repeats no password, wherever a URI was mistyped.
    """

    exit_code = 1
    figures: Mapping[str, object] = {}  # nobody writes to it

    def __str__(self) -> str:
        return masked(super().__str__())


class UserError(EagleError):
    """Raised when arguments, input or environment have to be mended first; exit code 2."""

    exit_code = 2


class SettingsError(UserError):
    """Raised when an option or a key of the settings file is unknown or out of range."""


class InputError(UserError):
    """Raised when an input is missing or is not what the job can read."""


class LeakingSplits(InputError):
    """Raised when a patient, the same bytes or near duplicates stand in more than one split."""


class WorkbookError(InputError):
    """Raised when a metadata workbook cannot be read as one."""


class OutputError(UserError):
    """Raised when a place to write is not writable or is taken."""


class PlatformError(UserError):
    """Raised when Java, Spark, a jar or a resource that a job needs is not there."""


class BundleError(UserError):
    """Raised when a model folder is incomplete, altered or of another kind."""


class UnbalancedRun(EagleError):
    """Raised when the sums of a run do not balance; nothing is published."""


class MainMoved(EagleError):
    """Raised when another run published to a table before this one could."""


class TooManyFailures(EagleError):
    """Raised when more images failed than the run allows; nothing is published."""


class ImageRejected(EagleError):
    """Raised when one image or mask cannot be used; becomes a row, never stops a run."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageRejected], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)
