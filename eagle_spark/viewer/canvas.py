"""The X-ray itself: fitted to its room, lungs laid over, grey levels changed by dragging."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QImage, QMouseEvent, QPainter, QPaintEvent, QTextOption
from PySide6.QtWidgets import QWidget

from eagle_spark.viewer.picture import LEVEL, WIDTH, compose, grey_curve

GROUND = QColor("#0d1014")
TEXT, FAINT, ALERT = QColor("#dfe5ea"), QColor("#8b98a5"), QColor("#f0b23c")
MARGIN = 12
PER_PIXEL = 0.75  # grey levels that a pixel of dragging is worth


class Canvas(QWidget):
    """Shows a picture, or a message where there is none."""

    changed = Signal(float, float)  # level, width

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(QSize(280, 280))
        self.level, self.width_of_window = LEVEL, WIDTH
        self.opacity, self.lungs_shown = 0.35, True
        self._view: NDArray[np.uint8] | None = None
        self._lungs: NDArray[np.bool_] | None = None
        self._image: QImage | None = None
        self._headline, self._detail, self._alert = "", "", False
        self._held: QPointF | None = None

    def show_picture(self, view: NDArray[np.uint8], lungs: NDArray[np.bool_]) -> None:
        """Show a view `(height, width)` and the mask of the same shape."""
        self._view, self._lungs = view, lungs
        self._headline = self._detail = ""
        self._draw()

    def show_message(self, headline: str, detail: str = "", alert: bool = False) -> None:
        self._view = self._lungs = self._image = None
        self._headline, self._detail, self._alert = headline, detail, alert
        self.update()

    def colours(self) -> NDArray[np.uint8] | None:
        """Return what is shown as RGB `(height, width, 3)`."""
        if self._view is None:
            return None
        curve = grey_curve(self.level, self.width_of_window)
        return compose(self._view, self._lungs, curve, self.opacity if self.lungs_shown else 0.0)

    def set_opacity(self, opacity: float) -> None:
        self.opacity = opacity
        self._draw()

    def show_lungs(self, shown: bool) -> None:
        self.lungs_shown = shown
        self._draw()

    def set_window(self, level: float = LEVEL, width: float = WIDTH) -> None:
        """Choose which grey levels are spread from black to white."""
        self.level, self.width_of_window = min(max(level, 0), 255), min(max(width, 2), 512)
        self.changed.emit(self.level, self.width_of_window)
        self._draw()

    def _draw(self) -> None:
        colours = self.colours()
        if colours is not None:
            height, width, _ = colours.shape
            # The copy owns its pixels; the array may go.
            self._image = QImage(
                colours.data, width, height, 3 * width, QImage.Format.Format_RGB888
            ).copy()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), GROUND)
        if self._image is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(self._room(self._image), self._image)
        else:
            self._write(painter)

    def _room(self, image: QImage) -> QRectF:
        """Return the largest rectangle of the image's proportions, in the middle."""
        room = QRectF(self.rect()).adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)
        size = image.size().toSizeF().scaled(room.size(), Qt.AspectRatioMode.KeepAspectRatio)
        fitted = QRectF(QPointF(), size)
        fitted.moveCenter(room.center())
        return fitted

    def _write(self, painter: QPainter) -> None:
        room = QRectF(self.rect()).adjusted(48, 0, -48, 0)
        middle = room.center().y()
        font = QFont(self.font())
        font.setPointSizeF(font.pointSizeF() * 1.5)
        painter.setFont(font)
        painter.setPen(ALERT if self._alert else TEXT)
        upper = QRectF(room.left(), middle - 110, room.width(), 100)
        lower = QRectF(room.left(), middle + 2, room.width(), 200)
        option = QTextOption(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        painter.drawText(upper, self._headline, option)
        painter.setFont(self.font())
        painter.setPen(FAINT)
        option.setAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop)
        painter.drawText(lower, self._detail, option)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self._view is not None:
            self._held = event.position()
            self.setCursor(Qt.CursorShape.SizeAllCursor)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._held is None:
            return
        moved = event.position() - self._held
        self._held = event.position()
        # As in other viewers: downwards is brighter, to the right is softer.
        level = self.level - PER_PIXEL * moved.y()
        self.set_window(level, self.width_of_window + PER_PIXEL * moved.x())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._held = None
        self.unsetCursor()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.set_window()
