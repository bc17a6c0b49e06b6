from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from eagle_spark.datasets.synthetic.sample import (
    CLASSES,
    SampleCounts,
    write_sample,
    write_unlabelled,
)
from eagle_spark.errors import OutputError, SettingsError
from tests.helpers.processes import run_eagle

FOLDERS = [kind.folder for kind in CLASSES]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SampleCounts]:
    out = tmp_path_factory.mktemp("sample") / "set"
    return out, write_sample(out, images=40, seed=7)


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def workbook(root: Path, folder: str) -> list[tuple[object, ...]]:
    book = openpyxl.load_workbook(root / f"{folder}.metadata.xlsx")
    return list(book["Sheet1"].iter_rows(values_only=True))


def test_layout_is_that_of_the_radiography_database(sample: tuple[Path, SampleCounts]) -> None:
    out, counts = sample
    assert sorted(path.name for path in out.iterdir()) == sorted(
        FOLDERS + [f"{folder}.metadata.xlsx" for folder in FOLDERS]
    )
    for folder, count in counts.by_class.items():
        images = sorted(path.name for path in (out / folder / "images").iterdir())
        assert images == sorted(f"{folder}-{place}.png" for place in range(1, count + 1))
        assert images == sorted(path.name for path in (out / folder / "masks").iterdir())
    assert sum(counts.by_class.values()) == counts.images == 40


def test_images_are_299_and_mostly_grey_and_masks_are_256_rgb_of_two_values(
    sample: tuple[Path, SampleCounts],
) -> None:
    modes: Counter[str] = Counter()
    for path in sample[0].glob("*/images/*.png"):
        with Image.open(path) as image:
            assert image.size == (299, 299)
            modes[image.mode] += 1
    assert set(modes) == {"L", "RGB"}
    assert modes["L"] > 3 * modes["RGB"]
    for path in sample[0].glob("*/masks/*.png"):
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("RGB", (256, 256))
            assert np.unique(np.asarray(mask)).tolist() == [0, 255]


def test_workbooks_name_every_file_with_the_databases_quirks(
    sample: tuple[Path, SampleCounts],
) -> None:
    out, counts = sample
    for folder in FOLDERS:
        header, *rows = workbook(out, folder)
        assert header == ("FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT ID")
        assert len(rows) == counts.by_class[folder]
        assert {row[1:3] for row in rows} == {("PNG", "256*256")}
    assert workbook(out, "Normal")[1][0] == "NORMAL-1"
    assert workbook(out, "Viral Pneumonia")[1][0] == "Viral Pneumonia-1"


def test_patients_have_one_to_four_images_of_one_class(
    sample: tuple[Path, SampleCounts],
) -> None:
    out, counts = sample
    films = [Counter(row[4] for row in workbook(out, folder)[1:]) for folder in FOLDERS]
    assert sum(len(patients) for patients in films) == counts.patients
    assert len(set().union(*films)) == counts.patients
    sizes = {size for patients in films for size in patients.values()}
    assert sizes > {1, 2}
    assert max(sizes) <= 5  # four films and a copy


def test_duplicates_have_other_names_of_the_same_patient(
    sample: tuple[Path, SampleCounts],
) -> None:
    out, counts = sample
    extra = 0
    for folder in FOLDERS:
        owners: dict[bytes, set[object]] = {}
        for place, row in enumerate(workbook(out, folder)[1:], start=1):
            data = (out / folder / "images" / f"{folder}-{place}.png").read_bytes()
            extra += data in owners
            owners.setdefault(data, set()).add(row[4])
        assert all(len(patients) == 1 for patients in owners.values())
    assert extra == counts.duplicates > 0


def test_lungs_are_two_fields_darker_than_the_mediastinum(
    sample: tuple[Path, SampleCounts],
) -> None:
    for path in sorted((sample[0] / "Normal" / "images").iterdir()):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L").resize((256, 256)), np.float32)
        with Image.open(path.parents[1] / "masks" / path.name) as picture:
            mask = np.asarray(picture.convert("L")) > 0
        assert 0.15 < mask.mean() < 0.5
        assert mask[:, :118].any()
        assert mask[:, 138:].any()
        rows = mask.any(axis=1)
        assert pixels[mask].mean() < pixels[rows, 124:132].mean() - 20


