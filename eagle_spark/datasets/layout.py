"""Folder layout of a labelled data set, as in the COVID-19 Radiography Database."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, absolute_uri, to_utf8

FOLDER_LAYOUT = "<Class>/images/*, <Class>/masks/* where there are masks, <Class>.metadata.xlsx"
# Browsers append a number to the name of a file that is downloaded twice.
_WORKBOOK_NAME = re.compile(
    r"(?P<label>.+)\.metadata( ?\((?P<number>\d{1,9})\))?\.xlsx", re.IGNORECASE
)
_IMAGE_FOLDERS = frozenset(("images", "image"))
_MASK_FOLDERS = frozenset(("masks", "mask", "lung masks", "lung mask"))  # the last two: COVID-QU-Ex
# While a workbook is open, Excel keeps a lock file `~$name.xlsx`, which is no workbook, beside it.
_EXCEL_LOCK_PREFIX = "~$"
_TABLE_EXTENSIONS = (".xlsx", ".xls", ".ods", ".csv")
_DASHES = re.compile("[\u2010-\u2015\u2212]")


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """One class and its files, ordered by URI.

    Attributes:
        label: folder name, Unicode NFC.
        images: all files below `images/`; without such a folder, the files in the class folder.
        masks: all files below `masks/`.
        has_masks: whether the class has a masks folder that is not empty.
        folder: URI of the class folder, without trailing slash.
    """

    label: str
    images: tuple[FileEntry, ...]
    masks: tuple[FileEntry, ...]
    has_masks: bool
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Class folders and workbooks of a data set.

    Attributes:
        classes: ordered by label.
        workbooks: ordered by URI.
        unused_files: folder below the root, or table name -> number of files that are not used.
    """

    classes: tuple[ClassFolder, ...]
    workbooks: tuple[FileEntry, ...]
    unused_files: Mapping[str, int] = field(default_factory=dict)


def normalise_name(name: str) -> str:
    """Return the form in which names are compared.

    The form is NFC, case-folded and stripped, with one kind of dash and blank and without invisible
    characters such as a byte order mark.
    """
    if name.isascii():
        return " ".join(name.lower().split())
    visible = "".join(char for char in name if unicodedata.category(char) != "Cf")
    dashed = _DASHES.sub("-", unicodedata.normalize("NFC", visible))
    return " ".join(unicodedata.normalize("NFC", dashed.casefold()).split())


def parse_layout(root: str, entries: Iterable[FileEntry]) -> Layout:
    """Group a flat listing of `root` into class folders and workbooks.

    Files in other folders and tables of other names are counted as unused; other files at the top
    level and beside `images/` are ignored.

    Raises:
        InputError: when there is no class folder, or when the names of two class folders differ
            only by case, blanks or Unicode form.
    """
    base = absolute_uri(root)
    base = base if base.endswith("/") else base + "/"
    images: defaultdict[str, list[FileEntry]] = defaultdict(list)
    masks: defaultdict[str, list[FileEntry]] = defaultdict(list)
    direct_files: defaultdict[str, list[FileEntry]] = defaultdict(list)
    workbooks: defaultdict[str, list[FileEntry]] = defaultdict(list)
    unused_files: Counter[str] = Counter()
    nested_sets: set[str] = set()
    for entry in entries:
        path = entry.uri.removeprefix(base)
        top, *inner = path.split("/")
        if len(inner) < 2 and (label := parse_workbook_label(entry.name)):
            workbooks[normalise_name(label)].append(entry)
        elif entry.name.startswith(_EXCEL_LOCK_PREFIX):
            continue
        elif len(inner) < 2 and entry.name.lower().endswith(_TABLE_EXTENSIONS):
            unused_files[path] += 1
        elif not inner:
            continue
        elif len(inner) == 1:
            direct_files[top].append(entry)
        elif is_image_folder(inner[0]):
            images[top].append(entry)
        elif is_mask_folder(inner[0]):
            masks[top].append(entry)
        else:
            if len(inner) > 2 and is_image_folder(inner[1]):
                nested_sets.add(top)
            unused_files[f"{top}/{inner[0]}"] += 1
    for top in direct_files.keys() - images.keys() - nested_sets:
        images[top] = direct_files[top]
    if not images:
        hint = f"; possible data sets deeper: {_join_names(nested_sets)}" if nested_sets else ""
        raise InputError(f"no class folder in {root}: wanted {FOLDER_LAYOUT}{hint}")
    _reject_case_collisions(root, images)
    classes = [
        ClassFolder(
            unicodedata.normalize("NFC", to_utf8(top)),
            _sort_by_uri(files),
            _sort_by_uri(masks[top]),
            bool(masks[top]),
            base + top,
        )
        for top, files in images.items()
    ]
    selected = [entry for group in workbooks.values() for entry in _select_workbooks(base, group)]
    for entry in {*chain(*workbooks.values())}.difference(selected):
        unused_files[entry.uri.removeprefix(base)] += 1
    for top in masks.keys() - images.keys():
        for entry in masks[top]:
            unused_files["/".join(entry.uri.removeprefix(base).split("/")[:2])] += 1
    return Layout(
        tuple(sorted(classes, key=lambda folder: folder.label)),
        _sort_by_uri(selected),
        dict(sorted(unused_files.items())),
    )


def is_image_folder(folder: str) -> bool:
    """Return whether `folder` is the name of the image folder of a class."""
    return _normalise_folder(folder) in _IMAGE_FOLDERS


def is_mask_folder(folder: str) -> bool:
    """Return whether `folder` is the name of the mask folder of a class."""
    return _normalise_folder(folder) in _MASK_FOLDERS


def _normalise_folder(folder: str) -> str:
    return normalise_name(folder).replace("_", " ")


def _select_workbooks(base: str, workbooks: Sequence[FileEntry]) -> list[FileEntry]:
    """Return the workbooks of one class that are read.

    These are the workbooks beside the class folder; if there are none, the workbooks in it; if a
    browser numbered all of them, the one with the highest number.
    """

    def parse_number(entry: FileEntry) -> int:
        name = _WORKBOOK_NAME.fullmatch(entry.name)
        return int(name["number"] or 0) if name else 0

    unnumbered = [entry for entry in workbooks if not parse_number(entry)]
    beside = [entry for entry in unnumbered if "/" not in entry.uri.removeprefix(base)]
    newest = max(workbooks, key=lambda entry: (parse_number(entry), entry.uri))
    return beside or unnumbered or [newest]


def parse_workbook_label(name: str) -> str | None:
    """Return the class of the metadata workbook `name`; None for another file."""
    match = None if name.startswith(_EXCEL_LOCK_PREFIX) else _WORKBOOK_NAME.fullmatch(name)
    return match["label"] if match else None


def _sort_by_uri(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.uri))


def _join_names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", …" if len(ordered) > 3 else "")


def _reject_case_collisions(root: str, folders: Iterable[str]) -> None:
    folder_by_name: dict[str, str] = {}
    for folder in sorted(folders):
        other = folder_by_name.setdefault(normalise_name(folder), folder)
        if other != folder:
            raise InputError(
                f"{root}: wanted class folders that differ by more than case, blanks or the form "
                f"of accents; got {other!r} and {folder!r}"
            )
