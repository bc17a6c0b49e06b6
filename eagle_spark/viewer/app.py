"""The application of the viewer window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

STYLE = """
QMainWindow, QWidget#panel, QScrollArea, QListView, QStatusBar, QMenuBar { background: #171c22; }
QWidget { color: #dfe5ea; }
QScrollArea { border: none; border-left: 1px solid #2a323b; }
QListView { border: none; border-right: 1px solid #2a323b; padding: 4px; outline: none; }
QListView::item { padding: 5px 6px; border-radius: 4px; }
QListView::item:selected { background: #24506e; color: white; }
QMenuBar::item:selected, QMenu::item:selected { background: #24506e; }
QMenu { background: #1f262e; border: 1px solid #323c47; }
QMenu::item:disabled { color: #6b7783; }
QLabel#label { font-size: 22pt; font-weight: 600; }
QLabel#large { font-size: 12pt; color: #b8c2cb; }
QLabel#heading { color: #8b98a5; font-weight: 600; }
QLabel#muted { color: #9aa6b1; }
QLabel#review { padding: 7px 9px; border-radius: 5px; background: #1f3329; color: #a9dcbf; }
QLabel#review[alert="true"] { background: #4a3710; color: #ffd98a; }
QLabel#research { padding: 5px; background: #3b2a12; color: #ffd98a; }
QFrame#line { background: #2a323b; border: none; }
QToolTip { background: #1f262e; color: #dfe5ea; border: 1px solid #323c47; }
"""


def run_viewer(model: str | None, images: Sequence[str]) -> int:
    """Open the window; return the exit code of the application when it is closed."""
    from PySide6.QtCore import QLocale, QSettings

    from eagle_spark.viewer.window import Window
    from eagle_spark.viewer.words import get_strings

    application = create_application()
    settings = QSettings("eagle_spark", "eagle-view")
    strings = get_strings(str(settings.value("language") or QLocale.system().name()))
    window = Window(strings, settings)
    window.show()
    if model_folder := model or str(settings.value("model") or ""):
        window.open_model(model_folder)
    if images:
        window.open_files(list(images))
    return application.exec()


def create_application() -> QApplication:
    """Create the application with the same style on all desktops."""
    from PySide6.QtGui import QColor, QPalette
    from PySide6.QtWidgets import QApplication

    application = QApplication(["eagle-view"])
    application.setStyle("Fusion")
    palette = QPalette(QColor("#2a323b"), QColor("#171c22"))
    palette.setColor(QPalette.ColorRole.Highlight, QColor("#26a6f2"))
    application.setPalette(palette)
    application.setStyleSheet(STYLE)
    return application
