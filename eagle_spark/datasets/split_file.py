"""Split file: a CSV that assigns paths or patients to splits."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eagle_spark.datasets.split import SPLITS
from eagle_spark.errors import InputError
from eagle_spark.io import resolve

KEY_COLUMNS = ("path", "patient_id")
MAX_SPLIT_FILE_BYTES = 256 * 2**20
_EXPECTED_FORMAT = "wanted a CSV with the header path,split or patient_id,split"


@dataclass(frozen=True, slots=True)
class SplitFile:
    """Content of a split file.

    Attributes:
        uri: URI of the file.
        key: column that identifies images, one of `KEY_COLUMNS`.
        splits: value of that column -> split.
    """

    uri: str
    key: str
    splits: Mapping[str, str]

    def assign(self, paths: Sequence[str], patients: Sequence[str | None]) -> list[str]:
        """Return the split of each image; lines that match no image are ignored.

        Raises:
            InputError: when no line or lines of different splits match an image, or when the path
                of a line matches several images.
        """
        keys_by_image = [self._matching_keys(*image) for image in zip(paths, patients, strict=True)]
        paths_by_key: defaultdict[str, list[str]] = defaultdict(list)
        assigned = []
        for path, patient, keys in zip(paths, patients, keys_by_image, strict=True):
            splits = {self.splits[key] for key in keys}
            if len(splits) != 1:
                got = f"lines of {', '.join(sorted(splits))}" if splits else "no line"
                image = path if self.key == "path" else f"{path} (patient {patient})"
                raise InputError(
                    f"`split_file` {self.uri}: wanted a split for every image; got {got} for "
                    f"{image}"
                )
            assigned.append(splits.pop())
            for key in keys:
                paths_by_key[key].append(path)
        for key, matches in paths_by_key.items():
            if self.key == "path" and len(matches) > 1:
                raise InputError(
                    f"`split_file` {self.uri}: {key!r} fits {len(matches)} images, such as "
                    f"{matches[0]} and {matches[1]}: give more of the path"
                )
        return assigned

    def _matching_keys(self, path: str, patient: str | None) -> list[str]:
        keys = _path_suffixes(path) if self.key == "path" else [patient or ""]
        return [key for key in keys if key in self.splits]


def read_split_file(uri: str) -> SplitFile:
    """Read and check a split file.

    Raises:
        InputError: when the file cannot be read, or with the number of an invalid line.
    """
    storage, path = resolve(uri)
    try:
        text = storage.read(path, MAX_SPLIT_FILE_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"`split_file` {uri} cannot be read: {error}") from error
    try:
        header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        raise InputError(f"`split_file` {uri}: {_EXPECTED_FORMAT}; {error}") from error
    names = [name.strip() for name in header]
    keys = [key for key in KEY_COLUMNS if key in names]
    if len(keys) != 1 or "split" not in names:
        raise InputError(f"`split_file` {uri}: {_EXPECTED_FORMAT}; got {','.join(names)}")
    columns = names.index(keys[0]), names.index("split")
    splits: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        key, split = (line[column].strip() if column < len(line) else "" for column in columns)
        if not key or split not in SPLITS or splits.setdefault(key, split) != split:
            raise InputError(
                f"`split_file` {uri}, line {number}: wanted a {keys[0]} and one of "
                f"{', '.join(SPLITS)}, each {keys[0]} in one split; got {','.join(line)!r}"
            )
    return SplitFile(uri, keys[0], splits)


def _path_suffixes(path: str) -> Iterator[str]:
    """Yield the path, then the rest of it after each slash."""
    yield path
    for position, char in enumerate(path):
        if char == "/":
            yield path[position + 1 :]
