"""The window, worked as a person would; offscreen."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import QMimeData, QPoint, QPointF, QSettings, Qt, QUrl
from PySide6.QtGui import QAction, QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication, QLabel, QMenu

from eagle_spark.viewer.app import make_application
from eagle_spark.viewer.examine import Examiner
from eagle_spark.viewer.window import Window
from eagle_spark.viewer.words import ENGLISH, SPANISH, Words
from tests.helpers.planted import PLANTED, put

pytestmark = pytest.mark.train  # the model of these tests is made by TensorFlow
SECONDS = 120
NAMES = ("grey.png", "grey.jpg", "empty.png", "sixteen_bit.tif")


@pytest.fixture(scope="module")
def application() -> QApplication:
    return make_application()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("films")
    for number, name in enumerate(NAMES):
        put(found / f"{number}-{name}", PLANTED[name]())
    return found


@pytest.fixture
def settings(tmp_path: Path) -> QSettings:
    return QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat)


@pytest.fixture
def window(application: QApplication, settings: QSettings) -> Iterator[Window]:
    window = Window(ENGLISH, settings)
    window.show()
    yield window
    window.close()


@pytest.fixture
def opened(window: Window, model_folder: Path, folder: Path) -> Window:
    window.open_model(str(model_folder))
    window.open_files([str(folder)])
    wait(lambda: window.found is not None)
    return window


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        QTest.qWait(5)


def at(window: Window, place: int) -> Callable[[], bool]:
    """Whether the file at a place is what stands in the window."""
    return lambda: bool(window.found and window.found.path == window.files[place])


def said(window: Window) -> str:
    labels = [label.text() for label in window.findChildren(QLabel) if label.isVisible()]
    return "\n".join([*labels, window.canvas._headline, window.canvas._detail])


def test_an_image_and_what_the_model_says_of_it(opened: Window, model_folder: Path) -> None:
    found = opened.found
    assert found is not None
    assert found.answer is not None
    text = said(opened)
    for wanted in (found.answer.label, "0-grey.png", "64 x 64", ENGLISH.research, "MB", "1 of 4"):
        opened._show_memory()
        assert wanted in (text if wanted != "MB" else said(opened))
    assert opened.canvas.colours() is not None
    # This model knows nothing: all it says needs review.
    review = ENGLISH.needs_review in text
    assert review == bool(found.answer.reasons)


def test_keys_step_through_the_folder_and_stop_at_its_ends(opened: Window) -> None:
    for key, place in (
        (Qt.Key.Key_Left, 0),
        (Qt.Key.Key_Right, 1),
        (Qt.Key.Key_PageDown, 2),
        (Qt.Key.Key_Right, 3),
        (Qt.Key.Key_Right, 3),
        (Qt.Key.Key_PageUp, 2),
    ):
        QTest.keyClick(opened, key)
        assert opened.place == place
        wait(at(opened, place))


def test_who_is_in_a_hurry_waits_for_the_last_one_only(opened: Window) -> None:
    shown: list[str] = []
    opened.shown.connect(lambda found: shown.append(Path(found.path).name))
    for _ in range(3):
        opened.step(1)
    wait(at(opened, 3))
    QTest.qWait(200)
    assert shown == ["3-sixteen_bit.tif"]


def test_a_broken_file_is_told_and_the_next_one_shown(opened: Window) -> None:
    opened.go(2)
    wait(at(opened, 2))
    assert ENGLISH.cannot_use in said(opened)
    assert "the file is empty" in said(opened)
    assert opened.canvas.colours() is None
    assert not opened.menus.actions["save_overlay"].isEnabled()
    opened.step(1)
    wait(at(opened, 3))
    assert opened.canvas.colours() is not None
    assert ENGLISH.cannot_use not in said(opened)


def test_dragging_changes_the_window_and_a_double_click_ends_it(opened: Window) -> None:
    canvas = opened.canvas
    before = canvas.colours()
    middle = canvas.rect().center()
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    QTest.mouseMove(canvas, middle + QPoint(-80, 40))
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle)
    assert (canvas.level, canvas.width_of_window) == (128 - 30, 256 - 60)
    assert "level 98, width 196" in said(opened)
    assert not np.array_equal(canvas.colours(), before)
    QTest.mouseDClick(canvas, Qt.MouseButton.LeftButton, pos=middle)
    assert np.array_equal(canvas.colours(), before)


def test_lungs_fade_and_go(opened: Window) -> None:
    canvas = opened.canvas
    canvas._lungs = np.zeros(canvas._view.shape, bool)
    canvas._lungs[100:300, 100:300] = True
    opened.panel._opacity.setValue(80)
    assert canvas.opacity == 0.8
    strong = canvas.colours()
    opened.panel._opacity.setValue(20)
    assert not np.array_equal(canvas.colours(), strong)
    opened.menus.actions["lungs_on_off"].trigger()
    grey = canvas.colours()
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert not opened.panel._lungs.isChecked()


def test_overlay_and_result_are_saved(opened: Window, tmp_path: Path, model_folder: Path) -> None:
    opened.save_overlay(str(tmp_path / "o.png"))
    opened.save_result(str(tmp_path / "r.json"))
    wait(lambda: "r.json" in opened.statusBar().currentMessage())
    with Image.open(tmp_path / "o.png") as image:
        assert np.array_equal(np.asarray(image), opened.canvas.colours())
    record = json.loads((tmp_path / "r.json").read_text())
    again = Examiner(str(model_folder))
    wanted = again.record(again.examine(opened.files[0]))
    for changing in (record, wanted):
        del changing["seconds"]
    assert record == wanted


def test_what_cannot_be_saved_is_told(opened: Window, tmp_path: Path) -> None:
    opened.save_result(str(tmp_path / "none" / "r.json"))
    wait(lambda: opened.statusBar().currentMessage().startswith("Not saved"))


def test_another_model_answers_for_the_image_that_is_open(
    opened: Window, other_model_folder: Path
) -> None:
    event = QDropEvent(
        QPointF(9, 9),
        Qt.DropAction.CopyAction,
        dropped(other_model_folder),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    opened.dropEvent(event)
    wait(lambda: opened.found is not None)
    assert opened.found.answer.label in ("D", "E", "F")


def dropped(path: Path) -> QMimeData:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    dropped.kept = data  # type: ignore[attr-defined]  # Qt does not own it
    return data


def test_a_folder_that_is_no_model_is_told(window: Window, tmp_path: Path, folder: Path) -> None:
    window.open_model(str(tmp_path))
    window.open_files([str(folder / "0-grey.png")])
    wait(lambda: ENGLISH.cannot_use_model in said(window))
    assert "metadata.json" in said(window)
    assert window.found is None


def test_an_empty_folder_is_told(window: Window, tmp_path: Path) -> None:
    window.open_files([str(tmp_path)])
    wait(lambda: window.statusBar().currentMessage() == f"No images in {tmp_path.name}")


def test_without_a_model_the_window_asks_for_one(window: Window) -> None:
    assert ENGLISH.model_first in said(window)


def spoken(window: Window) -> set[str]:
    """Every text of the window, menus too, shown or not."""
    actions = {a.text() for a in window.findChildren(QAction) if a.text()}
    menus = {menu.title() for menu in window.findChildren(QMenu) if menu.title()}
    labels = {label.text().strip() for label in window.findChildren(QLabel)}
    buttons = {b.text() for b in window.findChildren(QAbstractButton)}
    canvas = {window.canvas._headline, window.canvas._detail}
    status = {window.statusBar().currentMessage(), window.windowTitle()}
    return {text for text in actions | menus | labels | buttons | canvas | status if text}


def patterns(words: Words) -> set[str]:
    """Words that a language has and the other has not, as they stand between what is filled in."""
    values: list[Any] = [getattr(words, name) for name in words.__dataclass_fields__]
    nested = [value.values() if isinstance(value, dict) else [value] for value in values]
    texts = [text for some in nested for text in some]
    parts = {part.strip(" ,;:.%") for text in texts for part in text.split("{}")}
    return {part for part in parts if len(part) > 2}


@pytest.mark.parametrize("place", [0, 2])
def test_in_spanish_nothing_is_left_in_english(
    opened: Window, settings: QSettings, place: int
) -> None:
    opened.found = None
    opened.go(place)
    wait(at(opened, place))
    opened._show_memory()
    english = spoken(opened)
    opened.menus.actions["es"].trigger()
    assert settings.value("language") == "es"
    spanish = spoken(opened)
    only_english = patterns(ENGLISH) - patterns(SPANISH) - {"English"}
    left = {text for text in spanish for part in only_english if part in text.split("\n")}
    assert left == set()
    # What stays is data: names of classes, files, languages and models, numbers, details.
    for text in english & spanish:
        assert not any(part in text for part in only_english), text
    assert SPANISH.research in spanish
    opened.menus.actions["en"].trigger()
    assert spoken(opened) == english


def test_the_window_lives_while_the_worker_works(
    window: Window, model_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is stopped on its way; the window has to answer keys meanwhile."""
    going, asked = threading.Event(), threading.Event()
    examine = Examiner.examine

    def slow(self: Examiner, path: str, look: bool = False) -> Any:
        asked.set()
        assert going.wait(SECONDS)
        return examine(self, path, look)

    monkeypatch.setattr(Examiner, "examine", slow)
    window.open_model(str(model_folder))
    window.open_files([str(folder)])
    wait(asked.is_set)
    QTest.keyClick(window, Qt.Key.Key_Right)
    assert window.place == 1
    assert window.found is None
    going.set()
    wait(at(window, 1))


def test_what_was_chosen_is_remembered(
    opened: Window, settings: QSettings, model_folder: Path
) -> None:
    assert settings.value("model") == str(model_folder)
