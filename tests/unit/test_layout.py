from __future__ import annotations

from pathlib import Path

import pytest

from eagle_spark.datasets.layout import normalise_name, parse_layout, parse_workbook_label
from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, list_folder

ROOT = "hdfs://name:9000/sets/x"


def listing(*paths: str, root: str = ROOT) -> list[FileEntry]:
    return [FileEntry(f"{root}/{path}", 1, 0) for path in paths]


def names(entries: tuple[FileEntry, ...]) -> list[str]:
    return [entry.name for entry in entries]


def test_database_layout_is_sorted_into_classes_and_workbooks() -> None:
    layout = parse_layout(
        ROOT,
        listing(
            "Viral Pneumonia/images/b.png",
            "Viral Pneumonia/images/a.png",
            "Viral Pneumonia/masks/a.png",
            "Viral Pneumonia.metadata.xlsx",
            "COVID/Images/c.png",
            "COVID/MASKS/c.png",
            "COVID.Metadata.XLSX",
        ),
    )
    assert [folder.label for folder in layout.classes] == ["COVID", "Viral Pneumonia"]
    assert [folder.folder for folder in layout.classes] == [
        f"{ROOT}/COVID",
        f"{ROOT}/Viral Pneumonia",
    ]
    covid, viral = layout.classes
    assert (names(covid.images), names(covid.masks), covid.has_masks) == (
        ["c.png"],
        ["c.png"],
        True,
    )
    assert (names(viral.images), names(viral.masks)) == (["a.png", "b.png"], ["a.png"])
    assert names(layout.workbooks) == ["COVID.Metadata.XLSX", "Viral Pneumonia.metadata.xlsx"]


def test_the_order_of_the_listing_does_not_matter() -> None:
    entries = listing("A/images/1.png", "A/images/2.png", "B/images/1.png", "A.metadata.xlsx")
    assert parse_layout(ROOT, entries) == parse_layout(ROOT, reversed(entries))


def test_a_class_without_an_images_folder_gives_its_own_files() -> None:
    layout = parse_layout(ROOT, listing("Normal/a.png", "Normal/masks/a.png", "Normal/other/b.png"))
    (normal,) = layout.classes
    assert (names(normal.images), names(normal.masks)) == (["a.png"], ["a.png"])


def test_files_beside_an_images_folder_are_ignored() -> None:
    (normal,) = parse_layout(ROOT, listing("Normal/images/a.png", "Normal/README.txt")).classes
    assert names(normal.images) == ["a.png"]


def test_nested_images_are_listed() -> None:
    (normal,) = parse_layout(ROOT, listing("Normal/images/p1/images/a.png")).classes
    assert names(normal.images) == ["a.png"]


def test_class_without_masks_has_none() -> None:
    (normal,) = parse_layout(ROOT, listing("Normal/images/a.png")).classes
    assert not normal.has_masks
    assert normal.masks == ()


def test_other_files_at_the_top_are_ignored() -> None:
    layout = parse_layout(
        ROOT, listing("A/images/1.png", "manifest.csv", "README.txt", "~$A.metadata.xlsx")
    )
    assert layout.workbooks == ()
    assert len(layout.classes) == 1


@pytest.mark.parametrize("paths", [(), ("a.png", "A.metadata.xlsx"), ("A/masks/a.png",)])
def test_a_root_without_class_folders_is_an_error_with_the_expected_layout(
    paths: tuple[str, ...],
) -> None:
    with pytest.raises(InputError, match=rf"{ROOT}: wanted <Class>/images/\*"):
        parse_layout(ROOT, listing(*paths))


def test_a_root_one_level_too_high_is_an_error_with_the_folder() -> None:
    with pytest.raises(InputError, match=r"deeper: set$"):
        parse_layout(ROOT, listing("set/A/images/1.png", "set/A.metadata.xlsx", "set/manifest.csv"))


@pytest.mark.parametrize("twin", ["covid", "COVID "])
def test_class_folders_that_differ_only_by_case_or_blanks_are_refused(twin: str) -> None:
    with pytest.raises(InputError, match="'COVID'"):
        parse_layout(ROOT, listing("COVID/images/a.png", f"{twin}/images/b.png"))


