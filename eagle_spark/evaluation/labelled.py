"""A labelled folder of any layout: which image is of which class of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from eagle_spark.datasets.ingest import candidates_of, read_layout
from eagle_spark.datasets.layout import fold
from eagle_spark.datasets.matching import Candidate
from eagle_spark.errors import InputError, Reason, SettingsError
from eagle_spark.io import FileEntry, absolute_uri, list_folder


def read_spellings(option: str | None, classes: Sequence[str]) -> dict[str, str]:
    """Return folded folder name -> class of the model: its own names, and those of `--classes`.

    Raises:
        SettingsError: unless `option` is FOLDER=CLASS, comma, …, with classes of the model.
    """
    spellings = {fold(name): name for name in classes}
    for pair in option.split(",") if option else []:
        folder, _, name = (part.strip() for part in pair.rpartition("="))
        if not folder or name not in classes:
            raise SettingsError(
                f"--classes wants FOLDER=CLASS,…, each CLASS one of {', '.join(classes)}; "
                f"got {pair!r}"
            )
        spellings[fold(folder)] = name
    return spellings


def labelled_images(root: str, spellings: Mapping[str, str]) -> list[Candidate]:
    """Return every image below the class folders of `root`, labelled as the model names classes.

    Class folders may stand at any depth. A folder that holds some is a set as preprocess takes it,
    with its workbooks and masks; what stands in none is left out. An image of a class folder that
    the model has no class for is a reject.

    Raises:
        InputError: when no folder is named like a class, or a workbook cannot be read.
    """
    root = absolute_uri(root)
    entries = list(list_folder(root))
    sets = _sets(root, entries, spellings)
    if not sets:
        found = sorted({_folders(root, entry)[-1] for entry in entries if _folders(root, entry)})
        raise InputError(
            f"--input {root}: no folder is named like a class of the model "
            f"({', '.join(sorted(set(spellings.values())))}); folders with files are "
            f"{', '.join(found[:8]) or 'none'}: give --classes FOLDER=CLASS,…"
        )
    source = root.rsplit("/", 1)[-1] or root
    return [
        _labelled(candidate, spellings)
        for place, inside in sets.items()
        for candidate in candidates_of(read_layout(place, inside), None, source)
    ]


def _sets(
    root: str, entries: Iterable[FileEntry], spellings: Mapping[str, str]
) -> dict[str, list[FileEntry]]:
    """Return the folders that hold class folders, each with the files that are in no deeper one."""
    paths = [(entry, _folders(root, entry)) for entry in entries]
    places = {
        tuple(folders[: max(at for at, name in enumerate(folders) if fold(name) in spellings)])
        for _, folders in paths
        if any(fold(name) in spellings for name in folders)
    }
    sets: defaultdict[str, list[FileEntry]] = defaultdict(list)
    for entry, folders in paths:
        above = (tuple(folders[:depth]) for depth in range(len(folders), -1, -1))
        if (place := next((one for one in above if one in places), None)) is not None:
            sets["/".join((root, *place))].append(entry)
    return dict(sorted(sets.items()))


def _folders(root: str, entry: FileEntry) -> list[str]:
    return entry.uri.removeprefix(root.rstrip("/") + "/").split("/")[:-1]


def _labelled(candidate: Candidate, spellings: Mapping[str, str]) -> Candidate:
    if name := spellings.get(fold(candidate.label)):
        return replace(candidate, label=name)
    if candidate.reason:
        return candidate
    detail = f"the model has no class {candidate.label!r}"
    return replace(candidate, reason=Reason.UNKNOWN_CLASS, detail=detail)
