"""Questions for files and folders, in the window's language."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QFileDialog, QWidget

from eagle_spark.viewer.listing import SUFFIXES
from eagle_spark.viewer.words import Words


def ask_images(parent: QWidget, words: Words, start: str) -> list[str]:
    kinds = " ".join(f"*{suffix} *{suffix.upper()}" for suffix in SUFFIXES)
    filters = (f"{words.image_files} ({kinds})", f"{words.all_files} (*)")
    dialog = _dialog(parent, words, words.open_image, start, filters)
    dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
    return _chosen(dialog)


def ask_folder(parent: QWidget, words: Words, title: str, start: str) -> list[str]:
    dialog = _dialog(parent, words, title, start)
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    return _chosen(dialog)


def ask_target(parent: QWidget, words: Words, title: str, kind: str, path: str) -> list[str]:
    """Ask where to write a file of a kind such as `PNG images (*.png)`; `path` is proposed."""
    dialog = _dialog(parent, words, title, filters=(kind,))
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.selectFile(path)
    return _chosen(dialog)


def _dialog(
    parent: QWidget, words: Words, title: str, start: str = "", filters: Sequence[str] = ()
) -> QFileDialog:
    dialog = QFileDialog(parent, title.replace("&", ""), start)
    dialog.setNameFilters(filters)
    # Qt's own Spanish has gaps here.
    dialog.setLabelText(QFileDialog.DialogLabel.LookIn, words.look_in)
    dialog.setLabelText(QFileDialog.DialogLabel.FileType, words.file_type)
    return dialog


def _chosen(dialog: QFileDialog) -> list[str]:
    return dialog.selectedFiles() if dialog.exec() else []
