"""Parse a metadata workbook into rows, in bounded memory and without executing its content."""

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

from eagle_spark.datasets.layout import normalise_name
from eagle_spark.errors import WorkbookError

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

FILE_NAME, PATIENT_ID, SOURCE = "FILE NAME", "PATIENT ID", "SOURCE"
REQUIRED_COLUMNS = (FILE_NAME, "FORMAT", "SIZE", "URL")

MAX_WORKBOOK_BYTES = 64 * 2**20
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_COMPRESSION_RATIO = 100  # the limit of Apache POI; sheets of real data sets reach 15
MAX_ROWS = 2_000_000
MAX_COLUMNS = 1_000
MAX_EMPTY_RUN = 10_000

_EXPECTED_FORMAT = f"wanted an .xlsx workbook with the columns {', '.join(REQUIRED_COLUMNS)}"
_OLE_MAGIC = b"\xd0\xcf\x11\xe0"  # an OLE container: .xls, or .xlsx behind a password
_STRICT_NAMESPACE, _WORKBOOK_PART = b"http://purl.oclc.org/ooxml/", "xl/workbook.xml"
_HEAD_BYTES = 1 << 16
# The only methods of the format; zipfile unpacks the others without a size limit.
_COMPRESSION_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ESCAPED_CONTROL = re.compile("_x00(?:0[9ADad])_")  # how the format escapes tabs and line ends
_ERROR_CELLS = frozenset(
    ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA")
)


