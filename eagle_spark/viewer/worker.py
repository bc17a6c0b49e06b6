"""All that takes time, in a thread of its own: the window only ever asks and is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from eagle_spark.errors import EagleError
from eagle_spark.viewer.examine import Examiner
from eagle_spark.viewer.listing import image_files


class Worker(QObject):
    """Lives in the thread; its slots run there, one after the other.

    Attributes:
        wanted: number of the newest request; older ones are passed over. Set by the window.
    """

    opened = Signal(object)  # Examiner
    refused = Signal(str)  # why a model cannot be used
    listed = Signal(str, object)  # what was given, its files
    unlisted = Signal(str)  # why not
    examined = Signal(int, object)  # number of the request, Examination
    saved = Signal(str)
    unsaved = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.wanted = 0
        self._examiner: Examiner | None = None

    @Slot(str)
    def open(self, model: str) -> None:
        try:
            self._examiner = Examiner(model)
        except EagleError as error:
            self.refused.emit(str(error))
        except Exception as error:  # an engine's own; the window has to live on
            self.refused.emit(f"{type(error).__name__}: {error}")
        else:
            self.opened.emit(self._examiner)

    @Slot(str, object)
    def list(self, shown: str, given: list[str]) -> None:
        try:
            self.listed.emit(shown, image_files(given))
        except EagleError as error:
            self.unlisted.emit(str(error))

    @Slot(int, str)
    def examine(self, number: int, path: str) -> None:
        if self._examiner and number == self.wanted:
            self.examined.emit(number, self._examiner.examine(path, look=True))

    @Slot(str, object)
    def save(self, path: str, content: Callable[[], bytes]) -> None:
        try:
            Path(path).write_bytes(content())
        except OSError as error:
            self.unsaved.emit(str(error))
        else:
            self.saved.emit(path)
