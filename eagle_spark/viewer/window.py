"""The window: files at the left, the X-ray in the middle, what the model says at the right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
from PySide6.QtCore import (
    QCoreApplication,
    QLibraryInfo,
    QSettings,
    QStringListModel,
    Qt,
    QThread,
    QTimer,
    QTranslator,
    Signal,
)
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListView,
    QMainWindow,
    QMessageBox,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

import eagle_spark
from eagle_spark.viewer.canvas import Canvas
from eagle_spark.viewer.dialogs import ask_folder, ask_images, ask_target
from eagle_spark.viewer.examine import Examination, Examiner
from eagle_spark.viewer.menus import Menus
from eagle_spark.viewer.panel import Panel
from eagle_spark.viewer.picture import lungs_of, png_of
from eagle_spark.viewer.words import LANGUAGES, Words
from eagle_spark.viewer.worker import Worker

MEMORY_BEAT = 1000  # milliseconds
MESSAGE = 6000  # milliseconds


class Window(QMainWindow):
    """Everything between the person and the worker; no work is done here."""

    ask_model = Signal(str)
    ask_files = Signal(str, object)
    ask_image = Signal(int, str)
    ask_save = Signal(str, object)
    shown = Signal(object)  # Examination, when it stands in the window

    def __init__(self, words: Words, settings: QSettings) -> None:
        super().__init__()
        self._words, self._settings = words, settings
        self.examiner: Examiner | None = None
        self.found: Examination | None = None
        self.files: list[str] = []
        self.place = -1
        self._state = "model_first"
        self._detail = ""
        self._buttons = QTranslator(self)  # of Qt's own dialogs
        self.canvas, self.panel, self._list = Canvas(), Panel(words), QListView()
        self._names = QStringListModel()
        self._position, self._research = QLabel(), QLabel()
        self.menus = Menus(self)
        self._lay_out()
        self._connect()
        self._thread, self.worker = QThread(self), Worker()
        self._start_worker()
        self.speak(words)

    def _lay_out(self) -> None:
        self._list.setModel(self._names)
        self._list.setUniformItemSizes(True)
        self._list.setEditTriggers(QListView.EditTrigger.NoEditTriggers)
        self._list.setTextElideMode(Qt.TextElideMode.ElideLeft)
        self._list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._list.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._list.setFixedWidth(215)
        self._list.hide()
        scroll = QScrollArea()
        scroll.setWidget(self.panel)
        scroll.setWidgetResizable(True)
        scroll.setFixedWidth(self.panel.width() + 12)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        middle = QVBoxLayout()
        middle.setSpacing(0)
        middle.addWidget(self.canvas, 1)
        self._research.setObjectName("research")
        self._research.setAlignment(Qt.AlignmentFlag.AlignCenter)
        middle.addWidget(self._research)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self._list)
        row.addLayout(middle, 1)
        row.addWidget(scroll)
        whole = QWidget()
        whole.setLayout(row)
        self.setCentralWidget(whole)
        self.statusBar().addPermanentWidget(self._position)
        self.setAcceptDrops(True)
        self.resize(1180, 800)

    def _connect(self) -> None:
        self.canvas.changed.connect(self.panel.show_window)
        self.panel.opacity_changed.connect(self.canvas.set_opacity)
        self.panel.lungs_toggled.connect(self.canvas.show_lungs)
        self.panel.window_reset.connect(self.canvas.set_window)
        self._list.clicked.connect(lambda index: self.go(index.row()))
        beat = QTimer(self)
        beat.timeout.connect(self._show_memory)
        beat.start(MEMORY_BEAT)

    def _start_worker(self) -> None:
        worker = self.worker
        worker.moveToThread(self._thread)
        for ask, slot in (
            (self.ask_model, worker.open),
            (self.ask_files, worker.list),
            (self.ask_image, worker.examine),
            (self.ask_save, worker.save),
        ):
            ask.connect(slot)
        worker.opened.connect(self._take_model)
        worker.refused.connect(lambda why: self._stay("cannot_use_model", why))
        worker.listed.connect(self._take_files)
        worker.unlisted.connect(lambda why: self._stay("cannot_open", why))
        worker.examined.connect(self._take_examination)
        worker.saved.connect(lambda path: self._tell(self._words.saved.format(path)))
        worker.unsaved.connect(lambda why: self._tell(self._words.not_saved.format(why)))
        self._thread.start()

    # What a person asks for.

    def open_model(self, folder: str) -> None:
        """Check and load a model folder, and ask it about the image that is open."""
        self.examiner = self.found = None
        self._settings.setValue("model", folder)
        self._stay("loading")
        self.panel.show_model(None)
        self.panel.show_examination(None)
        self.ask_model.emit(folder)

    def open_files(self, given: list[str]) -> None:
        """Open images, or folders of images."""
        self.ask_files.emit(Path(given[0]).name or given[0], given)

    def go(self, place: int) -> None:
        """Show the file at a place of the list; nothing where there is none."""
        if not 0 <= place < len(self.files):
            return
        self.place = place
        self._list.setCurrentIndex(self._names.index(place))
        self._show_position()
        self._examine()

    def step(self, by: int) -> None:
        self.go(self.place + by)

    def save_overlay(self, path: str) -> None:
        """Write the picture as it is shown."""
        colours = self.canvas.colours()
        if colours is not None and self.found and self.examiner:
            comment = f"{self._words.research} {self.examiner.bundle.model_id}"
            self.ask_save.emit(path, lambda: png_of(colours, comment))

    def save_result(self, path: str) -> None:
        """Write what the model says, as `eagle-predict` prints it."""
        if self.found and self.examiner:
            record = self.examiner.record(self.found)
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
            self.ask_save.emit(path, lambda: (text + "\n").encode())

    def speak(self, words: Words) -> None:
        """Say everything in another language."""
        self._words = words
        place = QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)
        self._buttons.load(f"qtbase_{words.code}", place)
        QCoreApplication.installTranslator(self._buttons)
        self.menus.speak(words)
        self.panel.speak(words)
        self._research.setText(words.research)
        self._show_position()
        self._show_state()

    def speak_in(self, code: str) -> None:
        """Say everything in the language that was chosen, and remember it."""
        self._settings.setValue("language", code)
        self.speak(LANGUAGES[code])

    # What the worker answers.

    def _take_model(self, examiner: Examiner) -> None:
        self.examiner = examiner
        self.panel.show_model(examiner)
        self.panel.show_examination(None)
        self._stay("drop_here")
        self._examine()

    def _take_files(self, shown: str, files: list[str]) -> None:
        if not files:
            self._tell(self._words.no_images.format(shown))
            return
        self.files = files
        common = os.path.commonpath([os.path.dirname(file) for file in files])
        self._names.setStringList([os.path.relpath(file, common or ".") for file in files])
        self._list.setVisible(len(files) > 1)
        self.go(0)

    def _take_examination(self, number: int, found: Examination) -> None:
        if number != self.worker.wanted or self.examiner is None:
            return
        self.found = found
        self.panel.show_examination(found)
        if found.answer and found.view is not None:
            shape = found.view.shape[0], found.view.shape[1]
            lungs = lungs_of(found.answer.lungs, shape)
            self.canvas.show_picture(found.view, lungs)
            self._state = ""
        else:
            self._stay("cannot_use")
        self.menus.enable(found)
        self.statusBar().clearMessage()
        self.shown.emit(found)

    # What stands in the window.

    def _examine(self) -> None:
        if self.examiner is None or self.place < 0:
            return
        self.worker.wanted += 1
        self.statusBar().showMessage(self._words.working, MESSAGE)
        self.ask_image.emit(self.worker.wanted, self.files[self.place])

    def _stay(self, state: str, detail: str = "") -> None:
        """Show a message in the place of the picture; `state` is the name of its words."""
        self._state, self._detail = state, detail
        self._show_state()

    def _show_state(self) -> None:
        words, state = self._words, self._state
        if not state:
            return
        detail = self._detail
        if state == "cannot_use" and self.found and (rejected := self.found.rejected):
            reason = words.reasons.get(rejected.reason, str(rejected.reason))
            detail = f"{self.found.path.rpartition('/')[2]}: {reason}\n\n{rejected.detail}"
        self.canvas.show_message(getattr(words, state), detail, state.startswith("cannot"))

    def _show_position(self) -> None:
        name = Path(self.files[self.place]).name if self.files else ""
        self.setWindowTitle(f"{name} - eagle-view" if name else "eagle-view")
        self._position.setText(
            self._words.position.format(self.place + 1, len(self.files)) if self.files else ""
        )

    def _show_memory(self) -> None:
        self.panel.show_memory(round(psutil.Process().memory_info().rss / 1e6))

    def _tell(self, text: str) -> None:
        self.statusBar().showMessage(text, MESSAGE)

    # Dialogs.

    def choose_image(self) -> None:
        if files := ask_images(self, self._words, self._folder()):
            self.open_files(files)

    def choose_folder(self) -> None:
        if found := ask_folder(self, self._words, self._words.open_folder, self._folder()):
            self.open_files(found)

    def choose_model(self) -> None:
        if found := ask_folder(self, self._words, self._words.open_model, self._folder()):
            self.open_model(found[0])

    def choose_overlay(self) -> None:
        words = self._words
        kind = f"{words.png_files} (*.png)"
        if self.found and (
            found := ask_target(
                self, words, words.save_overlay, kind, f"{self.found.path}.overlay.png"
            )
        ):
            self.save_overlay(found[0])

    def choose_result(self) -> None:
        words = self._words
        kind = f"{words.json_files} (*.json)"
        if self.found and (
            found := ask_target(
                self, words, words.save_result, kind, f"{self.found.path}.result.json"
            )
        ):
            self.save_result(found[0])

    def show_about(self) -> None:
        text = self._words.about_text.format(eagle_spark.__version__)
        QMessageBox.about(self, self._words.about.replace("&", ""), text)

    def _folder(self) -> str:
        return str(Path(self.files[self.place]).parent) if self.files else ""

    # Qt's own.

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if len(paths) == 1 and Path(paths[0], "metadata.json").is_file():
            self.open_model(paths[0])
        elif paths:
            self.open_files(paths)

    def closeEvent(self, event: QCloseEvent) -> None:
        self.worker.wanted = -1  # nothing more is asked
        self._thread.quit()
        self._thread.wait()
        event.accept()
