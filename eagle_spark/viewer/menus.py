"""The menu bar, and the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMenu

from eagle_spark.viewer.examine import Examination
from eagle_spark.viewer.words import LANGUAGES, Words

if TYPE_CHECKING:
    from eagle_spark.viewer.window import Window


class Menus:
    """Actions by the names of their words."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._menus: dict[str, QMenu] = {}
        self.actions: dict[str, QAction] = {}
        file = self._menu("file")
        self._add(file, "open_image", window.choose_image, "Ctrl+O")
        self._add(file, "open_folder", window.choose_folder, "Ctrl+Shift+O")
        self._add(file, "open_model", window.choose_model, "Ctrl+M")
        file.addSeparator()
        self._add(file, "save_overlay", window.choose_overlay, "Ctrl+S")
        self._add(file, "save_result", window.choose_result, "Ctrl+Shift+S")
        file.addSeparator()
        self._add(file, "leave", window.close, "Ctrl+Q")
        view = self._menu("view")
        self._add(view, "following", lambda: window.step(1), "Right", "PgDown")
        self._add(view, "preceding", lambda: window.step(-1), "Left", "PgUp")
        view.addSeparator()
        self._add(view, "whole_window", window.canvas.set_window, "W")
        lungs = self._add(view, "lungs_on_off", None, "L")
        lungs.setCheckable(True)
        lungs.setChecked(True)
        lungs.toggled.connect(window.panel.set_lungs_shown)
        window.panel.lungs_toggled.connect(lungs.setChecked)
        self._languages()
        help_menu = self._menu("help")
        self._add(help_menu, "about", window.show_about, "F1")
        self.enable(None)

    def _menu(self, name: str) -> QMenu:
        menu = self._menus[name] = self._window.menuBar().addMenu("")
        return menu

    def _add(
        self, menu: QMenu, name: str, run: Callable[..., object] | None, *keys: str
    ) -> QAction:
        action = self.actions[name] = menu.addAction("")
        action.setShortcuts([QKeySequence(key) for key in keys])
        if run:
            action.triggered.connect(lambda _checked=False: run())
        return action

    def _languages(self) -> None:
        menu = self._menu("languages")
        self._group = QActionGroup(self._window)
        for code, words in LANGUAGES.items():
            action = self.actions[code] = menu.addAction(words.language)
            action.setCheckable(True)
            self._group.addAction(action)
            action.triggered.connect(lambda _checked=False, code=code: self._window.speak_in(code))

    def enable(self, found: Examination | None) -> None:
        """Let be saved what there is."""
        self.actions["save_overlay"].setEnabled(bool(found and found.answer))
        self.actions["save_result"].setEnabled(found is not None)

    def speak(self, words: Words) -> None:
        for name, menu in self._menus.items():
            menu.setTitle(getattr(words, name))
        for name, action in self.actions.items():
            if name not in LANGUAGES:
                action.setText(getattr(words, name))
        self.actions[words.code].setChecked(True)
