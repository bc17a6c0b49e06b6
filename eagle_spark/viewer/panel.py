"""What the model says, beside the picture."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from eagle_spark.model.answer import Answer
from eagle_spark.viewer.canvas import FAINT, TEXT
from eagle_spark.viewer.examine import Examination, Examiner, sides
from eagle_spark.viewer.facts import engine_line, figure_lines, name_lines
from eagle_spark.viewer.picture import LEVEL, WIDTH
from eagle_spark.viewer.words import Words

BAR, GROOVE, BEST = QColor("#5b6b7a"), QColor("#262d35"), QColor("#26a6f2")
OPACITY = 35  # per cent, at first
NOTHING = "-"


class Bars(QWidget):
    """Classes with their probabilities, the largest one coloured."""

    ROW, THICK = 40, 8

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[str, float, str]] = []

    def show_rows(self, rows: list[tuple[str, float, str]]) -> None:
        """Show rows of class, probability and the latter as text."""
        self._rows = rows
        self.setMinimumHeight(self.ROW * len(rows))
        self.setAccessibleDescription(", ".join(f"{name} {text}" for name, _, text in rows))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(200, self.ROW * len(self._rows))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        most = max((share for _, share, _ in self._rows), default=0)
        for number, (name, share, text) in enumerate(self._rows):
            top = number * self.ROW
            line = QRectF(0, top, self.width(), self.ROW - self.THICK - 8)
            painter.setPen(TEXT if share == most else FAINT)
            bottom = Qt.AlignmentFlag.AlignBottom
            painter.drawText(line, bottom | Qt.AlignmentFlag.AlignRight, text)
            room = line.adjusted(0, 0, -72, 0)
            shown = painter.fontMetrics().elidedText(
                name, Qt.TextElideMode.ElideRight, int(room.width())
            )
            painter.drawText(room, bottom | Qt.AlignmentFlag.AlignLeft, shown)
            bar = QRectF(0, line.bottom() + 4, self.width(), self.THICK)
            painter.setPen(Qt.PenStyle.NoPen)
            for width, colour in ((1.0, GROOVE), (share, BEST if share == most else BAR)):
                painter.setBrush(colour)
                part = QRectF(bar.left(), bar.top(), bar.width() * width, bar.height())
                painter.drawRoundedRect(part, self.THICK / 2, self.THICK / 2)


class Panel(QWidget):
    """The right side of the window."""

    opacity_changed = Signal(float)
    lungs_toggled = Signal(bool)
    window_reset = Signal()

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.setFixedWidth(350)
        self._words = words
        self._found: Examination | None = None
        self._examiner: Examiner | None = None
        self._window = (LEVEL, WIDTH)
        self._memory = 0
        self._label, self._confidence = _text("label"), _text("large")
        self._review = _text("review")
        self._bars = Bars()
        self._area, self._sides = _text(), _text("faint")
        self._opacity = QSlider(Qt.Orientation.Horizontal)
        self._lungs = QCheckBox()
        self._levels, self._reset = _text("faint"), QPushButton()
        self._name, self._figures, self._engine = _text(), _text(), _text("faint")
        self._file, self._cost = _text(), _text("faint")
        self._heads = {name: _text("head") for name in ("classes", "lungs", "model", "this_image")}
        self._opacity_name, self._window_name = QLabel(), QLabel()
        self._lay_out()
        self._connect()
        self.speak(words)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(18, 16, 18, 12)
        column.setSpacing(4)
        for widget in (self._label, self._confidence, self._review):
            column.addWidget(widget)
        self._section(column, "classes", self._bars)
        self._section(column, "lungs", self._area, self._sides)
        row = QHBoxLayout()
        row.addWidget(self._lungs)
        row.addWidget(self._opacity_name)
        row.addWidget(self._opacity, 1)
        column.addLayout(row)
        row = QHBoxLayout()
        row.addWidget(self._window_name)
        row.addWidget(self._levels, 1)
        row.addWidget(self._reset)
        column.addLayout(row)
        self._section(column, "model", self._name, self._figures, self._engine)
        self._section(column, "this_image", self._file, self._cost)
        column.addStretch(1)

    def _section(self, column: QVBoxLayout, head: str, *widgets: QWidget) -> None:
        line = QFrame()
        line.setObjectName("line")
        line.setFixedHeight(1)
        column.addSpacing(7)
        column.addWidget(line)
        column.addSpacing(3)
        for widget in (self._heads[head], *widgets):
            column.addWidget(widget)

    def _connect(self) -> None:
        self._opacity.setRange(0, 100)
        self._opacity.setValue(OPACITY)
        self._lungs.setChecked(True)
        self._lungs.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._reset.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._opacity.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._opacity.valueChanged.connect(lambda value: self.opacity_changed.emit(value / 100))
        self._lungs.toggled.connect(self.lungs_toggled)
        self._reset.clicked.connect(self.window_reset)

    def speak(self, words: Words) -> None:
        """Say everything in another language."""
        self._words = words
        for name, label in self._heads.items():
            label.setText(getattr(words, name))
        self._opacity_name.setText(words.opacity)
        self._lungs.setAccessibleName(words.lungs_on_off.replace("&", ""))
        self._opacity.setAccessibleName(words.opacity)
        self._window_name.setText(words.window)
        self._reset.setText(words.reset)
        self.show_window(*self._window)
        self.show_model(self._examiner)
        self.show_examination(self._found)

    def show_window(self, level: float, width: float) -> None:
        self._window = level, width
        self._levels.setText(self._words.window_hint.format(round(level), round(width)))

    def set_lungs_shown(self, shown: bool) -> None:
        self._lungs.setChecked(shown)

    def show_model(self, examiner: Examiner | None) -> None:
        self._examiner = examiner
        if examiner is None:
            for label in (self._name, self._figures, self._engine):
                label.setText(NOTHING)
            return
        name, model_id = name_lines(examiner.bundle)
        self._name.setText(name)
        self._name.setToolTip(model_id)
        self._figures.setText("\n".join(figure_lines(examiner.bundle, self._words)))
        self._engine.setText(engine_line(examiner, self._words))

    def show_memory(self, megabytes: int) -> None:
        self._memory = megabytes
        self._show_cost()

    def show_examination(self, found: Examination | None) -> None:
        """Show what was found, or that nothing is known."""
        words, self._found = self._words, found
        answer = found.answer if found else None
        self._label.setText(answer.label if answer else NOTHING)
        self._confidence.setText(
            words.confidence.format(words.chance(answer.confidence)) if answer else " "
        )
        self._show_review(answer)
        classes = self._examiner.bundle.classes if self._examiner else ()
        shares = answer.probabilities if answer else dict.fromkeys(classes, 0.0)
        self._bars.show_rows(
            [(name, p, words.chance(p) if answer else NOTHING) for name, p in shares.items()]
        )
        if answer:
            self._area.setText(words.of_image.format(words.percent(answer.lung_area)))
            left, right = map(words.percent, sides(answer.lungs))
            self._sides.setText(words.lung_sides.format(left, right))
        else:
            self._area.setText(NOTHING)
            self._sides.setText(" ")
        self._file.setText(found.path.rpartition("/")[2] if found else NOTHING)
        self._file.setToolTip(found.path if found else "")
        self._show_cost()

    def _show_review(self, answer: Answer | None) -> None:
        self._review.setVisible(answer is not None)
        if answer is None:
            self._review.setText("")
            return
        words = self._words
        why = "; ".join(words.reviews.get(name, name) for name in answer.reasons)
        text = f"{words.needs_review}: {why}" if answer.reasons else words.no_review
        self._review.setText(text)
        self._review.setProperty("alert", bool(answer.reasons))
        self._review.style().polish(self._review)

    def _show_cost(self) -> None:
        words, found = self._words, self._found
        lines = []
        if found and found.width:
            lines.append(words.pixels.format(found.width, found.height))
        if found:
            read, asked = (round(1000 * seconds) for seconds in found.seconds)
            lines.append(words.spent.format(read, asked))
        if self._memory:
            lines.append(words.memory.format(self._memory))
        self._cost.setText("\n".join(lines))


def _text(name: str = "") -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
