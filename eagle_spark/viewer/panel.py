"""Side panel: prediction, display controls, model and file information."""

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

from eagle_spark.model.predictor import REJECTED, SCORED, Prediction
from eagle_spark.viewer.canvas import MUTED_COLOUR, TEXT_COLOUR
from eagle_spark.viewer.examine import ImageAnalysis, ImageAnalyzer, split_lung_area
from eagle_spark.viewer.facts import format_engine, format_metrics, format_model_name
from eagle_spark.viewer.picture import DEFAULT_LEVEL, DEFAULT_WIDTH
from eagle_spark.viewer.words import Strings

BAR_COLOUR, GROOVE_COLOUR = QColor("#5b6b7a"), QColor("#262d35")
MAX_BAR_COLOUR = QColor("#26a6f2")
INITIAL_OPACITY = 35  # per cent
PLACEHOLDER = "-"
_NO_PREDICTION = Prediction(REJECTED, image_id=None)


class ProbabilityBars(QWidget):
    """Bar chart of the class probabilities; the largest one is highlighted."""

    ROW_HEIGHT, BAR_HEIGHT = 40, 8

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[str, float, str]] = []

    def show_rows(self, rows: list[tuple[str, float, str]]) -> None:
        """Show rows of class, probability and formatted probability."""
        self._rows = rows
        self.setMinimumHeight(self.ROW_HEIGHT * len(rows))
        self.setAccessibleDescription(", ".join(f"{name} {text}" for name, _, text in rows))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(200, self.ROW_HEIGHT * len(self._rows))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        largest = max((probability for _, probability, _ in self._rows), default=0)
        for index, (name, probability, text) in enumerate(self._rows):
            top = index * self.ROW_HEIGHT
            line = QRectF(0, top, self.width(), self.ROW_HEIGHT - self.BAR_HEIGHT - 8)
            painter.setPen(TEXT_COLOUR if probability == largest else MUTED_COLOUR)
            bottom = Qt.AlignmentFlag.AlignBottom
            painter.drawText(line, bottom | Qt.AlignmentFlag.AlignRight, text)
            name_area = line.adjusted(0, 0, -72, 0)
            elided = painter.fontMetrics().elidedText(
                name, Qt.TextElideMode.ElideRight, int(name_area.width())
            )
            painter.drawText(name_area, bottom | Qt.AlignmentFlag.AlignLeft, elided)
            bar = QRectF(0, line.bottom() + 4, self.width(), self.BAR_HEIGHT)
            painter.setPen(Qt.PenStyle.NoPen)
            bar_colour = MAX_BAR_COLOUR if probability == largest else BAR_COLOUR
            for fraction, colour in ((1.0, GROOVE_COLOUR), (probability, bar_colour)):
                painter.setBrush(colour)
                filled = QRectF(bar.left(), bar.top(), bar.width() * fraction, bar.height())
                painter.drawRoundedRect(filled, self.BAR_HEIGHT / 2, self.BAR_HEIGHT / 2)


