"""File and folder dialogs in the language of the window."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QFileDialog, QWidget

from eagle_spark.viewer.listing import SUFFIXES
from eagle_spark.viewer.words import Strings


def select_images(parent: QWidget, strings: Strings, folder: str) -> list[str]:
    patterns = " ".join(f"*{suffix} *{suffix.upper()}" for suffix in SUFFIXES)
    filters = (f"{strings.image_files} ({patterns})", f"{strings.all_files} (*)")
    dialog = _create_dialog(parent, strings, strings.open_images, folder, filters)
    dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
    return _run_dialog(dialog)


def select_folder(parent: QWidget, strings: Strings, title: str, folder: str) -> list[str]:
    dialog = _create_dialog(parent, strings, title, folder)
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    return _run_dialog(dialog)


def select_save_path(
    parent: QWidget, strings: Strings, title: str, name_filter: str, path: str
) -> list[str]:
    """Return the path to save a file under; empty if the user cancels the dialog.

    Args:
        parent: window of the dialog.
        strings: language of the dialog.
        title: menu text; its mnemonic is removed.
        name_filter: Qt name filter such as `PNG images (*.png)`.
        path: initial path.
    """
    dialog = _create_dialog(parent, strings, title, filters=(name_filter,))
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.selectFile(path)
    return _run_dialog(dialog)


def _create_dialog(
    parent: QWidget, strings: Strings, title: str, folder: str = "", filters: Sequence[str] = ()
) -> QFileDialog:
    dialog = QFileDialog(parent, title.replace("&", ""), folder)
    dialog.setNameFilters(filters)
    # Qt's Spanish translation is incomplete here.
    dialog.setLabelText(QFileDialog.DialogLabel.LookIn, strings.look_in)
    dialog.setLabelText(QFileDialog.DialogLabel.FileType, strings.file_type)
    return dialog


def _run_dialog(dialog: QFileDialog) -> list[str]:
    return dialog.selectedFiles() if dialog.exec() else []
