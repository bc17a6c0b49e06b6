"""The window, driven by simulated user input, offscreen."""

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

from eagle_spark.viewer.app import create_application
from eagle_spark.viewer.examine import ImageAnalyzer
from eagle_spark.viewer.window import Window
from eagle_spark.viewer.words import ENGLISH, SPANISH, Strings
from tests.helpers.sample_images import SAMPLE_IMAGES, write_file

pytestmark = pytest.mark.train  # TensorFlow builds the model of these tests
TIMEOUT = 120  # seconds
NAMES = ("grey.png", "grey.jpg", "empty.png", "sixteen_bit.tif")


@pytest.fixture(scope="module")
def application() -> QApplication:
    return create_application()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index, name in enumerate(NAMES):
        write_file(folder / f"{index}-{name}", SAMPLE_IMAGES[name]())
    return folder


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
    wait_until(lambda: window.analysis is not None)
    return window


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        QTest.qWait(5)


def shows_file(window: Window, index: int) -> Callable[[], bool]:
    """Return a condition: the window shows the file at an index of its list."""
    return lambda: bool(window.analysis and window.analysis.path == window.files[index])


def visible_text(window: Window) -> str:
    labels = [label.text() for label in window.findChildren(QLabel) if label.isVisible()]
    return "\n".join([*labels, window.canvas._headline, window.canvas._detail])


def test_an_image_is_shown_with_its_prediction(opened: Window, model_folder: Path) -> None:
    analysis = opened.analysis
    assert analysis is not None
    assert analysis.prediction.label is not None
    opened._show_memory()
    text = visible_text(opened)
    notice = ENGLISH.research_notice
    for expected in (analysis.prediction.label, "0-grey.png", "64 x 64", notice, "MB", "1 of 4"):
        assert expected in text
    assert opened.canvas.render_rgb() is not None
    assert (ENGLISH.needs_review in text) == bool(analysis.prediction.review_reasons)


def test_keys_step_through_the_folder_and_stop_at_its_ends(opened: Window) -> None:
    for key, index in (
        (Qt.Key.Key_Left, 0),
        (Qt.Key.Key_Right, 1),
        (Qt.Key.Key_PageDown, 2),
        (Qt.Key.Key_Right, 3),
        (Qt.Key.Key_Right, 3),
        (Qt.Key.Key_PageUp, 2),
    ):
        QTest.keyClick(opened, key)
        assert opened.index == index
        wait_until(shows_file(opened, index))


def test_fast_steps_analyze_the_last_image_only(opened: Window) -> None:
    shown: list[str] = []
    opened.analysis_shown.connect(lambda analysis: shown.append(Path(analysis.path).name))
    for _ in range(3):
        opened.step(1)
    wait_until(shows_file(opened, 3))
    QTest.qWait(200)
    assert shown == ["3-sixteen_bit.tif"]


def test_a_rejected_file_shows_its_reason(opened: Window) -> None:
    opened.go_to(2)
    wait_until(shows_file(opened, 2))
    assert ENGLISH.image_error in visible_text(opened)
    assert "the file is empty" in visible_text(opened)
    assert opened.canvas.render_rgb() is None
    assert not opened.menus.actions["save_overlay"].isEnabled()
    opened.step(1)
    wait_until(shows_file(opened, 3))
    assert opened.canvas.render_rgb() is not None
    assert ENGLISH.image_error not in visible_text(opened)


def test_dragging_changes_the_window_and_a_double_click_resets_it(opened: Window) -> None:
    canvas = opened.canvas
    before = canvas.render_rgb()
    middle = canvas.rect().center()
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    QTest.mouseMove(canvas, middle + QPoint(-80, 40))
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle)
    assert (canvas.window_level, canvas.window_width) == (128 - 30, 256 - 60)
    assert "level 98, width 196" in visible_text(opened)
    assert not np.array_equal(canvas.render_rgb(), before)
    QTest.mouseDClick(canvas, Qt.MouseButton.LeftButton, pos=middle)
    assert np.array_equal(canvas.render_rgb(), before)


def test_opacity_and_visibility_of_the_lungs(opened: Window) -> None:
    canvas = opened.canvas
    canvas._lungs = np.zeros(canvas._view.shape, bool)
    canvas._lungs[100:300, 100:300] = True
    opened.panel._opacity_slider.setValue(80)
    assert canvas.opacity == 0.8
    opaque = canvas.render_rgb()
    opened.panel._opacity_slider.setValue(20)
    assert not np.array_equal(canvas.render_rgb(), opaque)
    opened.menus.actions["show_lungs"].trigger()
    grey = canvas.render_rgb()
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert not opened.panel._show_lungs.isChecked()


