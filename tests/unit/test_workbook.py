from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Callable, Sequence

import pytest
from openpyxl import Workbook

from eagle_spark.datasets import workbook
from eagle_spark.datasets.workbook import BadRow, WorkbookRow, read_workbook
from eagle_spark.errors import WorkbookError
from tests.hostile.hostile_workbooks import parts_changed

HEADER = ("FILE NAME", "FORMAT", "SIZE", "URL")
REST = ("PNG", "256*256", "https://example.org")
METADATA = {"FORMAT": "PNG", "SIZE": "256*256", "URL": "https://example.org"}


def packed(*sheets: Sequence[Sequence[object]]) -> bytes:
    book = Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(list(row))
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def rewritten(data: bytes, part: str, change: Callable[[bytes], bytes], how: int = 0) -> bytes:
    return parts_changed(data, {part: change}, how)


def only_row(*cells: object, header: Sequence[object] = HEADER) -> WorkbookRow:
    good, bad = read_workbook(packed([header, cells]), "x.xlsx")
    assert bad == []
    (row,) = good
    return row


def only_bad(*cells: object, header: Sequence[object] = HEADER) -> BadRow:
    good, bad = read_workbook(packed([header, cells]), "x.xlsx")
    assert good == []
    (row,) = bad
    return row


def test_rows_carry_excels_number_and_their_columns() -> None:
    header = (*HEADER, "PATIENT ID", "SOURCE", "Age")
    row = only_row("NORMAL-1", *REST, "p7", "kermany", 63, header=header)
    assert row == WorkbookRow(2, "NORMAL-1", "p7", "kermany", METADATA | {"Age": "63"})


def test_header_is_matched_without_regard_to_case_blanks_and_order() -> None:
    header = (" url", "File Name ", "format", "Size", "patient id")
    row = only_row("u", "a", "PNG", "1*1", "p", header=header)
    assert row == WorkbookRow(2, "a", "p", None, {"URL": "u", "FORMAT": "PNG", "SIZE": "1*1"})


def test_header_need_not_be_the_first_row_of_the_sheet() -> None:
    good, _ = read_workbook(packed([[], [], HEADER, ("a", *REST)]), "x.xlsx")
    assert [row.row for row in good] == [4]


def test_a_duplicate_column_is_kept_twice() -> None:
    row = only_row("a", *REST, "one", "two", header=(*HEADER, "Note", "Note"))
    assert row.metadata == METADATA | {"Note": "one", "Note (2)": "two"}


def test_cells_without_a_header_are_left_out() -> None:
    assert only_row("a", *REST, "stray", "n", header=(*HEADER, None, "Note")).metadata == {
        **METADATA,
        "Note": "n",
    }


@pytest.mark.parametrize(
    ("cell", "text"), [(12, "12"), (12.0, "12"), (1.5, "1.5"), (" p1 ", "p1"), (None, None)]
)
def test_patient_id_becomes_text(cell: object, text: str | None) -> None:
    assert only_row("a", *REST, cell, header=(*HEADER, "PATIENT ID")).patient_id == text


def test_numbers_as_names_become_text() -> None:
    assert only_row(64, *REST).file_name == "64"


def test_names_lose_trailing_blanks_and_are_composed() -> None:
    assert only_row("te\u0301rax-1 \u00a0", *REST).file_name == "t\u00e9rax-1"


def test_dates_as_metadata_become_iso_text() -> None:
    row = only_row("a", *REST, datetime.date(2020, 3, 1), header=(*HEADER, "DATE"))
    assert row.metadata["DATE"].startswith("2020-03-01")


@pytest.mark.parametrize(
    ("cell", "detail"),
    [
        (None, "FILE NAME is empty"),
        ("  ", "FILE NAME is empty"),
        (datetime.datetime(2020, 3, 1), "datetime: 2020-03-01"),
        (datetime.time(12, 30), "time: 12:30"),
        (True, "bool: True"),
        ("#N/A", "error cell: #N/A"),
        ("=A1", "FILE NAME is empty"),  # a formula without a cached value
    ],
)
def test_a_row_without_a_text_for_name_is_bad(cell: object, detail: str) -> None:
    bad = only_bad(cell, *REST)
    assert bad.row == 2
    assert detail in bad.detail


def test_an_error_cell_as_patient_is_bad() -> None:
    bad = only_bad("a", *REST, "#REF!", header=(*HEADER, "PATIENT ID"))
    assert "PATIENT ID is an error cell" in bad.detail


def test_a_date_out_of_range_is_an_error_cell_and_no_warning() -> None:
    data = packed([HEADER, (datetime.datetime(2020, 3, 1), *REST)])
    part = "xl/worksheets/sheet1.xml"
    huge = rewritten(data, part, lambda xml: xml.replace(b"<v>43891</v>", b"<v>99999999999</v>"))
    assert huge != rewritten(data, part, lambda xml: xml)
    good, (bad,) = read_workbook(huge, "x.xlsx")
    assert good == []
    assert "#VALUE!" in bad.detail


