from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagle_spark.datasets.layout import find_layout
from eagle_spark.datasets.matching import Candidate, match, stem
from eagle_spark.datasets.workbook import BadRow, WorkbookRow
from eagle_spark.errors import Reason
from eagle_spark.io import FileEntry

ROOT = "hdfs://name:9000/set"
WORKBOOK = f"{ROOT}/Normal.metadata.xlsx"


def row(number: int, name: str, patient: str | None = None, **metadata: str) -> WorkbookRow:
    return WorkbookRow(number, name, patient, None, metadata)


def matched(
    paths: Iterable[str],
    rows: Iterable[WorkbookRow] = (),
    bad: Iterable[BadRow] = (),
    workbook: str = WORKBOOK,
) -> list[Candidate]:
    entries = [FileEntry(f"{ROOT}/{path}", 1, 0) for path in paths]
    layout = find_layout(ROOT, [*entries, FileEntry(workbook, 1, 0)])
    return match(layout, {workbook: (list(rows), list(bad))})


def reasons(candidates: Iterable[Candidate]) -> dict[str, Reason | None]:
    return {one.uri.removeprefix(f"{ROOT}/"): one.reason for one in candidates}


def test_row_and_file_match_without_regard_to_case_and_extension() -> None:
    (one,) = matched(
        ["Normal/images/Normal-64.png", "Normal/masks/normal-64.PNG"],
        [row(2, "NORMAL-64", "p1", FORMAT="PNG")],
    )
    assert one == Candidate(
        uri=f"{ROOT}/Normal/images/Normal-64.png",
        label="Normal",
        mask_uri=f"{ROOT}/Normal/masks/normal-64.PNG",
        patient_id="p1",
        source=None,
        metadata={"FORMAT": "PNG"},
        has_metadata=True,
        reason=None,
        detail="",
    )


@pytest.mark.parametrize(
    ("cell", "file"),
    [
        ("Normal-1.png", "normal-1.PNG"),
        ("Normal-1.jpeg", "Normal-1.jpg"),
        ("Normal-1 ", "Normal-1.png"),
        ("t\u00e9rax", "te\u0301rax.png"),
        ("TE\u0301RAX", "t\u00e9rax.png"),
        ("scan.v2", "scan.v2.png"),
        ("1.2.840.1", "1.2.840.1"),
        ("p1/x", "p1/X.png"),
        ("./p1//x.png", "p1/x.png"),
        ("x", "p1/x.png"),
        ("images/x.png", "x.png"),
        ("images\\x.png", "x.png"),
        ("Normal/images/x.png", "x.png"),
        ("normal\\Images\\p1\\x", "p1/x.png"),
        ("p1\\x.png", "p1/x.png"),
        ("images/x", "images/x.png"),
        ("x\u20131", "x-1.png"),
        ("\ufeffx", "x.png"),
        ("x.png\u200b", "x.png"),
        ("x\u00a01", "x 1.png"),
    ],
)
def test_names_that_are_the_same(cell: str, file: str) -> None:
    (one,) = matched([f"Normal/images/{file}"], [row(2, cell)])
    assert (one.reason, one.has_metadata) == (None, True)


@pytest.mark.parametrize(
    ("cell", "file"),
    [("1.2.840.1", "1.2.840.2"), ("scan", "scan.v2.png"), ("p1/x", "p2/x.png"), ("a", "b.png")],
)
def test_names_that_differ(cell: str, file: str) -> None:
    image, orphan = matched([f"Normal/images/{file}"], [row(2, cell)])
    if image.uri.startswith(WORKBOOK):
        image, orphan = orphan, image
    assert (image.reason, image.has_metadata) == (None, False)
    assert orphan.reason is Reason.METADATA_WITHOUT_FILE


def test_a_name_that_is_only_an_extension_keeps_it() -> None:
    assert stem(".png") == ".png"


def test_image_without_row_is_accepted_without_metadata() -> None:
    (one,) = matched(["Normal/images/a.png"])
    assert (one.reason, one.has_metadata, one.metadata, one.patient_id) == (None, False, {}, None)


def test_row_without_file_is_a_reject_of_its_own() -> None:
    found = matched(["Normal/images/a.png"], [row(2, "a"), row(7, "gone", "p9")])
    assert reasons(found) == {
        "Normal/images/a.png": None,
        "Normal.metadata.xlsx#row=7": Reason.METADATA_WITHOUT_FILE,
    }
    orphan = next(one for one in found if one.reason)
    assert (orphan.label, orphan.patient_id, orphan.mask_uri) == ("Normal", "p9", None)
    assert "'gone'" in orphan.detail


