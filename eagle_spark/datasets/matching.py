"""Workbook rows, images and masks brought together by name; nothing is lost on the way."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from eagle_spark.datasets.layout import (
    ClassFolder,
    Layout,
    fold,
    is_images,
    is_masks,
    workbook_label,
)
from eagle_spark.datasets.workbook import BadRow, WorkbookRow
from eagle_spark.errors import Reason
from eagle_spark.io import FileEntry, printable

_EXTENSION = re.compile(r"(?<=.)\.(png|jpe?g|jfif|bmp|tiff?|gif|webp|dcm|dicom)$", re.IGNORECASE)
_CLIMBS = re.compile(r"^/|\0|://|^[A-Za-z]:/|(^|/)\.\.(/|$)")

Index = dict[str, list[FileEntry]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One listed thing: an image file, or a workbook row for which there is no image.

    Attributes:
        uri: the image's URI; `<workbook URI>#row=<n>` for a row, `<workbook URI>#sheet=<k>&row=<n>`
            for one behind the first sheet. Unique in a listing.
        label: the class folder's name.
        mask_uri: the mask's URI, None for a class without masks and for rejects.
        patient_id: as in the workbook, None where not known.
        source: likewise.
        metadata: further columns of the workbook, as text.
        has_metadata: whether one workbook row, or several that agree, belong to it.
        reason: why it is rejected, None when it is accepted.
        detail: the reason in words, empty when it is accepted.
    """

    uri: str
    label: str
    mask_uri: str | None
    patient_id: str | None
    source: str | None
    metadata: dict[str, str]
    has_metadata: bool
    reason: Reason | None
    detail: str


@dataclass(frozen=True, slots=True)
class _CitedRow:
    """A workbook row and where it stands."""

    workbook: FileEntry
    row: WorkbookRow

    @property
    def uri(self) -> str:
        return _row_uri(self.workbook, self.row)


def match(
    layout: Layout, rows: Mapping[str, tuple[Sequence[WorkbookRow], Sequence[BadRow]]]
) -> list[Candidate]:
    """Return every image once, and every row that is no image's once.

    A row belongs to the images of its workbook's class that have its FILE NAME's stem, or, when it
    holds a path, that stem in that folder below `images/`. A mask belongs to the image with the
    same stem; where several have it, the one in the same subfolder.

    Args:
        layout: the set's folders.
        rows: what `read_workbook` gave for each workbook of the layout, by the workbook's URI.
    """
    folders = {fold(folder.label): folder for folder in layout.classes}
    cited: defaultdict[str, list[_CitedRow]] = defaultdict(list)
    result: list[Candidate] = []
    for workbook in layout.workbooks:
        label = printable(workbook_label(workbook.name) or workbook.name)
        folder = folders.setdefault(fold(label), ClassFolder(label, (), (), False))
        good, bad = rows[workbook.uri]
        cited[fold(label)] += [_CitedRow(workbook, row) for row in good]
        for row in bad:
            uri = _row_uri(workbook, row)
            result.append(_reject(uri, folder.label, Reason.BAD_METADATA_ROW, row.detail))
    for key, folder in folders.items():
        result += _match_class(folder, cited[key])
    return result


def stem(name: str) -> str:
    """Return the form in which file names are compared: folded, without an image's extension.

    Only extensions of images are taken off, so that dots inside names (DICOM UIDs) stay.
    """
    return _EXTENSION.sub("", fold(name)).strip()


def _match_class(folder: ClassFolder, cited: Iterable[_CitedRow]) -> list[Candidate]:
    images, masks = _index(folder.images, folder), _index(folder.masks, folder)
    result: list[Candidate] = []
    rows_of: defaultdict[str, list[_CitedRow]] = defaultdict(list)
    ambiguous: dict[str, str] = {}
    for one in cited:
        name = one.row.file_name
        key = next((key for key in _row_keys(name, folder) if key in images), None)
        files = images[key] if key is not None else []
        if _CLIMBS.search(name.replace("\\", "/")):
            detail = f"FILE NAME leaves the class folder: {name!r}"
            result.append(_reject(one.uri, folder.label, Reason.UNSAFE_NAME, detail, one.row))
        elif not files:
            detail = f"no image of class {folder.label!r} is named {name!r}"
            reason = Reason.METADATA_WITHOUT_FILE
            result.append(_reject(one.uri, folder.label, reason, detail, one.row))
        elif key is not None and len(files) > 1:
            ambiguous.setdefault(key, f"{_short(one.uri)} fits {_names(files)}")
        else:
            rows_of[files[0].uri].append(one)
    for image in folder.images:
        keys = _keys(image, folder)
        detail = next((ambiguous[key] for key in keys if key in ambiguous), "")
        if detail:
            result.append(
                _reject(printable(image.uri), folder.label, Reason.AMBIGUOUS_FILE, detail)
            )
        else:
            found = next((masks[key] for key in keys if key in masks), [])
            result.append(_decide(image, folder, rows_of[image.uri], found))
    return result


