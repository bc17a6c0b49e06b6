"""Image canvas: the X-ray with the lung overlay; dragging changes the grey-level window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QImage, QMouseEvent, QPainter, QPaintEvent, QTextOption
from PySide6.QtWidgets import QWidget

from eagle_spark.viewer.picture import (
    DEFAULT_LEVEL,
    DEFAULT_WIDTH,
    compute_window_lut,
    render_overlay,
)

BACKGROUND = QColor("#0d1014")
TEXT_COLOUR, MUTED_COLOUR, ALERT_COLOUR = QColor("#dfe5ea"), QColor("#8b98a5"), QColor("#f0b23c")
MARGIN = 12
LEVELS_PER_PIXEL = 0.75  # change of level and width per pixel of dragging


class Canvas(QWidget):
    """Shows an image, or a message while there is none."""

    window_changed = Signal(float, float)  # level, width

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(QSize(280, 280))
        self.window_level, self.window_width = DEFAULT_LEVEL, DEFAULT_WIDTH
        self.opacity, self.lungs_visible = 0.35, True
        self._view: NDArray[np.uint8] | None = None
        self._lungs: NDArray[np.bool_] | None = None
        self._image: QImage | None = None
        self._headline, self._detail, self._is_alert = "", "", False
        self._drag_position: QPointF | None = None

    def show_image(self, view: NDArray[np.uint8], lungs: NDArray[np.bool_]) -> None:
        """Show a view `(height, width)` with the lung mask of the same shape."""
        self._view, self._lungs = view, lungs
        self._headline = self._detail = ""
        self._redraw()

    def show_message(self, headline: str, detail: str = "", is_alert: bool = False) -> None:
        self._view = self._lungs = self._image = None
        self._headline, self._detail, self._is_alert = headline, detail, is_alert
        self.update()

    def render_rgb(self) -> NDArray[np.uint8] | None:
        """Return the displayed image as RGB `(height, width, 3)`; None if there is none."""
        if self._view is None:
            return None
        lut = compute_window_lut(self.window_level, self.window_width)
        opacity = self.opacity if self.lungs_visible else 0.0
        return render_overlay(self._view, self._lungs, lut, opacity)

    def set_opacity(self, opacity: float) -> None:
        self.opacity = opacity
        self._redraw()

    def set_lungs_visible(self, visible: bool) -> None:
        self.lungs_visible = visible
        self._redraw()

    def set_window(self, level: float = DEFAULT_LEVEL, width: float = DEFAULT_WIDTH) -> None:
        """Set the grey-level window, clipped to levels 0 to 255 and widths 2 to 512."""
        self.window_level, self.window_width = min(max(level, 0), 255), min(max(width, 2), 512)
        self.window_changed.emit(self.window_level, self.window_width)
        self._redraw()

    def _redraw(self) -> None:
        rgb = self.render_rgb()
        if rgb is not None:
            height, width, _ = rgb.shape
            # QImage only refers to the array's memory; the copy owns its pixels.
            self._image = QImage(
                rgb.data, width, height, 3 * width, QImage.Format.Format_RGB888
            ).copy()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), BACKGROUND)
        if self._image is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(self._fit_to_widget(self._image), self._image)
        else:
            self._draw_message(painter)

    def _fit_to_widget(self, image: QImage) -> QRectF:
        """Return the largest centred rectangle with the aspect ratio of the image."""
        area = QRectF(self.rect()).adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)
        size = image.size().toSizeF().scaled(area.size(), Qt.AspectRatioMode.KeepAspectRatio)
        fitted = QRectF(QPointF(), size)
        fitted.moveCenter(area.center())
        return fitted

    def _draw_message(self, painter: QPainter) -> None:
        area = QRectF(self.rect()).adjusted(48, 0, -48, 0)
        centre = area.center().y()
        font = QFont(self.font())
        font.setPointSizeF(font.pointSizeF() * 1.5)
        painter.setFont(font)
        painter.setPen(ALERT_COLOUR if self._is_alert else TEXT_COLOUR)
        headline_area = QRectF(area.left(), centre - 110, area.width(), 100)
        detail_area = QRectF(area.left(), centre + 2, area.width(), 200)
        option = QTextOption(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom)
        option.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        painter.drawText(headline_area, self._headline, option)
        painter.setFont(self.font())
        painter.setPen(MUTED_COLOUR)
        option.setAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop)
        painter.drawText(detail_area, self._detail, option)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self._view is not None:
            self._drag_position = event.position()
            self.setCursor(Qt.CursorShape.SizeAllCursor)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._drag_position is None:
            return
        offset = event.position() - self._drag_position
        self._drag_position = event.position()
        # As in other viewers: dragging down brightens, dragging right lowers the contrast.
        level = self.window_level - LEVELS_PER_PIXEL * offset.y()
        self.set_window(level, self.window_width + LEVELS_PER_PIXEL * offset.x())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._drag_position = None
        self.unsetCursor()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.set_window()