def test_two_files_for_one_row_are_both_rejected_and_the_row_does_not_count() -> None:
    found = matched(["Normal/images/a.png", "Normal/images/A.jpg"], [row(2, "a.png")])
    assert reasons(found) == {
        "Normal/images/a.png": Reason.AMBIGUOUS_FILE,
        "Normal/images/A.jpg": Reason.AMBIGUOUS_FILE,
    }
    assert found[0].detail == "Normal.metadata.xlsx#row=2 fits A.jpg, a.png"


def test_two_files_of_one_stem_without_a_row_are_two_images_that_may_share_a_mask() -> None:
    found = matched(["Normal/images/a.png", "Normal/images/A.jpg", "Normal/masks/a.png"])
    assert [one.reason for one in found] == [None, None]
    assert {one.mask_uri for one in found} == {f"{ROOT}/Normal/masks/a.png"}


def test_two_rows_for_one_file_that_agree_are_fine() -> None:
    (one,) = matched(
        ["Normal/images/a.png"], [row(2, "a", "p1", URL="u"), row(9, "A.png", "p1", URL="u")]
    )
    assert (one.reason, one.patient_id) == (None, "p1")


def test_two_rows_for_one_file_that_disagree_reject_the_file_and_are_both_named() -> None:
    (one,) = matched(["Normal/images/a.png"], [row(2, "a", "p1"), row(9, "A", "p2")])
    assert one.reason is Reason.BAD_METADATA_ROW
    assert "Normal.metadata.xlsx#row=2" in one.detail
    assert "Normal.metadata.xlsx#row=9" in one.detail
    assert one.patient_id is None


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "../../COVID/images/a.png",
        "p1/../../a",
        "..",
        "/etc/passwd",
        "C:/a.png",
        "..\\a.png",
        "C:\\a.png",
        "a\0.png",
        "hdfs://other/a.png",
    ],
)
def test_a_name_that_leaves_the_folder_is_unsafe_even_where_a_file_would_fit(name: str) -> None:
    found = matched(["Normal/images/a.png", "Normal/images/passwd"], [row(3, name)])
    assert reasons(found) == {
        "Normal/images/a.png": None,
        "Normal/images/passwd": None,
        "Normal.metadata.xlsx#row=3": Reason.UNSAFE_NAME,
    }
    assert not any(one.has_metadata for one in found if one.reason is None)


@pytest.mark.parametrize("name", ["..a", "a..b", "a...", "~a", "a:b"])
def test_names_with_odd_signs_are_safe(name: str) -> None:
    (one,) = matched([f"Normal/images/{name}.png"], [row(3, name)])
    assert (one.reason, one.has_metadata) == (None, True)


def test_bad_rows_are_rejects() -> None:
    found = matched(["Normal/images/a.png"], bad=[BadRow(4, "FILE NAME is empty")])
    assert reasons(found) == {
        "Normal/images/a.png": None,
        "Normal.metadata.xlsx#row=4": Reason.BAD_METADATA_ROW,
    }


def test_rows_of_equal_number_on_two_sheets_stay_apart() -> None:
    found = matched(
        ["Normal/images/a.png"],
        [row(2, "x"), WorkbookRow(2, "y", None, None, {}, sheet=2)],
        [BadRow(2, "bad", sheet=3)],
    )
    assert {one.uri for one in found if one.reason} == {
        f"{WORKBOOK}#row=2",
        f"{WORKBOOK}#sheet=2&row=2",
        f"{WORKBOOK}#sheet=3&row=2",
    }


def test_the_workbook_finds_its_class_without_regard_to_case() -> None:
    (one,) = matched(
        ["Viral Pneumonia/images/a.png"],
        [row(2, "a", "p1")],
        workbook=f"{ROOT}/viral pneumonia.Metadata.xlsx",
    )
    assert (one.label, one.patient_id) == ("Viral Pneumonia", "p1")


def test_a_workbook_of_no_class_folder_gives_rejects_only() -> None:
    found = matched(
        ["Normal/images/a.png"], [row(2, "a")], workbook=f"{ROOT}/Lung_Opacity.metadata.xlsx"
    )
    assert reasons(found) == {
        "Normal/images/a.png": None,
        "Lung_Opacity.metadata.xlsx#row=2": Reason.METADATA_WITHOUT_FILE,
    }
    assert {one.label for one in found} == {"Normal", "Lung_Opacity"}


def test_rows_match_files_of_their_own_class_only() -> None:
    found = matched(["Normal/images/a.png", "COVID/images/b.png"], [row(2, "b")])
    assert reasons(found)["Normal.metadata.xlsx#row=2"] is Reason.METADATA_WITHOUT_FILE


