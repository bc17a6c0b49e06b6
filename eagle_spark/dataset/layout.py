"""The folders of a labelled set, as the COVID-19 Radiography Database lays them out."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from eagle_spark.errors import InputError
from eagle_spark.storage import FileEntry, absolute_uri, printable

WORKBOOK_ENDING = ".metadata.xlsx"
WANTED = f"<Class>/images/*, <Class>/masks/* where there are masks, <Class>{WORKBOOK_ENDING}"


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
    """What a root holds: classes ordered by label, workbooks ordered by URI."""

    classes: tuple[ClassFolder, ...]
    workbooks: tuple[FileEntry, ...]


def fold(name: str) -> str:
    """Return the form in which names are compared: NFC, no case, no surrounding blanks."""
    name = name.strip()
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def find_layout(root: str, entries: Iterable[FileEntry]) -> Layout:
    """Sort a flat listing of `root` into class folders and workbooks.

    Other files at the top and folders beside `images/` and `masks/` are ignored.

    Raises:
        InputError: when there is no class folder, or two that differ only by case or accents' form.
    """
    base = absolute_uri(root)
    base = base if base.endswith("/") else base + "/"
    images: defaultdict[str, list[FileEntry]] = defaultdict(list)
    masks: defaultdict[str, list[FileEntry]] = defaultdict(list)
    loose: defaultdict[str, list[FileEntry]] = defaultdict(list)
    workbooks: list[FileEntry] = []
    sets_below: set[str] = set()
    for entry in entries:
        top, *inner = entry.uri.removeprefix(base).split("/")
        if not inner:
            if _is_workbook(top):
                workbooks.append(entry)
        elif len(inner) == 1:
            loose[top].append(entry)
        elif inner[0].casefold() == "images":
            images[top].append(entry)
        elif inner[0].casefold() == "masks":
            masks[top].append(entry)
        elif len(inner) > 2 and inner[1].casefold() == "images":
            sets_below.add(top)
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
    return Layout(tuple(sorted(classes, key=lambda folder: folder.label)), _ordered(workbooks))


def _is_workbook(name: str) -> bool:
    # Excel leaves `~$name.xlsx`, which is no workbook, beside a file that somebody has open.
    return name.casefold().endswith(WORKBOOK_ENDING) and not name.startswith("~$")


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
