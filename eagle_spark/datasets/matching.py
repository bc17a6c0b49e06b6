"""Match workbook rows and masks to images by name; every row and image is accounted for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from eagle_spark.datasets.layout import (
    ClassFolder,
    Layout,
    is_image_folder,
    is_mask_folder,
    normalise_name,
    parse_workbook_label,
)
from eagle_spark.datasets.workbook import BadRow, WorkbookRow
from eagle_spark.errors import Reason
from eagle_spark.io import FileEntry, to_utf8

_EXTENSION = re.compile(r"(?<=.)\.(png|jpe?g|jfif|bmp|tiff?|gif|webp|dcm|dicom)$", re.IGNORECASE)
_PATH_TRAVERSAL = re.compile(r"^/|\0|://|^[A-Za-z]:/|(^|/)\.\.(/|$)")

_FileIndex = dict[str, list[FileEntry]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image file, or a workbook row without image.

    Attributes:
        uri: URI of the image; `<workbook URI>#row=<n>` for a row of the first sheet,
            `<workbook URI>#sheet=<k>&row=<n>` for a row of another sheet. Unique in a listing.
        label: name of the class folder.
        mask_uri: URI of the mask; None for a class without masks and for rejects.
        patient_id: patient in the workbook; None if unknown.
        source: source in the workbook; None if unknown.
        metadata: other workbook columns, as text.
        has_metadata: whether a workbook row, or several equal ones, match.
        reason: reason of the rejection; None for an accepted candidate.
        detail: explanation of the reason; empty for an accepted candidate.
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
class _LocatedRow:
    """A row and its workbook."""

    workbook: FileEntry
    row: WorkbookRow

    @property
    def uri(self) -> str:
        return _build_row_uri(self.workbook, self.row)


def match(
    layout: Layout, rows: Mapping[str, tuple[Sequence[WorkbookRow], Sequence[BadRow]]]
) -> list[Candidate]:
    """Return every image once, and every row without image once.

    A row matches the images of its workbook's class with the stem of its FILE NAME; if the FILE
    NAME is a path, only images in that folder below `images/`. A mask matches the image with the
    same stem; if several images have it, the image in the same subfolder.

    Args:
        layout: class folders and workbooks.
        rows: workbook URI -> result of `read_workbook`.
    """
    folders = {normalise_name(folder.label): folder for folder in layout.classes}
    rows_by_class: defaultdict[str, list[_LocatedRow]] = defaultdict(list)
    candidates: list[Candidate] = []
    for workbook in layout.workbooks:
        label = to_utf8(parse_workbook_label(workbook.name) or workbook.name)
        key = normalise_name(label)
        folder = folders.setdefault(key, ClassFolder(label, (), (), False))
        good, bad = rows[workbook.uri]
        rows_by_class[key] += [_LocatedRow(workbook, row) for row in good]
        for row in bad:
            uri = _build_row_uri(workbook, row)
            candidates.append(_reject(uri, folder.label, Reason.BAD_METADATA_ROW, row.detail))
    for key, folder in folders.items():
        candidates += _match_class(folder, rows_by_class[key])
    return candidates


def normalise_stem(name: str) -> str:
    """Return the form in which file names are compared: normalised, without image extension.

    Only image extensions are removed, so that dots inside names (DICOM UIDs) stay.
    """
    return _EXTENSION.sub("", normalise_name(name)).strip()


def _match_class(folder: ClassFolder, rows: Iterable[_LocatedRow]) -> list[Candidate]:
    images, masks = _index_files(folder.images, folder), _index_files(folder.masks, folder)
    candidates: list[Candidate] = []
    rows_by_image: defaultdict[str, list[_LocatedRow]] = defaultdict(list)
    ambiguous: dict[str, str] = {}
    for located in rows:
        name = located.row.file_name
        key = next((key for key in _row_keys(name, folder) if key in images), None)
        files = images[key] if key is not None else []
        if _PATH_TRAVERSAL.search(name.replace("\\", "/")):
            detail = f"FILE NAME leaves the class folder: {name!r}"
            reason = Reason.UNSAFE_NAME
            candidates.append(_reject(located.uri, folder.label, reason, detail, located.row))
        elif not files:
            detail = f"no image of class {folder.label!r} is named {name!r}"
            reason = Reason.METADATA_WITHOUT_FILE
            candidates.append(_reject(located.uri, folder.label, reason, detail, located.row))
        elif key is not None and len(files) > 1:
            ambiguous.setdefault(key, f"{_last_segment(located.uri)} fits {_join_names(files)}")
        else:
            rows_by_image[files[0].uri].append(located)
    for image in folder.images:
        keys = _file_keys(image, folder)
        detail = next((ambiguous[key] for key in keys if key in ambiguous), "")
        if detail:
            uri = to_utf8(image.uri)
            candidates.append(_reject(uri, folder.label, Reason.AMBIGUOUS_FILE, detail))
        else:
            image_masks = next((masks[key] for key in keys if key in masks), [])
            candidates.append(_match_image(image, folder, rows_by_image[image.uri], image_masks))
    return candidates


def _match_image(
    image: FileEntry, folder: ClassFolder, rows: Sequence[_LocatedRow], masks: Sequence[FileEntry]
) -> Candidate:
    """Accept or reject an image by its matching rows and masks."""
    row = rows[0].row if rows else None
    uri, mask = to_utf8(image.uri), masks[0].uri if masks else None
    if uri != image.uri or (mask and to_utf8(mask) != mask):
        return _reject(uri, folder.label, Reason.UNSAFE_NAME, "a name is not valid UTF-8", row)
    if any(not _have_equal_content(rows[0].row, other.row) for other in rows[1:]):
        detail = f"rows disagree: {', '.join(_last_segment(located.uri) for located in rows[:4])}"
        return _reject(uri, folder.label, Reason.BAD_METADATA_ROW, detail)
    if len(masks) > 1:
        detail = f"several masks fit: {_join_names(masks)}"
        return _reject(uri, folder.label, Reason.AMBIGUOUS_FILE, detail, row)
    if folder.has_masks and mask is None:
        detail = f"no mask of class {folder.label!r} is named like {image.name!r}"
        return _reject(uri, folder.label, Reason.MASK_MISSING, detail, row)
    return _accept(uri, folder.label, mask, row)


def _accept(uri: str, label: str, mask: str | None, row: WorkbookRow | None) -> Candidate:
    if row is None:
        return Candidate(uri, label, mask, None, None, {}, False, None, "")
    return Candidate(uri, label, mask, row.patient_id, row.source, row.metadata, True, None, "")


def _reject(
    uri: str, label: str, reason: Reason, detail: str, row: WorkbookRow | None = None
) -> Candidate:
    return replace(_accept(uri, label, None, row), reason=reason, detail=detail)


def _have_equal_content(row: WorkbookRow, other: WorkbookRow) -> bool:
    return (row.patient_id, row.source, row.metadata) == (
        other.patient_id,
        other.source,
        other.metadata,
    )


def _index_files(files: Iterable[FileEntry], folder: ClassFolder) -> _FileIndex:
    index: _FileIndex = {}
    for file in files:
        for key in _file_keys(file, folder):
            index.setdefault(key, []).append(file)
    return index


def _file_keys(file: FileEntry, folder: ClassFolder) -> tuple[str, str]:
    """Return the keys of a file: its path below `images/` or `masks/`, then its stem."""
    *folders, name = file.uri.removeprefix(f"{folder.folder}/").split("/")
    if folders and (is_image_folder(folders[0]) or is_mask_folder(folders[0])):
        folders = folders[1:]
    return _path_key(folders, name), normalise_stem(name)


def _row_keys(file_name: str, folder: ClassFolder) -> list[str]:
    """Return the possible keys of a FILE NAME, the most literal first.

    A path starts below `images/`, with `images`, or with the class folder and `images`.
    """
    parts = [
        part for part in file_name.replace("\\", "/").split("/") if part.strip() not in ("", ".")
    ]
    if len(parts) < 2:
        return [normalise_stem("".join(parts))]
    keys = [_path_key(parts[:-1], parts[-1])]
    class_name = normalise_name(folder.label)
    for is_prefix in (lambda name: normalise_name(name) == class_name, is_image_folder):
        if len(parts) > 1 and is_prefix(parts[0]):
            *folders, name = parts = parts[1:]
            keys.append(_path_key(folders, name) if folders else normalise_stem(name))
    return keys


def _path_key(folders: Sequence[str], name: str) -> str:
    return "/".join(["", *map(normalise_name, folders), normalise_stem(name)])


def _build_row_uri(workbook: FileEntry, row: WorkbookRow | BadRow) -> str:
    sheet = f"sheet={row.sheet}&" if row.sheet > 1 else ""
    return f"{to_utf8(workbook.uri)}#{sheet}row={row.row}"


def _last_segment(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _join_names(files: Sequence[FileEntry]) -> str:
    return ", ".join(to_utf8(file.name) for file in files[:4]) + (", …" if files[4:] else "")
