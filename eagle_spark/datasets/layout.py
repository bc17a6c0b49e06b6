"""The folders of a labelled set, as the COVID-19 Radiography Database lays them out."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, absolute_uri, printable

WANTED = "<Class>/images/*, <Class>/masks/* where there are masks, <Class>.metadata.xlsx"
# A browser numbers a file that it downloads a second time.
_WORKBOOK = re.compile(r"(?P<label>.+)\.metadata( ?\((?P<number>\d{1,9})\))?\.xlsx", re.IGNORECASE)
_IMAGES = frozenset(("images", "image"))
_MASKS = frozenset(("masks", "mask", "lung masks", "lung mask"))  # the last two of COVID-QU-Ex
# Excel leaves `~$name.xlsx`, which is no workbook, beside a file that somebody has open.
_OPEN_IN_EXCEL = "~$"
_TABLES = (".xlsx", ".xls", ".ods", ".csv")
_DASHES = re.compile("[\u2010-\u2015\u2212]")


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """One class and its files, ordered by URI.

    Attributes:
        label: the folder's name, Unicode NFC.
        images: every file below `images/`, or straight in the folder where there is no `images/`.
        masks: every file below `masks/`.
        has_masks: whether the class has a masks folder with anything in it.
        folder: URI of the class folder, without a slash at the end.
    """

    label: str
    images: tuple[FileEntry, ...]
    masks: tuple[FileEntry, ...]
    has_masks: bool
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a root holds.

    Attributes:
        classes: ordered by label.
        workbooks: ordered by URI.
        left_out: folder below the root, or the name of a table, -> files that are not used.
    """

    classes: tuple[ClassFolder, ...]
    workbooks: tuple[FileEntry, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def fold(name: str) -> str:
    """Return the form in which names are compared.

    NFC, no case, one kind of dash and blank, no blanks around it, and nothing invisible such as a
    byte order mark.
    """
    if name.isascii():
        return " ".join(name.lower().split())
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    plain = _DASHES.sub("-", unicodedata.normalize("NFC", visible))
    return " ".join(unicodedata.normalize("NFC", plain.casefold()).split())


def find_layout(root: str, entries: Iterable[FileEntry]) -> Layout:
    """Sort a flat listing of `root` into class folders and workbooks.

    What stands in other folders, and tables of other names, is counted as left out; other files at
    the top and beside `images/` are ignored.

    Raises:
        InputError: when there is no class folder, or two that differ only by case or accents' form.
    """
    base = absolute_uri(root)
    base = base if base.endswith("/") else base + "/"
    images: defaultdict[str, list[FileEntry]] = defaultdict(list)
    masks: defaultdict[str, list[FileEntry]] = defaultdict(list)
    loose: defaultdict[str, list[FileEntry]] = defaultdict(list)
    workbooks: defaultdict[str, list[FileEntry]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    sets_below: set[str] = set()
    for entry in entries:
        path = entry.uri.removeprefix(base)
        top, *inner = path.split("/")
        if len(inner) < 2 and (label := workbook_label(entry.name)):
            workbooks[fold(label)].append(entry)
        elif entry.name.startswith(_OPEN_IN_EXCEL):
            continue
        elif len(inner) < 2 and entry.name.lower().endswith(_TABLES):
            left_out[path] += 1
        elif not inner:
            continue
        elif len(inner) == 1:
            loose[top].append(entry)
        elif is_images(inner[0]):
            images[top].append(entry)
        elif is_masks(inner[0]):
            masks[top].append(entry)
        else:
            if len(inner) > 2 and is_images(inner[1]):
                sets_below.add(top)
            left_out[f"{top}/{inner[0]}"] += 1
    for top in loose.keys() - images.keys() - sets_below:
        images[top] = loose[top]
    if not images:
        deeper = f"; a data set seems to stand deeper: {_few(sets_below)}" if sets_below else ""
        raise InputError(f"no class folder in {root}: wanted {WANTED}{deeper}")
    _refuse_twins(root, images)
    classes = [
        ClassFolder(
            unicodedata.normalize("NFC", printable(top)),
            _ordered(files),
            _ordered(masks[top]),
            bool(masks[top]),
            base + top,
        )
        for top, files in images.items()
    ]
    used = [entry for found in workbooks.values() for entry in _used(base, found)]
    for entry in {*chain(*workbooks.values())}.difference(used):
        left_out[entry.uri.removeprefix(base)] += 1
    for top in masks.keys() - images.keys():
        for entry in masks[top]:
            left_out["/".join(entry.uri.removeprefix(base).split("/")[:2])] += 1
    return Layout(
        tuple(sorted(classes, key=lambda folder: folder.label)),
        _ordered(used),
        dict(sorted(left_out.items())),
    )


def is_images(folder: str) -> bool:
    """Whether a folder of this name, in a class folder, holds its images."""
    return _plain(folder) in _IMAGES


def is_masks(folder: str) -> bool:
    """Whether a folder of this name, in a class folder, holds its masks."""
    return _plain(folder) in _MASKS


def _plain(folder: str) -> str:
    return fold(folder).replace("_", " ")


def _used(base: str, workbooks: Sequence[FileEntry]) -> list[FileEntry]:
    """Return which of the workbooks of one class are read.

    Those beside the class folder; where there are none, those in it; where a browser has numbered
    all of them, the one with the highest number.
    """

    def number(entry: FileEntry) -> int:
        found = _WORKBOOK.fullmatch(entry.name)
        return int(found["number"] or 0) if found else 0

    plain = [entry for entry in workbooks if not number(entry)]
    beside = [entry for entry in plain if "/" not in entry.uri.removeprefix(base)]
    return beside or plain or [max(workbooks, key=lambda entry: (number(entry), entry.uri))]


def workbook_label(name: str) -> str | None:
    """Return the class that a metadata workbook of this name is of; None for another file."""
    found = None if name.startswith(_OPEN_IN_EXCEL) else _WORKBOOK.fullmatch(name)
    return found["label"] if found else None


def _ordered(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.uri))


def _few(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")


def _refuse_twins(root: str, folders: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for folder in sorted(folders):
        twin = seen.setdefault(fold(folder), folder)
        if twin != folder:
            raise InputError(
                f"class folders of {root} must differ by more than case, blanks or the form of "
                f"accents; got {twin!r} and {folder!r}"
            )
