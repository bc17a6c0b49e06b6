"""Menu bar and keyboard shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMenu

from eagle_spark.model.predictor import SCORED
from eagle_spark.viewer.examine import ImageAnalysis
from eagle_spark.viewer.words import LANGUAGES, Strings

if TYPE_CHECKING:
    from eagle_spark.viewer.window import Window


class Menus:
    """Actions and menus by the names of their strings; languages by their codes."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._menus: dict[str, QMenu] = {}
        self.actions: dict[str, QAction] = {}
        file = self._add_menu("file_menu")
        self._add_action(file, "open_images", window.choose_images, "Ctrl+O")
        self._add_action(file, "open_folder", window.choose_folder, "Ctrl+Shift+O")
        self._add_action(file, "open_model", window.choose_model, "Ctrl+M")
        file.addSeparator()
        self._add_action(file, "save_overlay", window.choose_overlay_path, "Ctrl+S")
        self._add_action(file, "save_result", window.choose_result_path, "Ctrl+Shift+S")
        file.addSeparator()
        self._add_action(file, "quit", window.close, "Ctrl+Q")
        view = self._add_menu("view_menu")
        self._add_action(view, "next_image", lambda: window.step(1), "Right", "PgDown")
        self._add_action(view, "previous_image", lambda: window.step(-1), "Left", "PgUp")
        view.addSeparator()
        self._add_action(view, "reset_window", window.canvas.set_window, "W")
        show_lungs = self._add_action(view, "show_lungs", None, "L")
        show_lungs.setCheckable(True)
        show_lungs.setChecked(True)
        show_lungs.toggled.connect(window.panel.set_lungs_visible)
        window.panel.lungs_toggled.connect(show_lungs.setChecked)
        self._add_language_menu()
        help_menu = self._add_menu("help_menu")
        self._add_action(help_menu, "about", window.show_about, "F1")
        self.enable_save_actions(None)

    def _add_menu(self, name: str) -> QMenu:
        menu = self._menus[name] = self._window.menuBar().addMenu("")
        return menu

    def _add_action(
        self, menu: QMenu, name: str, run: Callable[..., object] | None, *keys: str
    ) -> QAction:
        action = self.actions[name] = menu.addAction("")
        action.setShortcuts([QKeySequence(key) for key in keys])
        if run:
            action.triggered.connect(lambda _checked=False: run())
        return action

    def _add_language_menu(self) -> None:
        menu = self._add_menu("language_menu")
        self._language_group = QActionGroup(self._window)
        for code, strings in LANGUAGES.items():
            action = self.actions[code] = menu.addAction(strings.language_name)
            action.setCheckable(True)
            self._language_group.addAction(action)
            action.triggered.connect(
                lambda _checked=False, code=code: self._window.set_language(code)
            )

    def enable_save_actions(self, analysis: ImageAnalysis | None) -> None:
        """Enable the save actions that apply to the analysis."""
        self.actions["save_overlay"].setEnabled(
            bool(analysis and analysis.prediction.status == SCORED)
        )
        self.actions["save_result"].setEnabled(analysis is not None)

    def set_strings(self, strings: Strings) -> None:
        for name, menu in self._menus.items():
            menu.setTitle(getattr(strings, name))
        for name, action in self.actions.items():
            if name not in LANGUAGES:
                action.setText(getattr(strings, name))
        self.actions[strings.code].setChecked(True)
