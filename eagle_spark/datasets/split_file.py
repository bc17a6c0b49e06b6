"""Splits that a user gives: a CSV of paths or patients and their split."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eagle_spark.datasets.split import SPLITS
from eagle_spark.errors import InputError
from eagle_spark.io import locate

KEYS = ("path", "patient_id")
MAX_BYTES = 256 * 2**20
_WANTED = "wanted a CSV with the header path,split or patient_id,split"


@dataclass(frozen=True, slots=True)
class SplitFile:
    """What stands in the file: `key` is one of `KEYS`, `splits` maps its values to a split."""

    uri: str
    key: str
    splits: Mapping[str, str]

    def assign(self, paths: Sequence[str], patients: Sequence[str | None]) -> list[str]:
        """Return the split of each image; lines that name none of them play no part.

        Raises:
            InputError: when an image has no line or lines of different splits, or a line's path
                fits several images.
        """
        fitting = [self._fitting(*image) for image in zip(paths, patients, strict=True)]
        fits: defaultdict[str, list[str]] = defaultdict(list)
        found = []
        for path, patient, names in zip(paths, patients, fitting, strict=True):
            splits = {self.splits[name] for name in names}
            if len(splits) != 1:
                got = f"lines of {', '.join(sorted(splits))}" if splits else "no line"
                named = path if self.key == "path" else f"{path} (patient {patient})"
                raise InputError(
                    f"--split-file {self.uri}: wanted a split for every image; got {got} for "
                    f"{named}"
                )
            found.append(splits.pop())
            for name in names:
                fits[name].append(path)
        for name, several in fits.items():
            if self.key == "path" and len(several) > 1:
                raise InputError(
                    f"--split-file {self.uri}: {name!r} fits {len(several)} images, such as "
                    f"{several[0]} and {several[1]}: give more of the path"
                )
        return found

    def _fitting(self, path: str, patient: str | None) -> list[str]:
        keys = _endings(path) if self.key == "path" else [patient or ""]
        return [key for key in keys if key in self.splits]


def read_split_file(uri: str) -> SplitFile:
    """Read the file.

    Raises:
        InputError: names the line that is wrong, or says that the file cannot be read.
    """
    storage, place = locate(uri)
    try:
        text = storage.read(place, MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--split-file {uri} cannot be read: {error}") from error
    try:
        header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        raise InputError(f"--split-file {uri}: {_WANTED}; {error}") from error
    names = [name.strip() for name in header]
    keys = [key for key in KEYS if key in names]
    if len(keys) != 1 or "split" not in names:
        raise InputError(f"--split-file {uri}: {_WANTED}; got {','.join(names)}")
    columns = names.index(keys[0]), names.index("split")
    splits: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        key, split = (line[column].strip() if column < len(line) else "" for column in columns)
        if not key or split not in SPLITS or splits.setdefault(key, split) != split:
            raise InputError(
                f"--split-file {uri}, line {number}: wanted a {keys[0]} and one of "
                f"{', '.join(SPLITS)}, each {keys[0]} in one split; got {','.join(line)!r}"
            )
    return SplitFile(uri, keys[0], splits)


def _endings(path: str) -> Iterator[str]:
    """Yield the path, and what of it follows each slash."""
    yield path
    for at, letter in enumerate(path):
        if letter == "/":
            yield path[at + 1 :]
