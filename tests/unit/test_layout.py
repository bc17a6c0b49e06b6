from __future__ import annotations

from pathlib import Path

import pytest

from eagle_spark.datasets.layout import find_layout, fold, workbook_label
from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, list_folder

ROOT = "hdfs://name:9000/sets/x"


def listing(*paths: str, root: str = ROOT) -> list[FileEntry]:
    return [FileEntry(f"{root}/{path}", 1, 0) for path in paths]


def names(entries: tuple[FileEntry, ...]) -> list[str]:
    return [entry.name for entry in entries]


def test_database_layout_is_sorted_into_classes_and_workbooks() -> None:
    found = find_layout(
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
    assert [folder.label for folder in found.classes] == ["COVID", "Viral Pneumonia"]
    assert [folder.folder for folder in found.classes] == [
        f"{ROOT}/COVID",
        f"{ROOT}/Viral Pneumonia",
    ]
    covid, viral = found.classes
    assert (names(covid.images), names(covid.masks), covid.has_masks) == (
        ["c.png"],
        ["c.png"],
        True,
    )
    assert (names(viral.images), names(viral.masks)) == (["a.png", "b.png"], ["a.png"])
    assert names(found.workbooks) == ["COVID.Metadata.XLSX", "Viral Pneumonia.metadata.xlsx"]


def test_the_order_of_the_listing_plays_no_part() -> None:
    entries = listing("A/images/1.png", "A/images/2.png", "B/images/1.png", "A.metadata.xlsx")
    assert find_layout(ROOT, entries) == find_layout(ROOT, reversed(entries))


def test_class_without_images_folder_gives_the_files_straight_in_it() -> None:
    found = find_layout(ROOT, listing("Normal/a.png", "Normal/masks/a.png", "Normal/other/b.png"))
    (normal,) = found.classes
    assert (names(normal.images), names(normal.masks)) == (["a.png"], ["a.png"])


def test_files_beside_an_images_folder_are_ignored() -> None:
    (normal,) = find_layout(ROOT, listing("Normal/images/a.png", "Normal/README.txt")).classes
    assert names(normal.images) == ["a.png"]


def test_deeper_files_below_images_are_taken() -> None:
    (normal,) = find_layout(ROOT, listing("Normal/images/p1/images/a.png")).classes
    assert names(normal.images) == ["a.png"]


def test_class_without_masks_has_none() -> None:
    (normal,) = find_layout(ROOT, listing("Normal/images/a.png")).classes
    assert not normal.has_masks
    assert normal.masks == ()


def test_other_files_at_the_top_are_ignored() -> None:
    found = find_layout(
        ROOT, listing("A/images/1.png", "manifest.csv", "README.txt", "~$A.metadata.xlsx")
    )
    assert found.workbooks == ()
    assert len(found.classes) == 1


@pytest.mark.parametrize("paths", [(), ("a.png", "A.metadata.xlsx"), ("A/masks/a.png",)])
def test_root_without_class_folder_is_named_with_the_layout_wanted(paths: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=rf"{ROOT}: wanted <Class>/images/\*"):
        find_layout(ROOT, listing(*paths))


def test_root_one_level_too_high_says_where_the_set_stands() -> None:
    with pytest.raises(InputError, match=r"deeper: set$"):
        find_layout(ROOT, listing("set/A/images/1.png", "set/A.metadata.xlsx", "set/manifest.csv"))


@pytest.mark.parametrize("twin", ["covid", "COVID "])
def test_class_folders_that_differ_only_by_case_or_blanks_are_refused(twin: str) -> None:
    with pytest.raises(InputError, match="'COVID'"):
        find_layout(ROOT, listing("COVID/images/a.png", f"{twin}/images/b.png"))


def test_labels_are_composed_unicode() -> None:
    (folder,) = find_layout(ROOT, listing("Neumoni\u0301a/images/a.png")).classes
    assert folder.label == "Neumon\u00eda"
    assert folder.folder.endswith("Neumoni\u0301a")


def test_label_that_is_no_utf8_can_be_stored() -> None:
    (folder,) = find_layout(ROOT, listing("bad\udcff/images/a.png")).classes
    assert folder.label == "bad\\udcff"


@pytest.mark.parametrize("spelling", ["{}", "{}/", "file://{}", "file://{}/"])
def test_a_local_folder_is_found_by_every_spelling(tmp_path: Path, spelling: str) -> None:
    image = tmp_path / "Viral Pneumonia" / "images" / "a #1?.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    root = spelling.format(tmp_path)
    (folder,) = find_layout(root, list_folder(root)).classes
    assert folder.label == "Viral Pneumonia"
    assert folder.images[0].uri == f"file://{image}"


@pytest.mark.parametrize("name", ["lung masks", "Lung_Masks", "MASKS", "mask", "masks "])
def test_masks_may_stand_in_folders_of_these_names(name: str) -> None:
    paths = ("COVID/images/a.png", f"COVID/{name}/a.png")
    (folder,) = find_layout(ROOT, listing(*paths)).classes
    assert [entry.name for entry in folder.masks] == ["a.png"]


def test_what_is_not_used_is_counted() -> None:
    found = find_layout(
        ROOT,
        listing(
            *("COVID/images/a.png", "COVID/infection masks/a.png", "COVID/infection masks/b.png"),
            *("COVID/notes.xlsx", "COVID.csv", "README.txt", "Normal/lung masks/x.png"),
        ),
    )
    assert found.left_out == {
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
    found = find_layout(ROOT, listing("COVID/a.png", path))
    assert [workbook_label(entry.name) for entry in found.workbooks] == ["COVID"]
    assert [entry.name for entry in found.classes[0].images] == ["a.png"]
    assert found.left_out == {}


def test_an_open_workbook_of_excel_is_none() -> None:
    assert workbook_label("~$COVID.metadata.xlsx") is None
    found = find_layout(ROOT, listing("COVID/images/a.png", "~$COVID.metadata.xlsx"))
    assert (found.workbooks, found.left_out) == ((), {})


@pytest.mark.parametrize(
    ("paths", "used"),
    [
        (["C.metadata.xlsx", "C.metadata (1).xlsx", "C/C.metadata.xlsx"], "C.metadata.xlsx"),
        (["C/C.metadata.xlsx", "C.metadata (1).xlsx"], "C/C.metadata.xlsx"),
        (["C.metadata (2).xlsx", "C.metadata (10).xlsx"], "C.metadata (10).xlsx"),
    ],
)
def test_of_several_workbooks_of_a_class_one_is_used(paths: list[str], used: str) -> None:
    found = find_layout(ROOT, listing("C/images/a.png", *paths))
    assert [entry.uri for entry in found.workbooks] == [f"{ROOT}/{used}"]
    assert found.left_out == {path: 1 for path in sorted(paths) if path != used}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A-1", "\ufeffA-1"),
        ("A-1", "a\u20131"),
        ("A 1", "A\u00a01"),
        ("A 1", "A \n1 "),
        ("t\u00f3rax", "TO\u0301RAX\u200b"),
    ],
    ids=ascii,
)
def test_names_are_compared_by_what_is_seen(one: str, other: str) -> None:
    assert fold(one) == fold(other)
