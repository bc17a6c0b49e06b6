"""A synthetic stand-in for the COVID-19 Radiography Database, its quirks included.

    python -m eagle_spark.datasets.synthetic.sample --out DIR --images 120 --seed 7

writes `<Class>/images/*.png` (299x299, mostly grey, some RGB), `<Class>/masks/*.png` (256x256 RGB,
0 or 255) and `<Class>.metadata.xlsx`. The workbooks say `NORMAL-1` where the file is
`Normal-1.png`, and give a SIZE of 256*256; patients have one to four films, and now and then a film
stands there twice under two names. What a patient looks like depends on the seed and the patient's
number only: a larger set begins with the films of a smaller one.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from eagle_spark.datasets.synthetic.anatomy import Anatomy
from eagle_spark.datasets.synthetic.opacity import Disease
from eagle_spark.datasets.synthetic.phantom import Radiograph, take_film
from eagle_spark.errors import EagleError, OutputError, SettingsError
from eagle_spark.options import Parser, local_path

COLUMNS = ("FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT ID")
URL = "https://example.org/eagle-spark-synthetic-sample"
LABELLED, UNLABELLED = 0, 1  # streams of patients, so that no patient is in both sets
REPEAT_EVERY = 12


@dataclass(frozen=True)
class SampleClass:
    """A class folder, how its workbook spells file and patient, and its share of the images."""

    folder: str
    row_name: str
    patient: str
    disease: Disease | None
    share: float


CLASSES = (
    SampleClass("COVID", "COVID", "p{}", "ground glass", 0.3),
    SampleClass("Normal", "NORMAL", "NORMAL2-IM-{:04d}", None, 0.4),
    SampleClass("Viral Pneumonia", "Viral Pneumonia", "person{}", "interstitial", 0.3),
)


@dataclass(frozen=True)
class SampleCounts:
    """What was written. `duplicates` are files whose bytes stand under another name too."""

    images: int
    patients: int
    duplicates: int
    by_class: dict[str, int]


@dataclass(frozen=True)
class Film:
    """One image of a set: a radiograph, whose it is, and whether it is a copy of another one."""

    patient: int
    radiograph: Radiograph
    colour: bool
    copy: bool = False

    def png(self) -> bytes:
        """Return the image as a PNG, RGB where `colour`."""
        image = Image.fromarray(self.radiograph.pixels)
        return _encoded(image.convert("RGB") if self.colour else image, "PNG")

    def mask_png(self) -> bytes:
        """Return the lung mask as an RGB PNG of 0 and 255."""
        return _encoded(Image.fromarray(self.radiograph.mask).convert("RGB"), "PNG")


def write_sample(out: Path, images: int, seed: int) -> SampleCounts:
    """Write a labelled set of `images` files into the new or empty folder `out`.

    Raises:
        SettingsError: when there are fewer images than classes, or the seed is negative.
        OutputError: when `out` is not empty or cannot be written.
    """
    _check("--images", images, seed, least=len(CLASSES))
    _claim(out)
    patients = duplicates = 0
    by_class = _allot(images)
    try:
        for number, kind in enumerate(CLASSES):
            (out / kind.folder / "images").mkdir(parents=True)
            (out / kind.folder / "masks").mkdir()
            rows = []
            key = (LABELLED, number)
            films = islice(_films(seed, key, kind.disease), by_class[kind.folder])
            for place, film in enumerate(films, start=1):
                name = f"{kind.folder}-{place}.png"
                (out / kind.folder / "images" / name).write_bytes(film.png())
                (out / kind.folder / "masks" / name).write_bytes(film.mask_png())
                patient = kind.patient.format(film.patient + 1)
                rows.append((f"{kind.row_name}-{place}", "PNG", "256*256", URL, patient))
                duplicates += film.copy
            (out / f"{kind.folder}.metadata.xlsx").write_bytes(_workbook(rows))
            patients += len({row[-1] for row in rows})
    except OSError as error:
        raise OutputError(f"cannot write the sample to {out}: {error}") from error
    return SampleCounts(images, patients, duplicates, by_class)


def write_unlabelled(out: Path, images: int, seed: int) -> None:
    """Write `images` films of other patients, and four broken files, into the new folder `out`.

    The tree is `ward-a/2026-11-01/cxr-0001.png`; every fourth file is a larger JPEG.

    Raises:
        SettingsError: when `images` is below 1 or the seed is negative.
        OutputError: when `out` is not empty or cannot be written.
    """
    _check("--unlabelled", images, seed, least=1)
    _claim(out)
    try:
        whole = b""
        for place in range(images):
            kind = CLASSES[place % len(CLASSES)]
            film = next(_films(seed, (UNLABELLED, place), kind.disease))
            whole = film.png()
            folder = out / f"ward-{'abc'[place // 2 % 3]}" / f"2026-11-{1 + place // 6 % 28:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            if place % 4 == 3:
                large = Image.fromarray(film.radiograph.pixels).resize((640, 640))
                (folder / f"cxr-{place + 1:04d}.jpg").write_bytes(_encoded(large, "JPEG"))
            else:
                (folder / f"cxr-{place + 1:04d}.png").write_bytes(whole)
        broken = out / "ward-a" / "2026-11-01"
        (broken / "empty.png").write_bytes(b"")
        (broken / "truncated.png").write_bytes(whole[: len(whole) // 2])
        (broken / "text.png").write_bytes(b"The film is in the other folder.\n")
        (broken / "one-pixel.png").write_bytes(_encoded(Image.new("L", (1, 1)), "PNG"))
    except OSError as error:
        raise OutputError(f"cannot write the images to {out}: {error}") from error


def _films(seed: int, key: tuple[int, ...], disease: Disease | None) -> Iterator[Film]:
    """Yield the films of one patient after the other, without end."""
    for patient in count():
        rng = _stream(seed, (*key, patient))
        anatomy = Anatomy.draw(rng)
        films = []
        for number in range(int(rng.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08]))):
            film_rng = _stream(seed, (*key, patient, number))
            radiograph = take_film(anatomy, disease, film_rng)
            films.append(Film(patient, radiograph, colour=bool(film_rng.random() < 0.1)))
            yield films[-1]
        if patient % REPEAT_EVERY == 4:
            yield Film(patient, films[0].radiograph, films[0].colour, copy=True)


def _stream(seed: int, key: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _allot(images: int) -> dict[str, int]:
    """Share `images` out over the classes: at least one each, the rest to the largest class."""
    allotted = {kind.folder: max(1, int(kind.share * images)) for kind in CLASSES}
    largest = max(CLASSES, key=lambda kind: kind.share).folder
    allotted[largest] += images - sum(allotted.values())
    return allotted


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, compress_level=1)  # noise hardly packs; a third of the time
    return stream.getvalue()


def _workbook(rows: Sequence[tuple[str, ...]]) -> bytes:
    """Return an .xlsx whose bytes depend on `rows` only, not on the clock."""
    from openpyxl import Workbook
    from openpyxl.packaging.core import DocumentProperties
    from openpyxl.worksheet.worksheet import Worksheet
    from openpyxl.xml.functions import tostring

    book = Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet.title = "Sheet1"
    for row in (COLUMNS, *rows):
        sheet.append(row)
    written, steady = io.BytesIO(), io.BytesIO()
    book.save(written)
    epoch = datetime(1980, 1, 1)
    properties = DocumentProperties(creator="eagle_spark", created=epoch, modified=epoch)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(steady, "w") as target:
        for name in source.namelist():
            core = name == "docProps/core.xml"
            data = tostring(properties.to_tree()) if core else source.read(name)
            target.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return steady.getvalue()


def _check(option: str, images: int, seed: int, *, least: int) -> None:
    if images < least:
        raise SettingsError(f"{option} must be at least {least}; got {images}")
    if seed < 0:
        raise SettingsError(f"--seed must be 0 or more; got {seed}")


def _claim(out: Path) -> None:
    """Make the folder `out`; raise OutputError when it is there and holds anything."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = next(out.iterdir(), None)
    except OSError as error:
        raise OutputError(f"cannot write to the folder {out}: {error}") from error
    if taken is not None:
        raise OutputError(f"{out} must be a new or empty folder; it holds {taken.name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after one line on what to mend."""
    parser = Parser(
        prog="python -m eagle_spark.datasets.synthetic.sample",
        description="Draw synthetic chest radiographs in the layout of the COVID-19 Radiography "
        "Database: images, lung masks and workbooks.",
    )
    parser.add_argument(
        "--out", type=local_path, required=True, help="new folder for the labelled set"
    )
    parser.add_argument("--images", type=int, default=120, help="all classes together (120)")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same bytes (7)")
    parser.add_argument("--unlabelled-out", type=local_path, help="new folder for images to score")
    parser.add_argument(
        "--unlabelled",
        type=int,
        default=24,
        help="how many of them (24); 4 broken files come on top",
    )
    options = parser.parse_args(argv)
    try:
        if options.unlabelled_out is not None:
            _check("--unlabelled", options.unlabelled, options.seed, least=1)
            _claim(options.unlabelled_out)
        counts = write_sample(options.out, options.images, options.seed)
        if options.unlabelled_out is not None:
            write_unlabelled(options.unlabelled_out, options.unlabelled, options.seed)
    except EagleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(counts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