@dataclass(frozen=True, slots=True)
class WorkbookRow:
    """A row with a file name.

    Attributes:
        row: row number in Excel, from 1.
        file_name: FILE NAME cell, NFC, stripped; with or without extension.
        patient_id: PATIENT ID cell; None if the cell is empty or the column is missing.
        source: SOURCE cell; None if the cell is empty or the column is missing.
        metadata: column -> text of the other filled cells; required columns in capitals.
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
    """An unusable row and its error; `row` and `sheet` as in `WorkbookRow`."""

    row: int
    detail: str
    sheet: int = 1


def read_workbook(data: bytes, name: str) -> tuple[list[WorkbookRow], list[BadRow]]:
    """Read the rows of all sheets with a header.

    The header is the first filled row of a sheet. The first sheet must have it; further sheets
    without a FILE NAME column (notes, a legend) are skipped. Cells without a header are not read,
    empty rows are skipped, and more than 10,000 consecutive empty rows end the sheet.

    Args:
        data: bytes of the workbook.
        name: name of the workbook in error messages.

    Raises:
        WorkbookError: when the bytes are no workbook, exceed 64 MiB, unpack to more than 256 MiB
            or a hundredfold, hold more than two million rows or a thousand columns, or miss a
            required column.
    """
    _check_archive(data, name)
    good: list[WorkbookRow] = []
    bad: list[BadRow] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions, which are not read here
            for row in _read_rows(data, name):
                if isinstance(row, BadRow):
                    bad.append(row)
                else:
                    good.append(row)
                if len(good) + len(bad) > MAX_ROWS:
                    raise WorkbookError(f"{name}: more than {MAX_ROWS:,} rows")
    except WorkbookError:
        raise
    except Exception as error:  # openpyxl raises nearly any type on a damaged workbook
        cause = " ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise WorkbookError(f"{name}: {_EXPECTED_FORMAT}; got a damaged one: {cause}") from error
    return good, bad


def _check_archive(data: bytes, name: str) -> None:
    if len(data) > MAX_WORKBOOK_BYTES:
        raise WorkbookError(f"{name}: wanted at most {MAX_WORKBOOK_BYTES:,} bytes; got more")
    if data.startswith(_OLE_MAGIC):
        raise WorkbookError(f"{name}: {_EXPECTED_FORMAT}; got an old .xls or an encrypted workbook")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist(), name)
            is_strict = _STRICT_NAMESPACE in _read_workbook_part(archive)
    except WorkbookError:
        raise
    except Exception as error:  # zipfile raises more than BadZipFile on hostile directories
        raise WorkbookError(f"{name}: {_EXPECTED_FORMAT}; got no workbook ({error})") from error
    if is_strict:
        raise WorkbookError(
            f"{name}: {_EXPECTED_FORMAT}; got Strict Open XML: save it as Excel Workbook (.xlsx)"
        )


def _check_members(members: Sequence[zipfile.ZipInfo], name: str) -> None:
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise WorkbookError(
            f"{name}: a workbook may unpack to {MAX_UNPACKED_BYTES:,} bytes; got {unpacked:,}"
        )
    for member in members:
        if member.file_size > max(2**20, MAX_COMPRESSION_RATIO * member.compress_size):
            raise WorkbookError(
                f"{name}: a part may unpack to {MAX_COMPRESSION_RATIO} times its size; "
                f"{member.filename} has {member.compress_size:,} bytes for {member.file_size:,}"
            )
        if member.compress_type not in _COMPRESSION_METHODS:
            raise WorkbookError(
                f"{name}: {_EXPECTED_FORMAT}; {member.filename} is not compressed by deflate"
            )


def _read_workbook_part(archive: zipfile.ZipFile) -> bytes:
    """Return the first bytes of the part that lists the sheets; empty if the part is missing."""
    if _WORKBOOK_PART not in archive.namelist():
        return b""
    with archive.open(_WORKBOOK_PART) as part:
        return part.read(_HEAD_BYTES)


def _read_rows(data: bytes, name: str) -> Iterator[WorkbookRow | BadRow]:
    from eagle_spark.datasets.xlsx import open_workbook

    workbook = open_workbook(data)
    try:
        if not workbook.worksheets:
            raise WorkbookError(f"{name}: {_EXPECTED_FORMAT}; got one without a sheet")
        for number, sheet in enumerate(workbook.worksheets, start=1):
            sheet.reset_dimensions()  # the dimensions that a sheet declares may be wrong
            yield from _read_sheet(cast("Worksheet", sheet), number, name)
    finally:
        workbook.close()


def _read_sheet(sheet: Worksheet, number: int, name: str) -> Iterator[WorkbookRow | BadRow]:
    header_row, cells = next(_iterate_filled_rows(sheet, None), (0, ()))
    header = [_to_text(cell) or "" for cell in cells]
    columns = _name_columns(header)
    if number > 1 and FILE_NAME not in columns.values():
        return
    if missing := [column for column in REQUIRED_COLUMNS if column not in columns.values()]:
        raise WorkbookError(
            f"{name}, sheet {number}: no column {', '.join(missing)}; wanted "
            f"{', '.join(REQUIRED_COLUMNS)}; got {', '.join(filter(None, header)) or 'no header'}"
        )
    width = max(columns) + 1
    if width > MAX_COLUMNS:
        raise WorkbookError(f"{name}, sheet {number}: more than {MAX_COLUMNS:,} columns")
    for row, values in _iterate_filled_rows(sheet, width):
        if row > header_row:
            named_cells = {
                column: values[position]
                for position, column in columns.items()
                if _to_text(values[position])
            }
            if named_cells:
                yield _parse_row(row, named_cells, number)


def _iterate_filled_rows(
    sheet: Worksheet, width: int | None
) -> Iterator[tuple[int, Sequence[object]]]:
    """Yield (row number in Excel, cells) of each row that is not empty."""
    empty_run = 0
    for row, values in enumerate(sheet.iter_rows(max_col=width, values_only=True), start=1):
        if any(value is not None for value in values):
            empty_run = 0
            yield row, values
        else:
            empty_run += 1
            if empty_run > MAX_EMPTY_RUN:
                return


def _name_columns(header: Sequence[str]) -> dict[int, str]:
    """Return position -> column name; repeated names get a number, from 2."""
    standard_names = {
        normalise_name(column): column for column in (*REQUIRED_COLUMNS, PATIENT_ID, SOURCE)
    }
    columns: dict[int, str] = {}
    used: set[str] = set()
    for position, text in enumerate(header):
        if text:
            base = name = standard_names.get(normalise_name(text), text)
            count = 1
            while name in used:
                count += 1
                name = f"{base} ({count})"
            used.add(name)
            columns[position] = name
    return columns


def _parse_row(row: int, cells: dict[str, object], sheet: int) -> WorkbookRow | BadRow:
    file_name, patient_id = cells.pop(FILE_NAME, None), cells.pop(PATIENT_ID, None)
    source = cells.pop(SOURCE, None)
    if file_name is None:
        return BadRow(row, f"{FILE_NAME} is empty", sheet)
    if isinstance(file_name, (bool, datetime.date, datetime.time, datetime.timedelta)):
        kind = type(file_name).__name__
        return BadRow(row, f"{FILE_NAME} is no text but a {kind}: {_to_text(file_name)}", sheet)
    for column, cell in ((FILE_NAME, file_name), (PATIENT_ID, patient_id), (SOURCE, source)):
        if cell in _ERROR_CELLS:
            return BadRow(row, f"{column} is an error cell: {cell}", sheet)
    metadata = {column: text for column, cell in cells.items() if (text := _to_text(cell))}
    name = _to_text(file_name)
    assert name is not None  # `cells` has only filled cells
    return WorkbookRow(row, name, _to_text(patient_id), _to_text(source), metadata, sheet)


def _to_text(value: object) -> str | None:
    """Return a cell as stripped, visible NFC text, None if that is empty; 12.0 becomes `12`."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    elif isinstance(value, (datetime.date, datetime.time)):
        value = value.isoformat()
    return _remove_invisible(str(value)) or None


@lru_cache(maxsize=4096)  # a shared string may be in every cell
def _remove_invisible(text: str) -> str:
    """Return `text` in NFC, stripped and without invisible characters."""
    if "_x00" in text:
        text = _ESCAPED_CONTROL.sub(" ", text)
    if text.isascii():
        return text.strip()
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return unicodedata.normalize("NFC", visible.strip())