def test_empty_rows_are_skipped_and_counted_by_excel() -> None:
    good, bad = read_workbook(packed([HEADER, [], ("  ",), ("a", *REST)]), "x.xlsx")
    assert ([row.row for row in good], bad) == ([4], [])


def test_a_long_run_of_empty_rows_ends_the_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MAX_EMPTY_RUN", 3)
    near = packed([HEADER, ("a", *REST), [], [], [], ("b", *REST)])
    far = packed([HEADER, ("a", *REST), [], [], [], [], ("b", *REST)])
    assert [row.file_name for row in read_workbook(near, "x")[0]] == ["a", "b"]
    assert [row.file_name for row in read_workbook(far, "x")[0]] == ["a"]


def test_a_row_number_of_billions_is_fast() -> None:
    data = packed([HEADER, ("a", *REST), ("b", *REST)])
    part = "xl/worksheets/sheet1.xml"
    far = rewritten(data, part, lambda xml: xml.replace(b'<row r="3"', b'<row r="9999999999"'))
    assert [row.file_name for row in read_workbook(far, "x")[0]] == ["a"]


def test_a_wrong_dimension_hides_no_row() -> None:
    data = packed([HEADER, ("a", *REST), ("b", *REST)])
    part = "xl/worksheets/sheet1.xml"
    short = rewritten(data, part, lambda xml: xml.replace(b'ref="A1:D3"', b'ref="A1:B2"'))
    assert short != rewritten(data, part, lambda xml: xml)
    assert [row.file_name for row in read_workbook(short, "x")[0]] == ["a", "b"]


def test_two_sheets_with_header_are_both_read() -> None:
    good, bad = read_workbook(packed([HEADER, ("a", *REST)], [HEADER, ("b", *REST), (1.5,)]), "x")
    assert [(row.sheet, row.row, row.file_name) for row in good] == [
        (1, 2, "a"),
        (2, 2, "b"),
        (2, 3, "1.5"),
    ]
    assert bad == []


def test_a_second_sheet_with_notes_is_left_out() -> None:
    good, bad = read_workbook(packed([HEADER, ("a", *REST)], [("Notes",), ("text",)], []), "x")
    assert (len(good), bad) == (1, [])


def test_a_second_sheet_without_a_required_column_is_an_error() -> None:
    with pytest.raises(WorkbookError, match="sheet 2: no column URL"):
        read_workbook(packed([HEADER, ("a", *REST)], [HEADER[:3], ("b", "PNG", "1")]), "x")


def test_a_missing_column_is_named_with_file_and_header() -> None:
    with pytest.raises(WorkbookError) as error:
        read_workbook(packed([("FILE NAME", "SIZE", "Age"), ("a", "1", 3)]), "Normal.metadata.xlsx")
    message = str(error.value)
    assert message.startswith("Normal.metadata.xlsx, sheet 1: no column FORMAT, URL;")
    assert "wanted FILE NAME, FORMAT, SIZE, URL" in message
    assert "got FILE NAME, SIZE, Age" in message


@pytest.mark.parametrize("sheets", [[[]], [[("Notes",)], [HEADER]]])
def test_the_first_sheet_must_have_the_header(sheets: list[Sequence[Sequence[object]]]) -> None:
    with pytest.raises(WorkbookError, match="sheet 1: no column FILE NAME"):
        read_workbook(packed(*sheets), "x.xlsx")


def truncated() -> bytes:
    return packed([HEADER, ("a", *REST)])[:-200]


def zip_of_something_else() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "hello")
    return stream.getvalue()


def broken_sheet() -> bytes:
    data = packed([HEADER, ("a", *REST)])
    return rewritten(data, "xl/worksheets/sheet1.xml", lambda xml: xml[:-80])


def encrypted() -> bytes:
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000)


def entity_bomb() -> bytes:
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{lines}]><x>&e11;</x>'
    data = packed([HEADER])
    return rewritten(data, "xl/worksheets/sheet1.xml", lambda _: bomb.encode())


@pytest.mark.parametrize(
    "make",
    [bytes, truncated, zip_of_something_else, broken_sheet, encrypted, entity_bomb],
    ids=lambda make: str(make.__name__),
)
def test_an_invalid_workbook_is_one_line(make: Callable[[], bytes]) -> None:
    with pytest.raises(WorkbookError) as error:
        read_workbook(make(), "COVID.metadata.xlsx")
    message = str(error.value)
    assert message.startswith("COVID.metadata.xlsx: wanted an .xlsx workbook with the columns FILE")
    assert "\n" not in message


def test_a_zip_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MAX_UNPACKED_BYTES", 2**20)
    data = packed([HEADER])
    part = "xl/worksheets/sheet1.xml"
    bomb = rewritten(data, part, lambda xml: xml + bytes(2**20))
    with pytest.raises(WorkbookError, match="may unpack to 1,048,576 bytes"):
        read_workbook(bomb, "x.xlsx")


