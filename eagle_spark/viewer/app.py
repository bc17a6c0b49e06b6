"""`eagle-view [--model DIR] [IMAGE|FOLDER…]`: the window for one image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from eagle_spark.options import Parser

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
QLabel#head { color: #8b98a5; font-weight: 600; }
QLabel#faint { color: #9aa6b1; }
QLabel#review { padding: 7px 9px; border-radius: 5px; background: #1f3329; color: #a9dcbf; }
QLabel#review[alert="true"] { background: #4a3710; color: #ffd98a; }
QLabel#research { padding: 5px; background: #3b2a12; color: #ffd98a; }
QFrame#line { background: #2a323b; border: none; }
QToolTip { background: #1f262e; color: #dfe5ea; border: 1px solid #323c47; }
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Open the window, and return its exit code."""
    parser = Parser(
        prog="eagle-view", description="Look at X-rays with a model. Research use only."
    )
    parser.add_argument("--model", metavar="DIR", help="model folder (default: that of last time)")
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="image, or folder of images")
    given = parser.parse_args(argv)
    if not find_spec("PySide6"):
        print("error: not installed: PySide6; pip install 'eagle-spark[viewer]'", file=sys.stderr)
        return 2
    return _run(given.model, given.images)


def _run(model: str | None, images: list[str]) -> int:
    from PySide6.QtCore import QLocale, QSettings

    from eagle_spark.viewer.window import Window
    from eagle_spark.viewer.words import words_of

    application = make_application()
    settings = QSettings("eagle_spark", "eagle-view")
    words = words_of(str(settings.value("language") or QLocale.system().name()))
    window = Window(words, settings)
    window.show()
    if known := model or str(settings.value("model") or ""):
        window.open_model(known)
    if images:
        window.open_files(images)
    return application.exec()


def make_application() -> QApplication:
    """Return the application in its one style, the same on all desktops."""
    from PySide6.QtGui import QColor, QPalette
    from PySide6.QtWidgets import QApplication

    application = QApplication(["eagle-view"])
    application.setStyle("Fusion")
    palette = QPalette(QColor("#2a323b"), QColor("#171c22"))
    palette.setColor(QPalette.ColorRole.Highlight, QColor("#26a6f2"))
    application.setPalette(palette)
    application.setStyleSheet(STYLE)
    return application


if __name__ == "__main__":
    raise SystemExit(main())
