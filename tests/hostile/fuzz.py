"""Coverage-guided fuzzing: any bytes give pixels, rows, or an error of the program.

    make fuzz [SECONDS_EACH=300]  every target for so long
    python tests/hostile/fuzz.py TARGET -max_total_time=300    one, with libFuzzer's own options

Targets: `image` and `dicom` (bytes of a file), `workbook` (bytes of an .xlsx), `sheet` (XML of its
sheet, packed anew, as damage inside a zip is mostly found by its checksum), `zip` and `tar` (bytes
of an archive, listed and read to the last member). An input that raises anything else, takes 20 s
or 2 GB ends the run with an error and is kept in `build/fuzz`. Wants `atheris`, which `make fuzz`
puts into an environment of its own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["eagle_spark", "PIL", "openpyxl", "pydicom", "zipfile", "tarfile"]
):
    from eagle_spark.datasets.workbook import read_workbook
    from eagle_spark.errors import ImageRejectedError, WorkbookError
    from eagle_spark.imaging.decode import decode_image
    from eagle_spark.imaging.dicom import read as _dicom  # noqa: F401 - loaded late otherwise, and as is
    from eagle_spark.io import archives as _archives  # noqa: F401
    from tests.helpers import dicom_files
    from tests.hostile.hostile_archives import ARCHIVES, read_members

from tests.helpers.sample_images import SAMPLE_IMAGES, SIDE
from tests.hostile.hostile_dicom import DICOMS
from tests.hostile.hostile_images import IMAGES
from tests.hostile.hostile_workbooks import REST, WORKBOOKS, book, packed_sheet, plain_sheet

LARGEST_SEED = 2**16
LIMITS = ("-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1")


def image(data: bytes) -> None:
    try:
        decoded = decode_image(data, SIDE)
    except ImageRejectedError:
        return
    assert decoded.pixels.shape == (SIDE, SIDE)


def workbook(data: bytes) -> None:
    try:
        good, bad = read_workbook(data, "x.xlsx")
    except WorkbookError:
        return
    assert len(good) + len(bad) <= 2_000_000


def sheet(data: bytes) -> None:
    workbook(packed_sheet(data))


def archive(ending: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="eagle-fuzz-") as folder:
            (Path(folder) / f"a.{ending}").write_bytes(data)
            assert read_members(Path(folder))

    return read


def images() -> list[bytes]:
    return [*(make() for make in SAMPLE_IMAGES.values()), *(make() for make, _ in IMAGES.values())]


def dicoms() -> list[bytes]:
    sound = [make() for make, _ in dicom_files.SYNTAXES.values()]
    return [*sound, *(make() for make, _ in DICOMS.values())]


def archives(ending: str) -> Callable[[], list[bytes]]:
    return lambda: [make() for name, make, _ in ARCHIVES.values() if name.endswith(ending)]


def workbooks() -> list[bytes]:
    return [make() for make, _ in WORKBOOKS.values()] + [book(("a", *REST))]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "image": (image, images),
    "dicom": (image, dicoms),
    "workbook": (workbook, workbooks),
    "sheet": (sheet, lambda: [plain_sheet()]),
    "zip": (archive("zip"), archives("zip")),
    "tar": (archive("tar"), archives("tar")),
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"error: wanted one of {', '.join(TARGETS)}, and options of libFuzzer")
    target, seeds = TARGETS[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="eagle-fuzz-") as corpus:
        for number, seed in enumerate(seeds()):
            if len(seed) <= LARGEST_SEED:
                (Path(corpus) / f"{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[2:], corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
