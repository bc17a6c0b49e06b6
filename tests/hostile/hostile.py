"""Hostile inputs: each is passed to the program as a user would, and its outcome is recorded.

Each case runs in a new process with limits of time and memory, and may start no program, open
no socket and write nowhere else. `make hostile` writes the table `results/hostile.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

from eagle_spark.imaging.decode import decode_image
from eagle_spark.imaging.mask import read_mask
from eagle_spark.io import list_folder, read_bytes, to_utf8
from eagle_spark.model.card import render_table
from tests.helpers.sample_images import EXPECTED_REASONS, SAMPLE_IMAGES, SIDE, encode_image, grey
from tests.hostile.hostile_archives import ARCHIVES, read_members
from tests.hostile.hostile_dicom import DICOMS
from tests.hostile.hostile_images import IMAGES
from tests.hostile.hostile_models import CANARY, MODELS
from tests.hostile.hostile_settings import SETTINGS
from tests.hostile.hostile_trial import (
    MEGABYTES,
    SECONDS,
    Case,
    Outcome,
    describe_outcome,
    try_out,
)
from tests.hostile.hostile_workbooks import WORKBOOKS

NO_MASK = "mask_invalid: corrupt: an area is neither background"
# Outcomes of images as masks: most of them are X-rays.
MASKS = {
    "PNG that inflates to 256 MB": "mask_empty",
    "JPEG of 100 scans, 64 million pixels": "accepted",
    "JPEG with EXIF of 64 kB of zeros": NO_MASK,
    "JPEG with EXIF that points at itself": NO_MASK,
    "JPEG with EXIF in 100 segments, 7 MB": NO_MASK,
    "JPEG with 500 ICC segments, 33 MB": NO_MASK,
    "JPEG that is HTML too": NO_MASK,
    "JPEG with a second image behind it": NO_MASK,
    "PNG in chunks of one byte": NO_MASK,
    "PNG that is a zip too": NO_MASK,
    "PNG with an ICC profile of 64 MB": NO_MASK,
    "BMP of negative height": NO_MASK,
}


def _bytes(reader: Callable[[bytes, int], Any], make: Callable[[], bytes]) -> Callable[..., str]:
    return lambda _: describe_outcome(lambda: reader(make(), SIDE))


def _workbook(make: Callable[[], bytes]) -> Callable[[Path], str]:
    from eagle_spark.datasets.workbook import read_workbook

    def read() -> str:
        good, bad = read_workbook(make(), "x.xlsx")
        details = "".join(f": {row.detail}" for row in bad)
        return f"{len(good)} rows, {len(bad)} bad{details}"

    return lambda _: describe_outcome(read)


def _read(uri: str) -> None:
    decode_image(read_bytes(to_utf8(uri), 2**20), SIDE)  # tables hold the name in UTF-8


def _listed(place: Callable[[Path], object]) -> Callable[[Path], str]:
    """Put a file into a folder, list the folder and read its files, as score does."""

    def read(folder: Path) -> str:
        place(folder)
        uris = [entry.uri for entry in list_folder(str(folder))]
        answers = [describe_outcome(lambda uri=uri: _read(uri)) for uri in uris]
        return "; ".join(answers) or "nothing is listed"

    return lambda folder: describe_outcome(lambda: read(folder))


def _named(name: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / os.fsdecode(name)).write_bytes(encode_image(grey(), "PNG"))


def _deep(folder: Path) -> None:
    for _ in range(100):
        folder = folder / "below"
    folder.mkdir(parents=True)
    _named("a.png")(folder)


NAMES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to itself": (lambda folder: (folder / "a.png").symlink_to("a.png"), "unreadable"),
    "a folder that links to its parent": (
        lambda folder: (folder / "a").symlink_to(folder),
        "unreadable",
    ),
    "a link out of the folder": (
        lambda folder: (folder / "a.png").symlink_to("/etc/passwd"),
        "not_an_image",
    ),
    "a link to what has no end": (
        lambda folder: (folder / "a.png").symlink_to("/dev/zero"),
        "unreadable",
    ),
    "a FIFO": (lambda folder: os.mkfifo(folder / "a.png"), "unreadable"),
    "a folder named like an image": (
        lambda folder: (folder / "a.png").mkdir(),
        "nothing is listed",
    ),
    "100 folders deep": (_deep, "accepted"),
    "line ends": (_named("a\nb\r.png"), "accepted"),
    "tabs and blanks": (_named(" a\t .png"), "accepted"),
    "emoji": (_named("\U0001fac1\u200d\U0001f469.png"), "accepted"),
    "right to left": (_named("\u202egnp.exe.png"), "accepted"),
    "no UTF-8": (_named(b"caf\xe9.png"), "unreadable"),
    "255 bytes": (_named("a" * 251 + ".png"), "accepted"),
    "signs of a glob": (_named("{a,b}[0-9]*?.png"), "accepted"),
    "signs of a URI": (_named("a%2F..%00#x?y=1.png"), "accepted"),
    "signs of a shell": (_named("$(reboot);`reboot`|&.png"), "accepted"),
    "signs of SQL": (_named("a'); DROP TABLE images; --.png"), "accepted"),
    "signs of HTML": (_named("<img src=x onerror=alert(1)>.png"), "accepted"),
    "a backslash": (_named("a\\..\\b.png"), "accepted"),
}


def _archive(name: str, make: Callable[[], bytes]) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        (folder / name).write_bytes(make())
        return read_members(folder)

    return read


def _model(change: Callable[[Path], object], model: Path) -> Callable[[Path], str]:
    from eagle_spark.model.bundle import open_bundle

    def read(folder: Path) -> str:
        shutil.copytree(model, folder / "model")
        change(folder / "model")
        answer = describe_outcome(lambda: open_bundle(str(folder / "model")))
        return "ran code" if (folder / CANARY).exists() else answer

    return read


def cases(model: Path) -> Iterable[Case]:
    """Yield all cases; `model` is a sound model folder."""
    for name, make in SAMPLE_IMAGES.items():
        expected = EXPECTED_REASONS[name]
        yield Case("image", name, _bytes(decode_image, make), str(expected or "accepted"))
    for name, (make, expected) in IMAGES.items():
        yield Case("image", name, _bytes(decode_image, make), expected)
        mask_expected = expected if expected == "accepted" else f"mask_invalid: {expected}"
        yield Case("mask", name, _bytes(read_mask, make), MASKS.get(name, mask_expected))
    for name, (make, expected) in DICOMS.items():
        yield Case("dicom", name, _bytes(decode_image, make), expected)
    for name, (make, expected) in WORKBOOKS.items():
        yield Case("workbook", name, _workbook(make), expected)
    for name, (file, make, expected) in ARCHIVES.items():
        yield Case("archive", name, _archive(file, make), expected)
    for name, (place, expected) in NAMES.items():
        yield Case("name", name, _listed(place), expected)
    for name, (run, expected) in SETTINGS.items():
        yield Case("setting", name, run, expected)
    for name, (change, expected) in MODELS.items():
        yield Case("model", name, _model(change, model), expected)


def page(outcomes: Iterable[tuple[Case, Outcome]]) -> str:
    """Return the page as Markdown, one row per case; text of the files is escaped."""
    rows = []
    met = 0
    for case, outcome in outcomes:
        met += case.is_met_by(outcome)
        text = outcome.text.replace("<", "&lt;").replace("[", "\\[")
        short = text if len(text) < 160 else f"{text[:157]}..."
        rows.append((case.kind, case.name, short, f"{outcome.seconds:.2f}", outcome.megabytes))
    return f"""# What becomes of hostile inputs?

{met} of {len(rows)} inputs end as expected: in pixels, rows, a rejection with its reason, or an error of the
program.

{render_table(("input", "case", "outcome", "s", "MB"), rows)}

`s` includes the creation of the input. `MB` is the memory that the process took from its start.

## How to run it

<!-- not run: needs a checkout of the repository, and takes minutes -->
```bash
make hostile MODEL=DIR
```

`DIR` is any valid model folder. The modules `tests/hostile/hostile*.py` make the inputs. Each input runs in a
process of its own, with {SECONDS} s and {MEGABYTES / 1024:g} GB. A process that starts a program, opens a socket, unpickles, makes a
function from data or writes outside of its folder fails its case.

## Date and machine

{date.today()}, one machine.
"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="a valid model folder")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    outcomes = []
    for case in cases(arguments.model):
        with tempfile.TemporaryDirectory(prefix="eagle-hostile-") as folder:
            outcomes.append((case, try_out(case, Path(folder))))
    arguments.out.write_text(page(outcomes))
    other = [
        f"{case.kind} {case.name}" for case, outcome in outcomes if not case.is_met_by(outcome)
    ]
    if other:
        raise SystemExit(f"error: not as expected: {', '.join(other)}")


if __name__ == "__main__":
    main()
