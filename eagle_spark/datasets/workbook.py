"""One metadata workbook: bytes to rows, in bounded memory and without running anything in it."""

from __future__ import annotations

import datetime
import io
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from eagle_spark.datasets.layout import fold
from eagle_spark.errors import WorkbookError

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

FILE_NAME, PATIENT_ID, SOURCE = "FILE NAME", "PATIENT ID", "SOURCE"
WANTED_COLUMNS = (FILE_NAME, "FORMAT", "SIZE", "URL")

MAX_WORKBOOK_BYTES = 64 * 2**20
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_INFLATION = 100  # the limit of Apache POI; sheets of real sets come to 15
MAX_ROWS = 2_000_000
MAX_COLUMNS = 1_000
MAX_EMPTY_RUN = 10_000

_WANTED = f"wanted an .xlsx workbook with the columns {', '.join(WANTED_COLUMNS)}"
_OLD_OR_ENCRYPTED = b"\xd0\xcf\x11\xe0"  # an OLE container: .xls, or .xlsx behind a password
_STRICT, _WORKBOOK = b"http://purl.oclc.org/ooxml/", "xl/workbook.xml"
_HEAD_BYTES = 1 << 16
# The only ones that the format has; zipfile unpacks others without an end.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CONTROL = re.compile("_x00(?:0[9ADad])_")  # the format's spelling of tab and line ends
_ERROR_CELLS = frozenset(
    ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA")
)


