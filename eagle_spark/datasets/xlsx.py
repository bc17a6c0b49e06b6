"""Workbooks opened for the values of their cells alone.

openpyxl reads properties, themes, fonts and charts first, and fails where one of these is damaged.
"""

from __future__ import annotations

import io
from typing import Any

from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.stylesheet import Stylesheet
from openpyxl.workbook import Workbook
from openpyxl.xml.constants import ARC_STYLE
from openpyxl.xml.functions import fromstring, localname

_FORMATS = ("numFmts", "cellXfs")  # what says which cells are dates


def open_workbook(data: bytes) -> Workbook:
    """Open a workbook read-only; formulas have the values that were last stored."""
    reader = _ValueReader(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    reader.read()
    workbook: Workbook = reader.wb
    return workbook


class _ValueReader(ExcelReader):
    def read(self) -> None:
        self.read_manifest()
        self.read_strings()
        self.read_workbook()
        self._read_formats()
        self.read_worksheets()

    def read_chartsheet(self, sheet: object, rel: object) -> None:
        """Leave out a sheet without cells."""

    def _read_formats(self) -> None:
        if ARC_STYLE not in self.valid_files:
            return
        styles: Any = fromstring(self.archive.read(ARC_STYLE))
        for part in list(styles):
            if localname(part) not in _FORMATS:
                styles.remove(part)
        formats: Any = Stylesheet.from_tree(styles)
        book: Any = self.wb
        book._date_formats = formats.date_formats
        book._timedelta_formats = formats.timedelta_formats