def test_a_part_that_inflates_a_hundredfold_is_refused() -> None:
    part = "xl/styles.xml"
    bomb = rewritten(packed([HEADER]), part, lambda xml: xml + b" " * 2**21, zipfile.ZIP_DEFLATED)
    with pytest.raises(WorkbookError, match=r"100 times its size; xl/styles.xml has"):
        read_workbook(bomb, "x.xlsx")


def test_too_large_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed([HEADER])
    monkeypatch.setattr(workbook, "MAX_WORKBOOK_BYTES", len(data) - 1)
    with pytest.raises(WorkbookError, match="got more"):
        read_workbook(data, "x.xlsx")


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MAX_ROWS", 2)
    assert len(read_workbook(packed([HEADER, *[("a", *REST)] * 2]), "x")[0]) == 2
    with pytest.raises(WorkbookError, match="more than 2 rows"):
        read_workbook(packed([HEADER, *[("a", *REST)] * 3]), "x")


def test_too_many_columns_are_refused() -> None:
    with pytest.raises(WorkbookError, match="more than 1,000 columns"):
        read_workbook(packed([[*HEADER, *range(1000)]]), "x")


def test_any_damage_gives_rows_or_a_workbook_error() -> None:
    data = packed([HEADER, *[(f"a{n}", *REST) for n in range(20)]])
    for at in range(0, len(data), 61):
        damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        try:
            good, bad = read_workbook(damaged, "x.xlsx")
        except WorkbookError:
            continue
        assert len(good) + len(bad) <= 20


@pytest.mark.parametrize(
    "title",
    ["\ufeffFILE NAME", "FILE NAME\u200b", "FILE\nNAME", "FILE\u00a0NAME", "FILE NAME_x000D_"],
    ids=ascii,
)
def test_a_header_is_compared_by_its_visible_characters(title: str) -> None:
    assert only_row("a", *REST, header=(title, *HEADER[1:])).file_name == "a"


@pytest.mark.parametrize(
    "cell",
    ["\ufeffA-1", "A-1\u200b", "A-1\u200e", "A-1_x000D_", "A-1_x000D_\n", "\u00a0A-1 "],
    ids=ascii,
)
def test_a_name_is_compared_by_its_visible_characters(cell: str) -> None:
    assert only_row(cell, *REST).file_name == "A-1"


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("xl/styles.xml", b'<fills count="2">', b'<fills count="3"><fill/>'),
        ("xl/styles.xml", b"<fonts", b'<fonts count="x"><font><b val="?"/></font></fonts><fonts'),
        (
            "docProps/core.xml",
            b"<dcterms:created",
            b"<dcterms:created>01/03/2020</dcterms:created><x",
        ),
        ("xl/theme/theme1.xml", b"<a:theme", b"<broken"),
    ],
    ids=["fill", "font", "properties", "theme"],
)
def test_styles_and_properties_are_not_read(part: str, old: bytes, new: bytes) -> None:
    data = packed([HEADER, ("A-1", *REST)])
    changed = rewritten(data, part, lambda text: text.replace(old, new, 1))
    assert changed != data
    good, bad = read_workbook(changed, "x.xlsx")
    assert ([row.file_name for row in good], bad) == (["A-1"], [])


def test_dates_are_detected_from_number_formats() -> None:
    data = packed([HEADER, (datetime.datetime(2020, 3, 1), *REST)])
    changed = rewritten(
        data, "xl/styles.xml", lambda text: text.replace(b"</fills>", b"<fill/></fills>", 1)
    )
    _, (bad,) = read_workbook(changed, "x.xlsx")
    assert "is no text but a datetime" in bad.detail


def test_a_chart_sheet_in_front_is_left_out() -> None:
    book = Workbook()
    book.active.append(list(HEADER))
    book.active.append(["A-1", *REST])
    book.create_chartsheet("chart", 0)
    stream = io.BytesIO()
    book.save(stream)
    (row,), _ = read_workbook(stream.getvalue(), "x.xlsx")
    assert row.file_name == "A-1"


def test_strict_open_xml_is_named() -> None:
    main = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    data = rewritten(
        packed([HEADER]),
        "xl/workbook.xml",
        lambda text: text.replace(main, b"http://purl.oclc.org/ooxml/spreadsheetml/main"),
    )
    with pytest.raises(WorkbookError, match=r"x\.xlsx.*got Strict Open XML: save it as"):
        read_workbook(data, "x.xlsx")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_with_an_implausible_compression_is_refused_unread(method: int) -> None:
    data = rewritten(packed([HEADER]), "xl/workbook.xml", lambda text: text, method)
    with pytest.raises(WorkbookError, match="not compressed by deflate"):
        read_workbook(data, "x.xlsx")
