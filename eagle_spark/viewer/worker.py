"""Worker thread for loading, inference and file access, so that the window stays responsive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from eagle_spark.errors import EagleError
from eagle_spark.viewer.examine import ImageAnalyzer
from eagle_spark.viewer.listing import list_image_files


class Worker(QObject):
    """Runs its slots in the worker thread, one after the other.

    Attributes:
        latest_request: number of the newest analysis request; older ones are skipped. Set by the
            window.
    """

    model_opened = Signal(object)  # ImageAnalyzer
    model_failed = Signal(str)  # error text
    files_listed = Signal(str, object)  # name to display, list of paths
    listing_failed = Signal(str)  # error text
    image_analyzed = Signal(int, object)  # number of the request, ImageAnalysis
    file_saved = Signal(str)  # path
    save_failed = Signal(str)  # error text

    def __init__(self) -> None:
        super().__init__()
        self.latest_request = 0
        self._analyzer: ImageAnalyzer | None = None

    @Slot(str)
    def open_model(self, model: str) -> None:
        try:
            self._analyzer = ImageAnalyzer(model)
        except EagleError as error:
            self.model_failed.emit(str(error))
        except Exception as error:  # an engine's own error must not end the program
            self.model_failed.emit(f"{type(error).__name__}: {error}")
        else:
            self.model_opened.emit(self._analyzer)

    @Slot(str, object)
    def list_files(self, name: str, paths: list[str]) -> None:
        try:
            self.files_listed.emit(name, list_image_files(paths))
        except EagleError as error:
            self.listing_failed.emit(str(error))

    @Slot(int, str)
    def analyze_image(self, number: int, path: str) -> None:
        if self._analyzer and number == self.latest_request:
            self.image_analyzed.emit(number, self._analyzer.analyze(path, with_view=True))

    @Slot(str, object)
    def save_file(self, path: str, encode: Callable[[], bytes]) -> None:
        try:
            Path(path).write_bytes(encode())
        except OSError as error:
            self.save_failed.emit(str(error))
        else:
            self.file_saved.emit(path)
