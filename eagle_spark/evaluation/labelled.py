"""A labelled folder of any layout: images and their classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from eagle_spark.datasets.ingest import match_candidates, read_layout
from eagle_spark.datasets.layout import normalise_name
from eagle_spark.datasets.matching import Candidate
from eagle_spark.errors import InputError, Reason, SettingsError
from eagle_spark.io import FileEntry, absolute_uri, list_folder


def parse_class_mapping(option: str | None, classes: Sequence[str]) -> dict[str, str]:
    """Return normalised folder name -> class of the model.

    Args:
        option: value of `--classes`, FOLDER=CLASS,…; None maps only the names of the classes.
        classes: of the model.

    Raises:
        SettingsError: unless each CLASS of `option` is one of `classes`.
    """
    mapping = {normalise_name(name): name for name in classes}
    for pair in option.split(",") if option else []:
        folder, _, name = (part.strip() for part in pair.rpartition("="))
        if not folder or name not in classes:
            raise SettingsError(
                f"`classes`: wanted FOLDER=CLASS,…, each CLASS one of {', '.join(classes)}; "
                f"got {pair!r}"
            )
        mapping[normalise_name(folder)] = name
    return mapping


def list_labelled_images(root: str, class_mapping: Mapping[str, str]) -> list[Candidate]:
    """Return every image below the class folders of `root`, labelled with classes of the model.

    Class folders may be at any depth. A folder with class folders is a set in the layout of
    preprocess, with workbooks and masks; files outside of sets are ignored. Images of a class
    folder that is no class of the model are rejected.

    Args:
        class_mapping: as from `parse_class_mapping`.

    Raises:
        InputError: when no folder is named like a class, or a workbook cannot be read.
    """
    root = absolute_uri(root)
    entries = list(list_folder(root))
    sets = _group_by_set(root, entries, class_mapping)
    if not sets:
        parents = [_folder_names(root, entry) for entry in entries]
        names = sorted({folders[-1] for folders in parents if folders})
        raise InputError(
            f"`input` {root}: wanted a folder named like a class of the model "
            f"({', '.join(sorted(set(class_mapping.values())))}); got the folders "
            f"{', '.join(names[:8]) or '(none)'}: set `classes` FOLDER=CLASS,…"
        )
    source = root.rsplit("/", 1)[-1] or root
    return [
        _apply_class_mapping(candidate, class_mapping)
        for folder, files in sets.items()
        for candidate in match_candidates(read_layout(folder, files), None, source)
    ]


def _group_by_set(
    root: str, entries: Iterable[FileEntry], class_mapping: Mapping[str, str]
) -> dict[str, list[FileEntry]]:
    """Return each folder that has class folders, with its files that are in no deeper set."""

    def is_class(name: str) -> bool:
        return normalise_name(name) in class_mapping

    paths = [(entry, tuple(_folder_names(root, entry))) for entry in entries]
    roots = {
        folders[: max(depth for depth, name in enumerate(folders) if is_class(name))]
        for _, folders in paths
        if any(map(is_class, folders))
    }
    sets: defaultdict[str, list[FileEntry]] = defaultdict(list)
    for entry, folders in paths:
        ancestors = (folders[:depth] for depth in range(len(folders), -1, -1))
        if (nearest := next((path for path in ancestors if path in roots), None)) is not None:
            sets["/".join((root, *nearest))].append(entry)
    return dict(sorted(sets.items()))


def _folder_names(root: str, entry: FileEntry) -> list[str]:
    return entry.uri.removeprefix(root.rstrip("/") + "/").split("/")[:-1]


def _apply_class_mapping(candidate: Candidate, class_mapping: Mapping[str, str]) -> Candidate:
    if name := class_mapping.get(normalise_name(candidate.label)):
        return replace(candidate, label=name)
    if candidate.reason:
        return candidate
    detail = f"the model has no class {candidate.label!r}"
    return replace(candidate, reason=Reason.UNKNOWN_CLASS, detail=detail)
