from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagle_spark.datasets.layout import parse_layout
from eagle_spark.datasets.matching import Candidate, match, normalise_stem
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
    layout = parse_layout(ROOT, [*entries, FileEntry(workbook, 1, 0)])
    return match(layout, {workbook: (list(rows), list(bad))})


def reasons(candidates: Iterable[Candidate]) -> dict[str, Reason | None]:
    return {candidate.uri.removeprefix(f"{ROOT}/"): candidate.reason for candidate in candidates}


def test_row_and_file_match_without_regard_to_case_and_extension() -> None:
    (candidate,) = matched(
        ["Normal/images/Normal-64.png", "Normal/masks/normal-64.PNG"],
        [row(2, "NORMAL-64", "p1", FORMAT="PNG")],
    )
    assert candidate == Candidate(
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
    (candidate,) = matched([f"Normal/images/{file}"], [row(2, cell)])
    assert (candidate.reason, candidate.has_metadata) == (None, True)


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
    assert normalise_stem(".png") == ".png"


def test_image_without_row_is_accepted_without_metadata() -> None:
    (candidate,) = matched(["Normal/images/a.png"])
    assert (candidate.reason, candidate.has_metadata, candidate.metadata, candidate.patient_id) == (
        None,
        False,
        {},
        None,
    )


def test_a_row_without_a_file_is_a_rejected_entry() -> None:
    candidates = matched(["Normal/images/a.png"], [row(2, "a"), row(7, "gone", "p9")])
    assert reasons(candidates) == {
        "Normal/images/a.png": None,
        "Normal.metadata.xlsx#row=7": Reason.METADATA_WITHOUT_FILE,
    }
    orphan = next(candidate for candidate in candidates if candidate.reason)
    assert (orphan.label, orphan.patient_id, orphan.mask_uri) == ("Normal", "p9", None)
    assert "'gone'" in orphan.detail


def test_two_files_for_one_row_are_both_rejected_and_the_row_does_not_count() -> None:
    candidates = matched(["Normal/images/a.png", "Normal/images/A.jpg"], [row(2, "a.png")])
    assert reasons(candidates) == {
        "Normal/images/a.png": Reason.AMBIGUOUS_FILE,
        "Normal/images/A.jpg": Reason.AMBIGUOUS_FILE,
    }
    assert candidates[0].detail == "Normal.metadata.xlsx#row=2 fits A.jpg, a.png"


def test_two_files_of_one_stem_without_a_row_are_two_images_that_may_share_a_mask() -> None:
    candidates = matched(["Normal/images/a.png", "Normal/images/A.jpg", "Normal/masks/a.png"])
    assert [candidate.reason for candidate in candidates] == [None, None]
    assert {candidate.mask_uri for candidate in candidates} == {f"{ROOT}/Normal/masks/a.png"}


def test_two_equal_rows_for_one_file_are_accepted() -> None:
    (candidate,) = matched(
        ["Normal/images/a.png"], [row(2, "a", "p1", URL="u"), row(9, "A.png", "p1", URL="u")]
    )
    assert (candidate.reason, candidate.patient_id) == (None, "p1")


def test_two_rows_for_one_file_that_disagree_reject_the_file_and_are_both_named() -> None:
    (candidate,) = matched(["Normal/images/a.png"], [row(2, "a", "p1"), row(9, "A", "p2")])
    assert candidate.reason is Reason.BAD_METADATA_ROW
    assert "Normal.metadata.xlsx#row=2" in candidate.detail
    assert "Normal.metadata.xlsx#row=9" in candidate.detail
    assert candidate.patient_id is None


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
def test_a_name_that_leaves_the_folder_is_unsafe(name: str) -> None:
    candidates = matched(["Normal/images/a.png", "Normal/images/passwd"], [row(3, name)])
    assert reasons(candidates) == {
        "Normal/images/a.png": None,
        "Normal/images/passwd": None,
        "Normal.metadata.xlsx#row=3": Reason.UNSAFE_NAME,
    }
    assert not any(candidate.has_metadata for candidate in candidates if candidate.reason is None)


@pytest.mark.parametrize("name", ["..a", "a..b", "a...", "~a", "a:b"])
def test_names_with_unusual_characters_are_safe(name: str) -> None:
    (candidate,) = matched([f"Normal/images/{name}.png"], [row(3, name)])
    assert (candidate.reason, candidate.has_metadata) == (None, True)


def test_bad_rows_are_rejected_entries() -> None:
    candidates = matched(["Normal/images/a.png"], bad=[BadRow(4, "FILE NAME is empty")])
    assert reasons(candidates) == {
        "Normal/images/a.png": None,
        "Normal.metadata.xlsx#row=4": Reason.BAD_METADATA_ROW,
    }


def test_rows_of_equal_number_on_two_sheets_are_two_entries() -> None:
    candidates = matched(
        ["Normal/images/a.png"],
        [row(2, "x"), WorkbookRow(2, "y", None, None, {}, sheet=2)],
        [BadRow(2, "bad", sheet=3)],
    )
    assert {candidate.uri for candidate in candidates if candidate.reason} == {
        f"{WORKBOOK}#row=2",
        f"{WORKBOOK}#sheet=2&row=2",
        f"{WORKBOOK}#sheet=3&row=2",
    }


def test_workbooks_match_classes_without_regard_to_case() -> None:
    (candidate,) = matched(
        ["Viral Pneumonia/images/a.png"],
        [row(2, "a", "p1")],
        workbook=f"{ROOT}/viral pneumonia.Metadata.xlsx",
    )
    assert (candidate.label, candidate.patient_id) == ("Viral Pneumonia", "p1")


def test_a_workbook_without_a_class_folder_gives_rejected_entries_only() -> None:
    candidates = matched(
        ["Normal/images/a.png"], [row(2, "a")], workbook=f"{ROOT}/Lung_Opacity.metadata.xlsx"
    )
    assert reasons(candidates) == {
        "Normal/images/a.png": None,
        "Lung_Opacity.metadata.xlsx#row=2": Reason.METADATA_WITHOUT_FILE,
    }
    assert {candidate.label for candidate in candidates} == {"Normal", "Lung_Opacity"}


def test_rows_match_files_of_their_own_class_only() -> None:
    candidates = matched(["Normal/images/a.png", "COVID/images/b.png"], [row(2, "b")])
    assert reasons(candidates)["Normal.metadata.xlsx#row=2"] is Reason.METADATA_WITHOUT_FILE


def test_a_mask_that_is_missing_rejects_the_image_and_keeps_its_patient() -> None:
    candidates = matched(
        ["Normal/images/a.png", "Normal/images/b.png", "Normal/masks/a.png"], [row(2, "b", "p1")]
    )
    assert reasons(candidates) == {
        "Normal/images/a.png": None,
        "Normal/images/b.png": Reason.MASK_MISSING,
    }
    assert next(candidate.patient_id for candidate in candidates if candidate.reason) == "p1"


def test_a_class_without_masks_is_accepted() -> None:
    candidates = matched(["Normal/images/a.png", "COVID/images/b.png", "COVID/masks/b.png"])
    assert {candidate.label: candidate.mask_uri for candidate in candidates} == {
        "Normal": None,
        "COVID": f"{ROOT}/COVID/masks/b.png",
    }


def test_masks_without_an_image_are_ignored() -> None:
    assert len(matched(["Normal/images/a.png", "Normal/masks/a.png", "Normal/masks/b.png"])) == 1


def test_two_masks_that_fit_reject_the_image() -> None:
    (candidate,) = matched(["Normal/images/a.png", "Normal/masks/a.png", "Normal/masks/a.bmp"])
    assert (candidate.reason, candidate.mask_uri) == (Reason.AMBIGUOUS_FILE, None)


def test_equal_names_in_several_folders_keep_their_masks_and_rows() -> None:
    paths = [f"Normal/{kind}/p{n}/image.png" for kind in ("images", "masks") for n in range(3)] + [
        "Normal/images/image.png",
        "Normal/masks/image.png",
    ]
    candidates = matched(paths, [row(n + 2, f"p{n}/IMAGE.png", f"p{n}") for n in range(3)])
    assert [candidate.reason for candidate in candidates] == [None] * 4
    for candidate in candidates:
        assert candidate.mask_uri == candidate.uri.replace("/images/", "/masks/")
    assert [candidate.patient_id for candidate in candidates] == [None, "p0", "p1", "p2"]


def test_class_without_images_folder_is_matched_too() -> None:
    (candidate,) = matched(["Normal/a.png", "Normal/masks/a.png"], [row(2, "A", "p1")])
    assert (candidate.patient_id, candidate.mask_uri) == ("p1", f"{ROOT}/Normal/masks/a.png")


@pytest.mark.parametrize("path", ["Normal/images/a\udcff.png", "Normal/images/\udcff/a.png"])
def test_a_name_that_is_not_utf8_is_a_rejected_entry_that_can_be_stored(path: str) -> None:
    (candidate,) = matched([path])
    assert candidate.reason is Reason.UNSAFE_NAME
    assert "\\udcff" in candidate.uri
    candidate.uri.encode()


stems = st.sampled_from(["a", "A", "b", "c.v2", "p/a", "p/b", "../a", "\u00e9", "e\u0301"])
files = st.builds(lambda name, end: f"{name}{end}", stems, st.sampled_from([".png", ".jpg", ""]))


@given(
    st.sets(files.filter(lambda name: ".." not in name), min_size=1),
    st.sets(files.filter(lambda name: ".." not in name)),
    st.lists(files),
    st.integers(0, 3),
)
def test_every_image_is_one_entry_and_every_other_row_one_at_most(
    images: set[str], masks: set[str], names: list[str], bad: int
) -> None:
    rows = [row(number, name) for number, name in enumerate(names, start=2)]
    bad_rows = [BadRow(1000 + number, "bad") for number in range(bad)]
    candidates = matched(
        [
            *(f"Normal/images/{name}" for name in images),
            *(f"Normal/masks/{name}" for name in masks),
        ],
        rows,
        bad_rows,
    )
    counts = Counter(candidate.uri for candidate in candidates)
    assert max(counts.values()) == 1
    assert sum("#row=" not in uri for uri in counts) == len(images)
    assert (
        sum(
            candidate.reason is Reason.BAD_METADATA_ROW and "#" in candidate.uri
            for candidate in candidates
        )
        == bad
    )
    assert sum(candidate.reason is Reason.UNSAFE_NAME for candidate in candidates) == sum(
        name.startswith("..") for name in names
    )
    assert all((candidate.reason is None) == (candidate.detail == "") for candidate in candidates)


@pytest.mark.parametrize("pattern", ["Normal-{}.png", "p{}/image.png", "{}/{}/same/image.png"])
def test_the_time_grows_with_the_number_of_entries_not_its_square(pattern: str) -> None:
    names = [pattern.format(n, n) for n in range(10_000)]
    paths = [f"Normal/{kind}/{name}" for kind in ("images", "masks") for name in names]
    rows = [row(n + 2, name.upper(), f"p{n}") for n, name in enumerate(names)]
    rows += [row(n + 50_000, "image") for n in range(10_000)]
    started = time.process_time()
    candidates = matched(paths, rows)
    assert time.process_time() - started < 3
    assert len(candidates) in (10_000, 20_000)
