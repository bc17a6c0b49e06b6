"""Main window: file list at the left, X-ray in the middle, prediction panel at the right."""

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
from eagle_spark.errors import Reason
from eagle_spark.viewer.canvas import Canvas
from eagle_spark.viewer.dialogs import select_folder, select_images, select_save_path
from eagle_spark.viewer.examine import ImageAnalysis, ImageAnalyzer
from eagle_spark.viewer.menus import Menus
from eagle_spark.viewer.panel import Panel
from eagle_spark.viewer.picture import encode_png, resize_lung_mask
from eagle_spark.viewer.words import LANGUAGES, Strings
from eagle_spark.viewer.worker import Worker

MEMORY_INTERVAL_MS = 1000
STATUS_TIMEOUT_MS = 6000


class Window(QMainWindow):
    """The main window; a worker thread does all work that takes time."""

    model_requested = Signal(str)
    files_requested = Signal(str, object)
    analysis_requested = Signal(int, str)
    save_requested = Signal(str, object)
    analysis_shown = Signal(object)  # ImageAnalysis

    def __init__(self, strings: Strings, settings: QSettings) -> None:
        super().__init__()
        self._strings, self._settings = strings, settings
        self.analyzer: ImageAnalyzer | None = None
        self.analysis: ImageAnalysis | None = None
        self.files: list[str] = []
        self.index = -1
        self._message, self._message_detail = "no_model", ""
        self._qt_translator = QTranslator(self)  # texts of Qt's own dialogs
        self.canvas, self.panel, self._list = Canvas(), Panel(strings), QListView()
        self._names = QStringListModel()
        self._position, self._research_notice = QLabel(), QLabel()
        self.menus = Menus(self)
        self._build_layout()
        self._connect()
        self._thread, self.worker = QThread(self), Worker()
        self._start_worker()
        self.set_strings(strings)

    def _build_layout(self) -> None:
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
        self._research_notice.setObjectName("research")
        self._research_notice.setAlignment(Qt.AlignmentFlag.AlignCenter)
        middle.addWidget(self._research_notice)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self._list)
        row.addLayout(middle, 1)
        row.addWidget(scroll)
        central = QWidget()
        central.setLayout(row)
        self.setCentralWidget(central)
        self.statusBar().addPermanentWidget(self._position)
        self.setAcceptDrops(True)
        self.resize(1180, 800)

    def _connect(self) -> None:
        self.canvas.window_changed.connect(self.panel.show_window)
        self.panel.opacity_changed.connect(self.canvas.set_opacity)
        self.panel.lungs_toggled.connect(self.canvas.set_lungs_visible)
        self.panel.window_reset.connect(self.canvas.set_window)
        self._list.clicked.connect(lambda index: self.go_to(index.row()))
        timer = QTimer(self)
        timer.timeout.connect(self._show_memory)
        timer.start(MEMORY_INTERVAL_MS)

    def _start_worker(self) -> None:
        worker = self.worker
        worker.moveToThread(self._thread)
        for request, slot in (
            (self.model_requested, worker.open_model),
            (self.files_requested, worker.list_files),
            (self.analysis_requested, worker.analyze_image),
            (self.save_requested, worker.save_file),
        ):
            request.connect(slot)
        worker.model_opened.connect(self._on_model_opened)
        worker.model_failed.connect(lambda error: self._show_message("model_error", error))
        worker.files_listed.connect(self._on_files_listed)
        worker.listing_failed.connect(lambda error: self._show_message("open_error", error))
        worker.image_analyzed.connect(self._on_image_analyzed)
        worker.file_saved.connect(lambda path: self._show_status(self._strings.saved.format(path)))
        worker.save_failed.connect(
            lambda error: self._show_status(self._strings.save_failed.format(error))
        )
        self._thread.start()

    # User actions.

    def open_model(self, folder: str) -> None:
        """Load a model folder and analyze the open image with it."""
        self.analyzer = self.analysis = None
        self._settings.setValue("model", folder)
        self._show_message("loading_model")
        self.panel.show_model(None)
        self.panel.show_analysis(None)
        self.model_requested.emit(folder)

    def open_files(self, paths: list[str]) -> None:
        """Open images, or folders of images."""
        self.files_requested.emit(Path(paths[0]).name or paths[0], paths)

    def go_to(self, index: int) -> None:
        """Show the file at an index of the list; ignore an index out of range."""
        if not 0 <= index < len(self.files):
            return
        self.index = index
        self._list.setCurrentIndex(self._names.index(index))
        self._show_position()
        self._request_analysis()

    def step(self, offset: int) -> None:
        self.go_to(self.index + offset)

    def save_overlay(self, path: str) -> None:
        """Save the displayed image as PNG."""
        rgb = self.canvas.render_rgb()
        if rgb is not None and self.analysis and self.analyzer:
            comment = f"{self._strings.research_notice} {self.analyzer.bundle.metadata.model_id}"
            self.save_requested.emit(path, lambda: encode_png(rgb, comment))

    def save_result(self, path: str) -> None:
        """Save the record that `eagle predict` prints, indented."""
        if self.analysis and self.analyzer:
            record = self.analyzer.to_record(self.analysis)
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
            self.save_requested.emit(path, lambda: (text + "\n").encode())

    def set_strings(self, strings: Strings) -> None:
        """Set the language of all texts."""
        self._strings = strings
        folder = QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)
        self._qt_translator.load(f"qtbase_{strings.code}", folder)
        QCoreApplication.installTranslator(self._qt_translator)
        self.menus.set_strings(strings)
        self.panel.set_strings(strings)
        self._research_notice.setText(strings.research_notice)
        self._show_position()
        self._update_message()

    def set_language(self, code: str) -> None:
        """Set the language of all texts and save it in the settings."""
        self._settings.setValue("language", code)
        self.set_strings(LANGUAGES[code])

    # Results of the worker.

    def _on_model_opened(self, analyzer: ImageAnalyzer) -> None:
        self.analyzer = analyzer
        self.panel.show_model(analyzer)
        self.panel.show_analysis(None)
        self._show_message("drop_images")
        self._request_analysis()

    def _on_files_listed(self, name: str, files: list[str]) -> None:
        if not files:
            self._show_status(self._strings.no_images.format(name))
            return
        self.files = files
        common = os.path.commonpath([os.path.dirname(file) for file in files])
        self._names.setStringList([os.path.relpath(file, common or ".") for file in files])
        self._list.setVisible(len(files) > 1)
        self.go_to(0)

    def _on_image_analyzed(self, number: int, analysis: ImageAnalysis) -> None:
        if number != self.worker.latest_request or self.analyzer is None:
            return
        self.analysis = analysis
        self.panel.show_analysis(analysis)
        mask = analysis.prediction.mask
        if mask is not None and analysis.view is not None:
            shape = analysis.view.shape[0], analysis.view.shape[1]
            lungs = resize_lung_mask(mask, shape)
            self.canvas.show_image(analysis.view, lungs)
            self._message = ""
        else:
            self._show_message("image_error")
        self.menus.enable_save_actions(analysis)
        self.statusBar().clearMessage()
        self.analysis_shown.emit(analysis)

    # Content of the window.

    def _request_analysis(self) -> None:
        if self.analyzer is None or self.index < 0:
            return
        self.worker.latest_request += 1
        self._show_status(self._strings.processing)
        self.analysis_requested.emit(self.worker.latest_request, self.files[self.index])

    def _show_message(self, name: str, detail: str = "") -> None:
        """Show a message instead of an image.

        Args:
            name: field of `Strings`.
            detail: text below the message.
        """
        self._message, self._message_detail = name, detail
        self._update_message()

    def _update_message(self) -> None:
        strings, name = self._strings, self._message
        if not name:
            return
        detail = self._message_detail
        if name == "image_error" and self.analysis and self.analysis.prediction.reason:
            prediction = self.analysis.prediction
            reason = Reason(prediction.reason)
            text = strings.rejection_reasons.get(reason, str(reason))
            detail = f"{self.analysis.path.rpartition('/')[2]}: {text}\n\n{prediction.detail}"
        self.canvas.show_message(getattr(strings, name), detail, name.endswith("_error"))

    def _show_position(self) -> None:
        name = Path(self.files[self.index]).name if self.files else ""
        self.setWindowTitle(f"{name} - eagle-view" if name else "eagle-view")
        self._position.setText(
            self._strings.position.format(self.index + 1, len(self.files)) if self.files else ""
        )

    def _show_memory(self) -> None:
        self.panel.show_memory(round(psutil.Process().memory_info().rss / 1e6))

    def _show_status(self, text: str) -> None:
        self.statusBar().showMessage(text, STATUS_TIMEOUT_MS)

    # Dialogs.

    def choose_images(self) -> None:
        if paths := select_images(self, self._strings, self._current_folder()):
            self.open_files(paths)

    def choose_folder(self) -> None:
        title = self._strings.open_folder
        if paths := select_folder(self, self._strings, title, self._current_folder()):
            self.open_files(paths)

    def choose_model(self) -> None:
        title = self._strings.open_model
        if paths := select_folder(self, self._strings, title, self._current_folder()):
            self.open_model(paths[0])

    def choose_overlay_path(self) -> None:
        strings = self._strings
        name_filter = f"{strings.png_files} (*.png)"
        if self.analysis and (
            paths := select_save_path(
                self,
                strings,
                strings.save_overlay,
                name_filter,
                f"{self.analysis.path}.overlay.png",
            )
        ):
            self.save_overlay(paths[0])

    def choose_result_path(self) -> None:
        strings = self._strings
        name_filter = f"{strings.json_files} (*.json)"
        if self.analysis and (
            paths := select_save_path(
                self,
                strings,
                strings.save_result,
                name_filter,
                f"{self.analysis.path}.result.json",
            )
        ):
            self.save_result(paths[0])

    def show_about(self) -> None:
        text = self._strings.about_text.format(eagle_spark.__version__)
        QMessageBox.about(self, self._strings.about.replace("&", ""), text)

    def _current_folder(self) -> str:
        return str(Path(self.files[self.index]).parent) if self.files else ""

    # Event handlers of Qt.

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
        self.worker.latest_request = -1  # skips all pending requests
        self._thread.quit()
        self._thread.wait()
        event.accept()
