"""Hostile workbooks: name -> factory, outcome of the reader."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Callable
from typing import Any

HEADER = ("FILE NAME", "FORMAT", "SIZE", "URL", "PATIENT ID")
REST = ("PNG", "256*256", "https://example.org", "p1")
LINK = "http://127.0.0.1:9/x.xlsx"


def book(*rows: Any, change: Callable[[Any], None] | None = None) -> bytes:
    from openpyxl import Workbook

    made = Workbook()
    for row in (HEADER, *rows):
        made.active.append(list(row))
    if change:
        change(made)
    stream = io.BytesIO()
    made.save(stream)
    return stream.getvalue()


Part = bytes | Callable[[bytes], bytes]


def parts_changed(data: bytes, changed: dict[str, Part], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return the workbook with some parts replaced or added."""
    stream = io.BytesIO()
    remaining = dict(changed)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", how) as new:
        for member in old.namelist():
            change = remaining.pop(member, None)
            content = old.read(member)
            new.writestr(member, change(content) if callable(change) else change or content)
        for member, content in remaining.items():
            new.writestr(member, content)  # type: ignore[arg-type]
    return stream.getvalue()


def laughs(content: bytes) -> bytes:
    """A billion laughs in front of a part."""
    entities = b'<!ENTITY a0 "ha">' + b"".join(
        b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)
    )
    start = content.index(b"<worksheet")
    body = content[start:].replace(b"PNG", b"&a9;", 1)
    return b"<!DOCTYPE worksheet [" + entities + b"]>" + body


def outside(content: bytes) -> bytes:
    """Return a workbook with an entity that includes a local file."""
    start = content.index(b"<worksheet")
    body = content[start:].replace(b"PNG", b"&x;", 1)
    return b'<!DOCTYPE w [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + body


SHEET = (
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s'
    b"</sheetData></worksheet>"
)


def workbook_of_rows(rows: bytes) -> bytes:
    return _sheet(lambda _: SHEET % rows)


def _sheet(change: Callable[[bytes], bytes]) -> bytes:
    return parts_changed(book(("a", *REST)), {"xl/worksheets/sheet1.xml": change})


def text_row(number: int, *cells: str) -> bytes:
    written = "".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in cells)
    return f'<row r="{number}">{written}</row>'.encode()


def empty_rows() -> bytes:
    rows = b"".join(b'<row r="%d"/>' % n for n in range(2, 1_000_001))
    return workbook_of_rows(text_row(1, *HEADER) + rows + text_row(1_000_001, "late", *REST))


def merged(made: Any) -> None:
    made.active.merge_cells("A2:A3")


def macros() -> bytes:
    return parts_changed(book(("a", *REST)), {"xl/vbaProject.bin": b"\xd0\xcf\x11\xe0" + bytes(99)})


def plain_sheet() -> bytes:
    return SHEET % (text_row(1, *HEADER) + text_row(2, "a", *REST))


def packed_sheet(content: bytes) -> bytes:
    """Return a workbook whose sheet is this XML."""
    return _sheet(lambda _: content)


def with_doctype(change: Callable[[bytes], bytes]) -> bytes:
    return packed_sheet(change(plain_sheet()))


def linked(made: Any) -> None:
    """Put in a cell of another workbook, as Excel does: link part, relationships and reference."""
    from openpyxl.packaging.relationship import Relationship
    from openpyxl.workbook.external_link import ExternalLink
    from openpyxl.workbook.external_link.external import ExternalBook, ExternalSheetNames

    link = ExternalLink(ExternalBook(ExternalSheetNames(["Sheet1"]), id="rId1"))
    link.file_link = Relationship(
        type="externalLinkPath", Target=LINK, TargetMode="External", Id="rId1"
    )
    made._external_links.append(link)
    made.active["F1"], made.active["F2"] = "WARD", "=[1]Sheet1!$A$1"


def wide(made: Any) -> None:
    for column in range(6, 5001):
        made.active.cell(1, column, f"c{column}")


WORKBOOKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a formula as name": (lambda: book(("=1+1", *REST)), "0 rows, 1 bad: FILE NAME is empty"),
    "a formula that starts a program": (
        lambda: book(("a", "=cmd|'/c calc'!A1", *REST[1:])),
        "1 rows, 0 bad",
    ),
    "a link to another workbook": (lambda: book(("a", *REST), change=linked), "1 rows, 0 bad"),
    "macros": (macros, "1 rows, 0 bad"),
    "an encrypted workbook": (lambda: b"\xd0\xcf\x11\xe0" + bytes(999), "error: x.xlsx: wanted"),
    "a million empty rows": (empty_rows, "0 rows, 0 bad"),
    "merged cells": (
        lambda: book(("a", *REST), ("b", *REST), change=merged),
        "1 rows, 1 bad: FILE NAME is empty",
    ),
    "a date as name": (
        lambda: book((datetime.date(2020, 3, 1), *REST)),
        "0 rows, 1 bad: FILE NAME is no text but a datetime",
    ),
    "a name with a NUL": (
        lambda: workbook_of_rows(text_row(1, *HEADER) + text_row(2, "a&#0;b", *REST)),
        "error: x.xlsx: wanted",
    ),
    "a name with a NUL, as Excel writes it": (
        lambda: workbook_of_rows(text_row(1, *HEADER) + text_row(2, "a_x0000_b", *REST)),
        "1 rows, 0 bad",
    ),
    "a billion laughs": (lambda: with_doctype(laughs), "error: x.xlsx: wanted"),
    "an entity that reads a file": (lambda: with_doctype(outside), "error: x.xlsx: wanted"),
    "a part that swells a thousandfold": (
        lambda: parts_changed(book(("a", *REST)), {"xl/comments1.xml": bytes(2**25)}),
        "error: x.xlsx: a part may unpack to 100 times",
    ),
    "a zip that is no workbook": (
        lambda: parts_changed(b"PK\5\6" + bytes(18), {"run.py": b"raise SystemExit"}),
        "error: x.xlsx: wanted",
    ),
    "5,000 columns": (lambda: book(("a", *REST), change=wide), "error: x.xlsx, sheet 1: more than"),
    "text": (lambda: b"FILE NAME,FORMAT\n", "error: x.xlsx: wanted an .xlsx workbook"),
}