def test_labels_are_composed_unicode() -> None:
    (folder,) = parse_layout(ROOT, listing("Neumoni\u0301a/images/a.png")).classes
    assert folder.label == "Neumon\u00eda"
    assert folder.folder.endswith("Neumoni\u0301a")


def test_a_label_that_is_not_utf8_can_be_stored() -> None:
    (folder,) = parse_layout(ROOT, listing("bad\udcff/images/a.png")).classes
    assert folder.label == "bad\\udcff"


@pytest.mark.parametrize("spelling", ["{}", "{}/", "file://{}", "file://{}/"])
def test_a_local_folder_is_found_by_every_spelling(tmp_path: Path, spelling: str) -> None:
    image = tmp_path / "Viral Pneumonia" / "images" / "a #1?.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    root = spelling.format(tmp_path)
    (folder,) = parse_layout(root, list_folder(root)).classes
    assert folder.label == "Viral Pneumonia"
    assert folder.images[0].uri == f"file://{image}"


@pytest.mark.parametrize("name", ["lung masks", "Lung_Masks", "MASKS", "mask", "masks "])
def test_folder_names_of_masks(name: str) -> None:
    paths = ("COVID/images/a.png", f"COVID/{name}/a.png")
    (folder,) = parse_layout(ROOT, listing(*paths)).classes
    assert [entry.name for entry in folder.masks] == ["a.png"]


def test_unused_files_are_counted() -> None:
    layout = parse_layout(
        ROOT,
        listing(
            *("COVID/images/a.png", "COVID/infection masks/a.png", "COVID/infection masks/b.png"),
            *("COVID/notes.xlsx", "COVID.csv", "README.txt", "Normal/lung masks/x.png"),
        ),
    )
    assert layout.unused_files == {
        "COVID.csv": 1,
        "COVID/infection masks": 2,
        "COVID/notes.xlsx": 1,
        "Normal/lung masks": 1,
    }


@pytest.mark.parametrize(
    "path",
    [
        *("COVID.metadata.xlsx", "COVID/COVID.metadata.xlsx", "COVID.metadata (1).xlsx"),
        *("COVID.METADATA.XLSX", "COVID.metadata(2).xlsx"),
    ],
)
def test_a_workbook_is_found_by_its_name(path: str) -> None:
    layout = parse_layout(ROOT, listing("COVID/a.png", path))
    assert [parse_workbook_label(entry.name) for entry in layout.workbooks] == ["COVID"]
    assert [entry.name for entry in layout.classes[0].images] == ["a.png"]
    assert layout.unused_files == {}


def test_a_lock_file_of_excel_is_not_a_workbook() -> None:
    assert parse_workbook_label("~$COVID.metadata.xlsx") is None
    layout = parse_layout(ROOT, listing("COVID/images/a.png", "~$COVID.metadata.xlsx"))
    assert (layout.workbooks, layout.unused_files) == ((), {})


@pytest.mark.parametrize(
    ("paths", "used"),
    [
        (["C.metadata.xlsx", "C.metadata (1).xlsx", "C/C.metadata.xlsx"], "C.metadata.xlsx"),
        (["C/C.metadata.xlsx", "C.metadata (1).xlsx"], "C/C.metadata.xlsx"),
        (["C.metadata (2).xlsx", "C.metadata (10).xlsx"], "C.metadata (10).xlsx"),
    ],
)
def test_one_of_several_workbooks_of_a_class_is_used(paths: list[str], used: str) -> None:
    layout = parse_layout(ROOT, listing("C/images/a.png", *paths))
    assert [entry.uri for entry in layout.workbooks] == [f"{ROOT}/{used}"]
    assert layout.unused_files == {path: 1 for path in sorted(paths) if path != used}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A-1", "\ufeffA-1"),
        ("A-1", "a\u20131"),
        ("A 1", "A\u00a01"),
        ("A 1", "A \n1 "),
        ("t\u00f3rax", "TO\u0301RAX\u200b"),
    ],
    ids=ascii,
)
def test_names_are_compared_by_their_visible_characters(first: str, second: str) -> None:
    assert normalise_name(first) == normalise_name(second)
