"""Write a synthetic sample in the layout of the COVID-19 Radiography Database, with its quirks.

    eagle sample --out DIR --images 120 --seed 7

writes `<Class>/images/*.png` (299x299, mostly grey, some RGB), `<Class>/masks/*.png` (256x256 RGB,
0 or 255) and `<Class>.metadata.xlsx`. The workbooks name `Normal-1.png` as `NORMAL-1` and give a
SIZE of 256*256; patients have one to four images, and some images occur twice under two names. The
images of a patient depend only on the seed and the number of the patient, so a larger sample starts
with the images of a smaller one.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image

from eagle_spark.datasets.synthetic.anatomy import Anatomy
from eagle_spark.datasets.synthetic.opacity import Disease
from eagle_spark.datasets.synthetic.phantom import RenderedRadiograph, render_radiograph
from eagle_spark.errors import OutputError, SettingsError

WORKBOOK_COLUMNS = ("FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT ID")
URL = "https://example.org/eagle-spark-synthetic-sample"
LABELLED, UNLABELLED = 0, 1  # random streams of patients, so that no patient is in both sets
_DUPLICATE_EVERY = 12  # patients


@dataclass(frozen=True)
class SampleClass:
    """A class of the sample.

    Attributes:
        folder: name of the class folder.
        row_name: prefix of the file names in the workbook.
        patient: format of the patient ids in the workbook.
        disease: disease of the patients, None for healthy.
        share: fraction of the images.
    """

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
    """Counts of a sample.

    Attributes:
        images: number of images.
        patients: number of patients.
        duplicates: number of files that repeat another file.
        by_class: class -> number of images.
    """

    images: int
    patients: int
    duplicates: int
    by_class: dict[str, int]


@dataclass(frozen=True)
class SyntheticImage:
    """One image of a sample.

    Attributes:
        patient: number of the patient in its class, from 0.
        radiograph: pixels and lung mask.
        is_rgb: whether the image is written as RGB instead of grey.
        is_duplicate: whether the image repeats another one.
    """

    patient: int
    radiograph: RenderedRadiograph
    is_rgb: bool
    is_duplicate: bool = False

    def encode_png(self) -> bytes:
        """Return the image as PNG."""
        image = Image.fromarray(self.radiograph.pixels)
        return _encode(image.convert("RGB") if self.is_rgb else image, "PNG")

    def encode_mask_png(self) -> bytes:
        """Return the lung mask as RGB PNG of 0 and 255."""
        return _encode(Image.fromarray(self.radiograph.mask).convert("RGB"), "PNG")


def write_sample(out: Path, images: int, seed: int) -> SampleCounts:
    """Write a labelled sample.

    Args:
        out: new or empty folder.
        images: number of images of all classes.
        seed: equal seeds give equal bytes.

    Raises:
        SettingsError: when there are fewer images than classes, or the seed is negative.
        OutputError: when `out` is not empty or cannot be written.
    """
    _check_counts("`images`", images, seed, minimum=len(CLASSES))
    _create_empty_folder(out)
    patients = duplicates = 0
    by_class = _allocate_images(images)
    try:
        for number, kind in enumerate(CLASSES):
            (out / kind.folder / "images").mkdir(parents=True)
            (out / kind.folder / "masks").mkdir()
            rows = []
            stream = _iterate_images(seed, (LABELLED, number), kind.disease)
            for position, image in enumerate(islice(stream, by_class[kind.folder]), start=1):
                name = f"{kind.folder}-{position}.png"
                (out / kind.folder / "images" / name).write_bytes(image.encode_png())
                (out / kind.folder / "masks" / name).write_bytes(image.encode_mask_png())
                patient = kind.patient.format(image.patient + 1)
                rows.append((f"{kind.row_name}-{position}", "PNG", "256*256", URL, patient))
                duplicates += image.is_duplicate
            (out / f"{kind.folder}.metadata.xlsx").write_bytes(_encode_workbook(rows))
            patients += len({row[-1] for row in rows})
    except OSError as error:
        raise OutputError(f"cannot write the sample to {out}: {error}") from error
    return SampleCounts(images, patients, duplicates, by_class)


def write_unlabelled(out: Path, images: int, seed: int) -> None:
    """Write unlabelled images of other patients, and four broken files.

    The paths are `ward-a/2026-11-01/cxr-0001.png`; every fourth image is a larger JPEG.

    Args:
        out: new or empty folder.
        images: number of intact images.
        seed: equal seeds give equal bytes.

    Raises:
        SettingsError: when `images` is below 1 or the seed is negative.
        OutputError: when `out` is not empty or cannot be written.
    """
    _check_counts("`unlabelled`", images, seed, minimum=1)
    _create_empty_folder(out)
    try:
        png = b""
        for index in range(images):
            kind = CLASSES[index % len(CLASSES)]
            image = next(_iterate_images(seed, (UNLABELLED, index), kind.disease))
            png = image.encode_png()
            folder = out / f"ward-{'abc'[index // 2 % 3]}" / f"2026-11-{1 + index // 6 % 28:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            if index % 4 == 3:
                large = Image.fromarray(image.radiograph.pixels).resize((640, 640))
                (folder / f"cxr-{index + 1:04d}.jpg").write_bytes(_encode(large, "JPEG"))
            else:
                (folder / f"cxr-{index + 1:04d}.png").write_bytes(png)
        broken = out / "ward-a" / "2026-11-01"
        (broken / "empty.png").write_bytes(b"")
        (broken / "truncated.png").write_bytes(png[: len(png) // 2])
        (broken / "text.png").write_bytes(b"The film is in the other folder.\n")
        (broken / "one-pixel.png").write_bytes(_encode(Image.new("L", (1, 1)), "PNG"))
    except OSError as error:
        raise OutputError(f"cannot write the images to {out}: {error}") from error


def _iterate_images(
    seed: int, key: tuple[int, ...], disease: Disease | None
) -> Iterator[SyntheticImage]:
    """Yield the images of an endless series of patients."""
    for patient in count():
        rng = _create_generator(seed, (*key, patient))
        anatomy = Anatomy.draw(rng)
        images = []
        for number in range(int(rng.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08]))):
            image_rng = _create_generator(seed, (*key, patient, number))
            radiograph = render_radiograph(anatomy, disease, image_rng)
            is_rgb = bool(image_rng.random() < 0.1)
            images.append(SyntheticImage(patient, radiograph, is_rgb))
            yield images[-1]
        if patient % _DUPLICATE_EVERY == 4:
            yield replace(images[0], is_duplicate=True)


def _create_generator(seed: int, key: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _allocate_images(images: int) -> dict[str, int]:
    """Return images per class by share: at least one each, the rest to the largest class."""
    counts = {kind.folder: max(1, int(kind.share * images)) for kind in CLASSES}
    largest = max(CLASSES, key=lambda kind: kind.share).folder
    counts[largest] += images - sum(counts.values())
    return counts


def _encode(image: Image.Image, image_format: str) -> bytes:
    stream = io.BytesIO()
    # Noise hardly compresses; level 1 takes a third of the time.
    image.save(stream, image_format, compress_level=1)
    return stream.getvalue()


def _encode_workbook(rows: Sequence[tuple[str, ...]]) -> bytes:
    """Return an .xlsx whose bytes depend only on `rows`, not on the time."""
    from openpyxl import Workbook
    from openpyxl.packaging.core import DocumentProperties
    from openpyxl.worksheet.worksheet import Worksheet
    from openpyxl.xml.functions import tostring

    workbook = Workbook()
    sheet = workbook.active
    assert isinstance(sheet, Worksheet)
    sheet.title = "Sheet1"
    for row in (WORKBOOK_COLUMNS, *rows):
        sheet.append(row)
    saved, reproducible = io.BytesIO(), io.BytesIO()
    workbook.save(saved)
    epoch = datetime(1980, 1, 1)
    properties = DocumentProperties(creator="eagle_spark", created=epoch, modified=epoch)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(reproducible, "w") as target:
        for name in source.namelist():
            is_core = name == "docProps/core.xml"
            data = tostring(properties.to_tree()) if is_core else source.read(name)
            target.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return reproducible.getvalue()


def _check_counts(option: str, images: int, seed: int, *, minimum: int) -> None:
    if images < minimum:
        raise SettingsError(f"{option} must be at least {minimum}; got {images}")
    if seed < 0:
        raise SettingsError(f"`seed` must be 0 or more; got {seed}")


def _create_empty_folder(out: Path) -> None:
    """Create the folder `out`; raise OutputError if it exists and is not empty."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        entry = next(out.iterdir(), None)
    except OSError as error:
        raise OutputError(f"cannot write to the folder {out}: {error}") from error
    if entry is not None:
        raise OutputError(f"{out} must be a new or empty folder; it holds {entry.name}")
