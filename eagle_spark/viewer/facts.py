"""Text lines about a model, from its metadata, for the panel."""

from __future__ import annotations

from eagle_spark.model.bundle import Bundle
from eagle_spark.viewer.examine import ImageAnalyzer
from eagle_spark.viewer.words import Strings

# Name of the string -> name of the metric.
_METRICS = {"accuracy": "accuracy", "dice": "dice", "calibration_error": "ece"}


def format_model_name(bundle: Bundle) -> tuple[str, str]:
    """Return the folder name with the first 12 digits of the model id, and the whole id."""
    model_id = bundle.metadata.model_id
    return f"{bundle.path.name} ({model_id[:12]})", model_id


def format_metrics(bundle: Bundle, strings: Strings) -> list[str]:
    """Return one line per test metric, with its confidence interval where the metadata has one."""
    metrics = bundle.metadata.test_metrics
    lines = []
    for name, metric in _METRICS.items():
        value, interval = metrics.select(metric)
        if value is not None:
            text = strings.format_number(value, 3)
            if interval:
                text = strings.confidence_interval.format(
                    text, *(strings.format_number(bound, 3) for bound in interval)
                )
            lines.append(f"{getattr(strings, name)} {text}")
    if lines and metrics.images:
        lines.append(strings.test_set.format(metrics.images, metrics.patients))
    return lines or [strings.no_test_metrics]


def format_engine(analyzer: ImageAnalyzer, strings: Strings) -> str:
    return strings.verified_engine.format(analyzer.engine)
