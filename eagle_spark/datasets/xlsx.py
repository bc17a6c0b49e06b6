"""Open workbooks for their cell values only.

openpyxl also reads properties, themes, fonts and charts, and fails if one of these is damaged.
"""

from __future__ import annotations

import io
from typing import Any

from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.stylesheet import Stylesheet
from openpyxl.workbook import Workbook
from openpyxl.xml.constants import ARC_STYLE
from openpyxl.xml.functions import fromstring, localname

_DATE_FORMAT_PARTS = ("numFmts", "cellXfs")  # the styles that mark cells as dates


def open_workbook(data: bytes) -> Workbook:
    """Open a workbook read-only; formulas have their last stored values."""
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
        """Skip chart sheets, which have no cells."""

    def _read_formats(self) -> None:
        if ARC_STYLE not in self.valid_files:
            return
        # Any: openpyxl's stubs omit these attributes.
        styles: Any = fromstring(self.archive.read(ARC_STYLE))
        for part in list(styles):
            if localname(part) not in _DATE_FORMAT_PARTS:
                styles.remove(part)
        formats: Any = Stylesheet.from_tree(styles)
        workbook: Any = self.wb
        workbook._date_formats = formats.date_formats
        workbook._timedelta_formats = formats.timedelta_formats