def test_heart_lies_mainly_on_the_right_of_the_image(sample: tuple[Path, SampleCounts]) -> None:
    bright = np.zeros(2)
    for path in (sample[0] / "Normal" / "images").iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"), np.float32)
        bright += [pixels[150:210, 85:125].mean(), pixels[150:210, 174:214].mean()]
    assert bright[1] > bright[0] * 1.1


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write_sample(tmp_path / name, images=4, seed=seed)
    first, second, other = (tree(tmp_path / name) for name in ("one", "two", "other"))
    assert first == second
    images = [name for name in first if name.endswith(".png")]
    assert images
    assert all(first[name] != other[name] for name in images)


def test_a_larger_set_begins_with_the_images_of_a_smaller_one(
    sample: tuple[Path, SampleCounts], tmp_path: Path
) -> None:
    write_sample(tmp_path, images=10, seed=7)
    for name, data in tree(tmp_path).items():
        if name.endswith(".png"):
            assert (sample[0] / name).read_bytes() == data


@pytest.mark.parametrize("images", [3, 7])
def test_every_class_has_an_image_however_small_the_set(tmp_path: Path, images: int) -> None:
    counts = write_sample(tmp_path, images=images, seed=1)
    assert min(counts.by_class.values()) >= 1
    assert len(list(tmp_path.glob("*/images/*.png"))) == images


def test_too_few_images_or_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="`images` must be at least 3; got 2"):
        write_sample(tmp_path / "new", images=2, seed=1)
    with pytest.raises(SettingsError, match="`seed` must be 0 or more; got -1"):
        write_sample(tmp_path / "new", images=3, seed=-1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("write", [write_sample, write_unlabelled])
def test_a_folder_that_is_not_empty_is_refused_and_unchanged(
    tmp_path: Path, write: Callable[[Path, int, int], object]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match=r"must be a new or empty folder; it holds mine\.txt"):
        write(tmp_path, 3, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_at_the_path_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot write to the folder"):
        write_sample(tmp_path / "taken", images=3, seed=1)


def test_unlabelled_tree_is_nested_and_holds_other_patients_and_four_broken_files(
    sample: tuple[Path, SampleCounts], tmp_path: Path
) -> None:
    write_unlabelled(tmp_path, images=8, seed=7)
    broken = {"empty.png", "truncated.png", "text.png", "one-pixel.png"}
    whole = {}
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert len(path.relative_to(tmp_path).parts) == 3
        if path.name in broken:
            broken.remove(path.name)
            continue
        with Image.open(path) as image:
            image.load()
            whole[path.name] = image.format
    assert not broken
    assert Counter(whole.values()) == {"PNG": 6, "JPEG": 2}
    labelled = {path.read_bytes() for path in sample[0].glob("*/images/*.png")}
    assert not labelled & {path.read_bytes() for path in tmp_path.rglob("cxr-*.png")}


def test_the_truncated_file_is_an_image_that_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    write_unlabelled(tmp_path, images=1, seed=7)
    path = next(tmp_path.rglob("truncated.png"))
    with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
        image.load()


def test_command_prints_its_counts_as_one_json_line(tmp_path: Path) -> None:
    out, score = tmp_path / "set", tmp_path / "score"
    options = ["--out", out, "--images", "5", "--seed", "2"]
    done = run_eagle("sample", *options, "--unlabelled-out", score, "--unlabelled", "2")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["images"] == 5
    assert sum(printed["by_class"].values()) == 5
    assert len(list(score.rglob("*.*"))) == 2 + 4


def test_command_refuses_with_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    done = run_eagle("sample", "--out", tmp_path)
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 2
    assert done.stderr.startswith(f"error: {tmp_path} must be a new or empty folder")
    assert done.stderr.count("\n") == 1


def test_help_loads_neither_spark_nor_tensorflow_nor_openpyxl() -> None:
    code = (
        "import sys, eagle_spark.datasets.synthetic.sample\n"
        "print(sorted({'pyspark', 'tensorflow', 'openpyxl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