def test_a_mask_that_is_missing_rejects_the_image_and_keeps_its_patient() -> None:
    found = matched(
        ["Normal/images/a.png", "Normal/images/b.png", "Normal/masks/a.png"], [row(2, "b", "p1")]
    )
    assert reasons(found) == {
        "Normal/images/a.png": None,
        "Normal/images/b.png": Reason.MASK_MISSING,
    }
    assert next(one.patient_id for one in found if one.reason) == "p1"


def test_a_class_without_masks_needs_none() -> None:
    found = matched(["Normal/images/a.png", "COVID/images/b.png", "COVID/masks/b.png"])
    assert {one.label: one.mask_uri for one in found} == {
        "Normal": None,
        "COVID": f"{ROOT}/COVID/masks/b.png",
    }


def test_masks_without_image_count_for_nothing() -> None:
    assert len(matched(["Normal/images/a.png", "Normal/masks/a.png", "Normal/masks/b.png"])) == 1


def test_two_masks_that_fit_reject_the_image() -> None:
    (one,) = matched(["Normal/images/a.png", "Normal/masks/a.png", "Normal/masks/a.bmp"])
    assert (one.reason, one.mask_uri) == (Reason.AMBIGUOUS_FILE, None)


def test_patients_folders_with_equal_names_inside_keep_their_own_masks_and_rows() -> None:
    paths = [f"Normal/{kind}/p{n}/image.png" for kind in ("images", "masks") for n in range(3)] + [
        "Normal/images/image.png",
        "Normal/masks/image.png",
    ]
    found = matched(paths, [row(n + 2, f"p{n}/IMAGE.png", f"p{n}") for n in range(3)])
    assert [one.reason for one in found] == [None] * 4
    for one in found:
        assert one.mask_uri == one.uri.replace("/images/", "/masks/")
    assert [one.patient_id for one in found] == [None, "p0", "p1", "p2"]


def test_class_without_images_folder_is_matched_too() -> None:
    (one,) = matched(["Normal/a.png", "Normal/masks/a.png"], [row(2, "A", "p1")])
    assert (one.patient_id, one.mask_uri) == ("p1", f"{ROOT}/Normal/masks/a.png")


@pytest.mark.parametrize("path", ["Normal/images/a\udcff.png", "Normal/images/\udcff/a.png"])
def test_a_name_that_is_no_utf8_is_a_reject_that_can_be_stored(path: str) -> None:
    (one,) = matched([path])
    assert one.reason is Reason.UNSAFE_NAME
    assert "\\udcff" in one.uri
    one.uri.encode()


stems = st.sampled_from(["a", "A", "b", "c.v2", "p/a", "p/b", "../a", "\u00e9", "e\u0301"])
files = st.builds(lambda name, end: f"{name}{end}", stems, st.sampled_from([".png", ".jpg", ""]))


@given(
    st.sets(files.filter(lambda name: ".." not in name), min_size=1),
    st.sets(files.filter(lambda name: ".." not in name)),
    st.lists(files),
    st.integers(0, 3),
)
def test_every_image_stands_once_and_every_other_row_at_most_once(
    images: set[str], masks: set[str], names: list[str], bad: int
) -> None:
    rows = [row(number, name) for number, name in enumerate(names, start=2)]
    bad_rows = [BadRow(1000 + number, "bad") for number in range(bad)]
    found = matched(
        [
            *(f"Normal/images/{name}" for name in images),
            *(f"Normal/masks/{name}" for name in masks),
        ],
        rows,
        bad_rows,
    )
    counts = Counter(one.uri for one in found)
    assert max(counts.values()) == 1
    assert sum("#row=" not in uri for uri in counts) == len(images)
    assert sum(one.reason is Reason.BAD_METADATA_ROW and "#" in one.uri for one in found) == bad
    assert sum(one.reason is Reason.UNSAFE_NAME for one in found) == sum(
        name.startswith("..") for name in names
    )
    assert all((one.reason is None) == (one.detail == "") for one in found)


@pytest.mark.parametrize("pattern", ["Normal-{}.png", "p{}/image.png", "{}/{}/same/image.png"])
def test_the_time_grows_with_the_number_of_entries_not_its_square(pattern: str) -> None:
    names = [pattern.format(n, n) for n in range(10_000)]
    paths = [f"Normal/{kind}/{name}" for kind in ("images", "masks") for name in names]
    rows = [row(n + 2, name.upper(), f"p{n}") for n, name in enumerate(names)]
    rows += [row(n + 50_000, "image") for n in range(10_000)]
    started = time.process_time()
    found = matched(paths, rows)
    assert time.process_time() - started < 3
    assert len(found) in (10_000, 20_000)