class Panel(QWidget):
    """The right-hand panel of the window."""

    opacity_changed = Signal(float)
    lungs_toggled = Signal(bool)
    window_reset = Signal()

    def __init__(self, strings: Strings) -> None:
        super().__init__()
        self.setObjectName("panel")
        self.setFixedWidth(350)
        self._strings = strings
        self._analysis: ImageAnalysis | None = None
        self._analyzer: ImageAnalyzer | None = None
        self._window = (DEFAULT_LEVEL, DEFAULT_WIDTH)
        self._megabytes = 0
        self._label, self._confidence = _text("label"), _text("large")
        self._review = _text("review")
        self._bars = ProbabilityBars()
        self._lung_area, self._lung_sides = _text(), _text("muted")
        self._opacity_slider = QSlider(Qt.Orientation.Horizontal)
        self._show_lungs = QCheckBox()
        self._window_values, self._reset = _text("muted"), QPushButton()
        self._model_name, self._metrics, self._engine = _text(), _text(), _text("muted")
        self._file_name, self._file_info = _text(), _text("muted")
        sections = ("class_probabilities", "lungs", "model", "image")
        self._headings = {name: _text("heading") for name in sections}
        self._opacity_label, self._window_label = QLabel(), QLabel()
        self._build_layout()
        self._connect()
        self.set_strings(strings)

    def _build_layout(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(18, 16, 18, 12)
        column.setSpacing(4)
        for widget in (self._label, self._confidence, self._review):
            column.addWidget(widget)
        self._add_section(column, "class_probabilities", self._bars)
        self._add_section(column, "lungs", self._lung_area, self._lung_sides)
        row = QHBoxLayout()
        row.addWidget(self._show_lungs)
        row.addWidget(self._opacity_label)
        row.addWidget(self._opacity_slider, 1)
        column.addLayout(row)
        row = QHBoxLayout()
        row.addWidget(self._window_label)
        row.addWidget(self._window_values, 1)
        row.addWidget(self._reset)
        column.addLayout(row)
        self._add_section(column, "model", self._model_name, self._metrics, self._engine)
        self._add_section(column, "image", self._file_name, self._file_info)
        column.addStretch(1)

    def _add_section(self, column: QVBoxLayout, name: str, *widgets: QWidget) -> None:
        line = QFrame()
        line.setObjectName("line")
        line.setFixedHeight(1)
        column.addSpacing(7)
        column.addWidget(line)
        column.addSpacing(3)
        for widget in (self._headings[name], *widgets):
            column.addWidget(widget)

    def _connect(self) -> None:
        self._opacity_slider.setRange(0, 100)
        self._opacity_slider.setValue(INITIAL_OPACITY)
        self._show_lungs.setChecked(True)
        self._show_lungs.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._reset.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._opacity_slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._opacity_slider.valueChanged.connect(
            lambda value: self.opacity_changed.emit(value / 100)
        )
        self._show_lungs.toggled.connect(self.lungs_toggled)
        self._reset.clicked.connect(self.window_reset)

    def set_strings(self, strings: Strings) -> None:
        """Set the language of all texts."""
        self._strings = strings
        for name, label in self._headings.items():
            label.setText(getattr(strings, name))
        self._opacity_label.setText(strings.opacity)
        self._show_lungs.setAccessibleName(strings.show_lungs.replace("&", ""))
        self._opacity_slider.setAccessibleName(strings.opacity)
        self._window_label.setText(strings.window)
        self._reset.setText(strings.reset)
        self.show_window(*self._window)
        self.show_model(self._analyzer)
        self.show_analysis(self._analysis)

    def show_window(self, level: float, width: float) -> None:
        """Show level and width of the grey-level window."""
        self._window = level, width
        self._window_values.setText(self._strings.window_values.format(round(level), round(width)))

    def set_lungs_visible(self, visible: bool) -> None:
        self._show_lungs.setChecked(visible)

    def show_model(self, analyzer: ImageAnalyzer | None) -> None:
        """Show name, test metrics and engine of the model; placeholders without one."""
        self._analyzer = analyzer
        if analyzer is None:
            for label in (self._model_name, self._metrics, self._engine):
                label.setText(PLACEHOLDER)
            return
        name, model_id = format_model_name(analyzer.bundle)
        self._model_name.setText(name)
        self._model_name.setToolTip(model_id)
        self._metrics.setText("\n".join(format_metrics(analyzer.bundle, self._strings)))
        self._engine.setText(format_engine(analyzer, self._strings))

    def show_memory(self, megabytes: int) -> None:
        self._megabytes = megabytes
        self._show_file_info()

    def show_analysis(self, analysis: ImageAnalysis | None) -> None:
        """Show the prediction; placeholders without one."""
        strings, self._analysis = self._strings, analysis
        prediction = analysis.prediction if analysis else _NO_PREDICTION
        self._label.setText(prediction.label or PLACEHOLDER)
        self._confidence.setText(
            " "
            if prediction.confidence is None
            else strings.confidence.format(strings.format_probability(prediction.confidence))
        )
        self._show_review(prediction)
        if prediction.mask is None or prediction.lung_area is None:
            classes = self._analyzer.bundle.metadata.classes if self._analyzer else ()
            self._bars.show_rows([(name, 0.0, PLACEHOLDER) for name in classes])
            self._lung_area.setText(PLACEHOLDER)
            self._lung_sides.setText(" ")
        else:
            self._bars.show_rows(
                [
                    (name, probability, strings.format_probability(probability))
                    for name, probability in prediction.probabilities.items()
                ]
            )
            self._lung_area.setText(
                strings.lung_area.format(strings.format_percent(prediction.lung_area))
            )
            left, right = map(strings.format_percent, split_lung_area(prediction.mask))
            self._lung_sides.setText(strings.lung_sides.format(left, right))
        self._file_name.setText(analysis.path.rpartition("/")[2] if analysis else PLACEHOLDER)
        self._file_name.setToolTip(analysis.path if analysis else "")
        self._show_file_info()

    def _show_review(self, prediction: Prediction) -> None:
        strings = self._strings
        self._review.setVisible(prediction.status == SCORED)
        if prediction.status != SCORED:
            self._review.setText("")
            return
        names = prediction.review_reasons
        reasons = "; ".join(strings.review_reasons.get(name, name) for name in names)
        text = f"{strings.needs_review}: {reasons}" if names else strings.no_review_flags
        self._review.setText(text)
        self._review.setProperty("alert", bool(names))
        self._review.style().polish(self._review)

    def _show_file_info(self) -> None:
        strings, analysis = self._strings, self._analysis
        lines = []
        if analysis and analysis.width:
            lines.append(strings.image_size.format(analysis.width, analysis.height))
        if analysis:
            read_ms, inference_ms = (round(1000 * seconds) for seconds in analysis.seconds)
            lines.append(strings.timing.format(read_ms, inference_ms))
        if self._megabytes:
            lines.append(strings.memory.format(self._megabytes))
        self._file_info.setText("\n".join(lines))


def _text(name: str = "") -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label