def _decide(
    image: FileEntry, folder: ClassFolder, cited: Sequence[_CitedRow], masks: Sequence[FileEntry]
) -> Candidate:
    """Accept or reject one image by its rows and its masks."""
    row = cited[0].row if cited else None
    uri, mask = printable(image.uri), masks[0].uri if masks else None
    if uri != image.uri or (mask and printable(mask) != mask):
        return _reject(uri, folder.label, Reason.UNSAFE_NAME, "a name is not valid UTF-8", row)
    if any(not _agree(cited[0].row, other.row) for other in cited[1:]):
        detail = f"rows disagree: {', '.join(_short(one.uri) for one in cited[:4])}"
        return _reject(uri, folder.label, Reason.BAD_METADATA_ROW, detail)
    if len(masks) > 1:
        detail = f"several masks fit: {_names(masks)}"
        return _reject(uri, folder.label, Reason.AMBIGUOUS_FILE, detail, row)
    if folder.has_masks and mask is None:
        detail = f"no mask of class {folder.label!r} is named like {image.name!r}"
        return _reject(uri, folder.label, Reason.MASK_MISSING, detail, row)
    return _candidate(uri, folder.label, mask, row)


def _candidate(uri: str, label: str, mask: str | None, row: WorkbookRow | None) -> Candidate:
    if row is None:
        return Candidate(uri, label, mask, None, None, {}, False, None, "")
    return Candidate(uri, label, mask, row.patient_id, row.source, row.metadata, True, None, "")


def _reject(
    uri: str, label: str, reason: Reason, detail: str, row: WorkbookRow | None = None
) -> Candidate:
    return replace(_candidate(uri, label, None, row), reason=reason, detail=detail)


def _agree(one: WorkbookRow, other: WorkbookRow) -> bool:
    return (one.patient_id, one.source, one.metadata) == (
        other.patient_id,
        other.source,
        other.metadata,
    )


def _index(files: Iterable[FileEntry], folder: ClassFolder) -> Index:
    index: Index = {}
    for file in files:
        for key in _keys(file, folder):
            index.setdefault(key, []).append(file)
    return index


def _keys(file: FileEntry, folder: ClassFolder) -> tuple[str, str]:
    """Return the keys of a file: its path below `images/` or `masks/`, then its stem alone."""
    *folders, name = file.uri.removeprefix(f"{folder.folder}/").split("/")
    if folders and (is_images(folders[0]) or is_masks(folders[0])):
        folders = folders[1:]
    return _path_key(folders, name), stem(name)


def _row_keys(file_name: str, folder: ClassFolder) -> list[str]:
    """Return the keys that a FILE NAME may stand for, the most literal first.

    A path begins below `images/`, or with `images`, or with the class folder and `images`.
    """
    parts = [
        part for part in file_name.replace("\\", "/").split("/") if part.strip() not in ("", ".")
    ]
    if len(parts) < 2:
        return [stem("".join(parts))]
    keys = [_path_key(parts[:-1], parts[-1])]
    for is_above in (lambda name: fold(name) == fold(folder.label), is_images):
        if len(parts) > 1 and is_above(parts[0]):
            parts = parts[1:]
            keys.append(_path_key(parts[:-1], parts[-1]) if len(parts) > 1 else stem(parts[0]))
    return keys


def _path_key(folders: Sequence[str], name: str) -> str:
    return "/".join(["", *map(fold, folders), stem(name)])


def _row_uri(workbook: FileEntry, row: WorkbookRow | BadRow) -> str:
    sheet = f"sheet={row.sheet}&" if row.sheet > 1 else ""
    return f"{printable(workbook.uri)}#{sheet}row={row.row}"


def _short(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _names(files: Sequence[FileEntry]) -> str:
    return ", ".join(printable(file.name) for file in files[:4]) + (", …" if files[4:] else "")