def test_overlay_and_result_are_saved(opened: Window, tmp_path: Path, model_folder: Path) -> None:
    opened.save_overlay(str(tmp_path / "o.png"))
    opened.save_result(str(tmp_path / "r.json"))
    wait_until(lambda: "r.json" in opened.statusBar().currentMessage())
    with Image.open(tmp_path / "o.png") as image:
        assert np.array_equal(np.asarray(image), opened.canvas.render_rgb())
    record = json.loads((tmp_path / "r.json").read_text())
    analyzer = ImageAnalyzer(str(model_folder))
    expected = analyzer.to_record(analyzer.analyze(opened.files[0]))
    del record["seconds"], expected["seconds"]
    assert record == expected


def test_a_save_error_is_shown(opened: Window, tmp_path: Path) -> None:
    opened.save_result(str(tmp_path / "none" / "r.json"))
    wait_until(lambda: opened.statusBar().currentMessage().startswith("Save failed"))


def test_a_dropped_model_analyzes_the_open_image(opened: Window, other_model_folder: Path) -> None:
    event = QDropEvent(
        QPointF(9, 9),
        Qt.DropAction.CopyAction,
        create_drop_data(other_model_folder),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    opened.dropEvent(event)
    wait_until(lambda: opened.analysis is not None)
    assert opened.analysis.prediction.label in ("D", "E", "F")


def create_drop_data(path: Path) -> QMimeData:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    create_drop_data.data = data  # type: ignore[attr-defined]  # Qt does not own it
    return data


def test_a_folder_without_a_model_is_an_error(window: Window, tmp_path: Path, folder: Path) -> None:
    window.open_model(str(tmp_path))
    window.open_files([str(folder / "0-grey.png")])
    wait_until(lambda: ENGLISH.model_error in visible_text(window))
    assert "metadata.json" in visible_text(window)
    assert window.analysis is None


def test_an_empty_folder_is_reported(window: Window, tmp_path: Path) -> None:
    window.open_files([str(tmp_path)])
    wait_until(lambda: window.statusBar().currentMessage() == f"No images in {tmp_path.name}")


def test_without_a_model_the_window_shows_how_to_open_one(window: Window) -> None:
    assert ENGLISH.no_model in visible_text(window)


def collect_texts(window: Window) -> set[str]:
    """Return every text of the window and its menus, visible or not."""
    actions = {action.text() for action in window.findChildren(QAction) if action.text()}
    menus = {menu.title() for menu in window.findChildren(QMenu) if menu.title()}
    labels = {label.text().strip() for label in window.findChildren(QLabel)}
    buttons = {button.text() for button in window.findChildren(QAbstractButton)}
    canvas = {window.canvas._headline, window.canvas._detail}
    status = {window.statusBar().currentMessage(), window.windowTitle()}
    return {text for text in actions | menus | labels | buttons | canvas | status if text}


def split_at_placeholders(strings: Strings) -> set[str]:
    """Return the parts between the placeholders of all texts of a language."""
    values: list[Any] = [getattr(strings, name) for name in strings.__dataclass_fields__]
    nested = [value.values() if isinstance(value, dict) else [value] for value in values]
    texts = [text for group in nested for text in group]
    parts = {part.strip(" ,;:.%") for text in texts for part in text.split("{}")}
    return {part for part in parts if len(part) > 2}


@pytest.mark.parametrize("index", [0, 2])
def test_the_spanish_window_has_no_english_text(
    opened: Window, settings: QSettings, index: int
) -> None:
    opened.analysis = None
    opened.go_to(index)
    wait_until(shows_file(opened, index))
    opened._show_memory()
    english = collect_texts(opened)
    opened.menus.actions["es"].trigger()
    assert settings.value("language") == "es"
    spanish = collect_texts(opened)
    only_english = split_at_placeholders(ENGLISH) - split_at_placeholders(SPANISH) - {"English"}
    untranslated = {text for text in spanish for part in only_english if part in text.split("\n")}
    assert untranslated == set()
    # Equal texts are data: names of classes, files, languages and models, numbers, details.
    for text in english & spanish:
        assert not any(part in text for part in only_english), text
    assert SPANISH.research_notice in spanish
    opened.menus.actions["en"].trigger()
    assert collect_texts(opened) == english


def test_the_window_responds_during_an_inference(
    window: Window, model_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The analysis blocks until the window has handled a key."""
    started, released = threading.Event(), threading.Event()
    analyze = ImageAnalyzer.analyze

    def analyze_slowly(self: ImageAnalyzer, path: str, with_view: bool = False) -> Any:
        started.set()
        assert released.wait(TIMEOUT)
        return analyze(self, path, with_view)

    monkeypatch.setattr(ImageAnalyzer, "analyze", analyze_slowly)
    window.open_model(str(model_folder))
    window.open_files([str(folder)])
    wait_until(started.is_set)
    QTest.keyClick(window, Qt.Key.Key_Right)
    assert window.index == 1
    assert window.analysis is None
    released.set()
    wait_until(shows_file(window, 1))


def test_the_last_model_is_saved_in_the_settings(
    opened: Window, settings: QSettings, model_folder: Path
) -> None:
    assert settings.value("model") == str(model_folder)