@dataclass(frozen=True, slots=True)
class WorkbookRow:
    """One row that names a file.

    Attributes:
        row: Excel's row number, from 1.
        file_name: the FILE NAME cell, NFC, without surrounding blanks; with or without extension.
        patient_id: the PATIENT ID cell, None where empty or where there is no such column.
        source: the SOURCE cell, likewise.
        metadata: the other filled cells as text, keyed by column; wanted columns in capitals.
        sheet: position of the sheet in the workbook, from 1.
    """

    row: int
    file_name: str
    patient_id: str | None
    source: str | None
    metadata: dict[str, str]
    sheet: int = 1


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that cannot be used, and why; `row` and `sheet` as in `WorkbookRow`."""

    row: int
    detail: str
    sheet: int = 1


def read_workbook(data: bytes, name: str) -> tuple[list[WorkbookRow], list[BadRow]]:
    """Read all rows of the sheets that carry the header; `name` stands in messages.

    The header is a sheet's first filled row. The first sheet must have it; a further sheet without
    a FILE NAME column (notes, a legend) is left out. Cells under no header are not read, empty rows
    are skipped, and more than 10,000 empty rows in a run end the sheet.

    Raises:
        WorkbookError: when the bytes are no workbook, exceed 64 MiB, unpack to more than 256 MiB
            or a hundredfold, hold more than two million rows or a thousand columns, or lack a
            wanted column.
    """
    _check_archive(data, name)
    good: list[WorkbookRow] = []
    bad: list[BadRow] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions, which nobody reads here
            for row in _read_rows(data, name):
                if isinstance(row, BadRow):
                    bad.append(row)
                else:
                    good.append(row)
                if len(good) + len(bad) > MAX_ROWS:
                    raise WorkbookError(f"{name}: more than {MAX_ROWS:,} rows")
    except WorkbookError:
        raise
    except Exception as error:  # a damaged workbook makes openpyxl raise nearly anything
        cause = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise WorkbookError(f"{name}: {_WANTED}; got a damaged one: {cause}") from error
    return good, bad


def _check_archive(data: bytes, name: str) -> None:
    if len(data) > MAX_WORKBOOK_BYTES:
        raise WorkbookError(f"{name}: a workbook may have {MAX_WORKBOOK_BYTES:,} bytes; got more")
    if data.startswith(_OLD_OR_ENCRYPTED):
        raise WorkbookError(f"{name}: {_WANTED}; got an old .xls or an encrypted workbook")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist(), name)
            is_strict = _STRICT in _head_of(archive)
    except WorkbookError:
        raise
    except Exception as error:  # zipfile raises more than BadZipFile on hostile directories
        raise WorkbookError(f"{name}: {_WANTED}; got no workbook ({error})") from error
    if is_strict:
        raise WorkbookError(
            f"{name}: {_WANTED}; got Strict Open XML: save it as Excel Workbook (.xlsx)"
        )


def _check_members(members: Sequence[zipfile.ZipInfo], name: str) -> None:
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise WorkbookError(
            f"{name}: a workbook may unpack to {MAX_UNPACKED_BYTES:,} bytes; got {unpacked:,}"
        )
    for member in members:
        if member.file_size > max(2**20, MAX_INFLATION * member.compress_size):
            raise WorkbookError(
                f"{name}: a part may unpack to {MAX_INFLATION} times its size; "
                f"{member.filename} has {member.compress_size:,} bytes for {member.file_size:,}"
            )
        if member.compress_type not in _METHODS:
            raise WorkbookError(
                f"{name}: {_WANTED}; {member.filename} is not compressed by deflate"
            )


def _head_of(archive: zipfile.ZipFile) -> bytes:
    """Return the first bytes of the part that lists the sheets; empty where there is none."""
    if _WORKBOOK not in archive.namelist():
        return b""
    with archive.open(_WORKBOOK) as part:
        return part.read(_HEAD_BYTES)


def _read_rows(data: bytes, name: str) -> Iterator[WorkbookRow | BadRow]:
    from eagle_spark.datasets.xlsx import open_workbook

    workbook = open_workbook(data)
    try:
        if not workbook.worksheets:
            raise WorkbookError(f"{name}: {_WANTED}; got one without a sheet")
        for number, sheet in enumerate(workbook.worksheets, start=1):
            sheet.reset_dimensions()  # what a sheet says about its size may be wrong
            yield from _read_sheet(cast("Worksheet", sheet), number, name)
    finally:
        workbook.close()


def _read_sheet(sheet: Worksheet, number: int, name: str) -> Iterator[WorkbookRow | BadRow]:
    header_row, cells = next(_filled_rows(sheet, None), (0, ()))
    found = [_text(cell) or "" for cell in cells]
    columns = _columns(found)
    if number > 1 and FILE_NAME not in columns.values():
        return
    if missing := [column for column in WANTED_COLUMNS if column not in columns.values()]:
        raise WorkbookError(
            f"{name}, sheet {number}: no column {', '.join(missing)}; wanted "
            f"{', '.join(WANTED_COLUMNS)}; found {', '.join(filter(None, found)) or 'no header'}"
        )
    width = max(columns) + 1
    if width > MAX_COLUMNS:
        raise WorkbookError(f"{name}, sheet {number}: more than {MAX_COLUMNS:,} columns")
    for row, values in _filled_rows(sheet, width):
        if row > header_row:
            named = {column: values[at] for at, column in columns.items() if _text(values[at])}
            if named:
                yield _read_row(row, named, number)


def _filled_rows(sheet: Worksheet, width: int | None) -> Iterator[tuple[int, Sequence[object]]]:
    """Yield (Excel's row number, cells) of rows with anything in them."""
    empty_run = 0
    for row, values in enumerate(sheet.iter_rows(max_col=width, values_only=True), start=1):
        if any(value is not None for value in values):
            empty_run = 0
            yield row, values
        else:
            empty_run += 1
            if empty_run > MAX_EMPTY_RUN:
                return


def _columns(header: Sequence[str]) -> dict[int, str]:
    """Return position to name; a name that stands twice gets a number from its second time on."""
    known = {fold(column): column for column in (*WANTED_COLUMNS, PATIENT_ID, SOURCE)}
    columns: dict[int, str] = {}
    used: set[str] = set()
    for at, text in enumerate(header):
        if text:
            base = name = known.get(fold(text), text)
            count = 1
            while name in used:
                count += 1
                name = f"{base} ({count})"
            used.add(name)
            columns[at] = name
    return columns


def _read_row(row: int, named: dict[str, object], sheet: int) -> WorkbookRow | BadRow:
    file_name, patient_id = named.pop(FILE_NAME, None), named.pop(PATIENT_ID, None)
    source = named.pop(SOURCE, None)
    if file_name is None:
        return BadRow(row, f"{FILE_NAME} is empty", sheet)
    if isinstance(file_name, (bool, datetime.date, datetime.time, datetime.timedelta)):
        kind = type(file_name).__name__
        return BadRow(row, f"{FILE_NAME} is no text but a {kind}: {_text(file_name)}", sheet)
    for column, cell in ((FILE_NAME, file_name), (PATIENT_ID, patient_id), (SOURCE, source)):
        if cell in _ERROR_CELLS:
            return BadRow(row, f"{column} is an error cell: {cell}", sheet)
    metadata = {column: text for column, cell in named.items() if (text := _text(cell))}
    name = _text(file_name)
    assert name is not None  # `named` holds filled cells only
    return WorkbookRow(row, name, _text(patient_id), _text(source), metadata, sheet)


def _text(value: object) -> str | None:
    """Return a cell as trimmed, visible NFC text, None where nothing is left; 12.0 becomes `12`."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    elif isinstance(value, (datetime.date, datetime.time)):
        value = value.isoformat()
    return _visible(str(value)) or None


@lru_cache(maxsize=4096)  # a shared string may stand in every cell
def _visible(text: str) -> str:
    """Return `text` composed, without blanks around it and without what is invisible."""
    if "_x00" in text:
        text = _CONTROL.sub(" ", text)
    if text.isascii():
        return text.strip()
    seen = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFC", seen.strip())
