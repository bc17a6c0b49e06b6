"""`MODEL_CARD.md` of a model folder: the content of `metadata.json` for human readers.

After Mitchell et al., Model Cards for Model Reporting (2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from eagle_spark.metrics.evaluation import GroupMetrics, Metrics
from eagle_spark.metrics.record import Interval
from eagle_spark.model.metadata import GateResult, ModelMetadata
from eagle_spark.model.review import FLAG_MEANINGS, Flag

OUT_OF_SCOPE_USES = (
    "Diagnosis, triage or treatment of patients.",
    "Images other than chest X-rays of one frontal view: the model assigns one of its classes to "
    "any image.",
    "Detecting diseases other than its classes, or ruling out disease: the model has no output for "
    "either.",
    "Archives, scanners and programs that are not in its data, unless `evaluate` has measured the "
    "model on labelled images from there.",
)
METRIC_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "ece": "expected calibration error",
    "dice": "Dice of the lungs",
    "iou": "IoU of the lungs",
    "hausdorff95": "Hausdorff 95 of the lungs, pixels",
}
CLASS_METRIC_TITLES = {"recall": "recall", "precision": "precision", "f1": "F1", "auroc": "AUROC"}
_PATH_SETTINGS = ("warehouse", "model", "weights", "resume", "overwrite")


def render_model_card(metadata: ModelMetadata) -> str:
    """Render a model's metadata as Markdown; sections without data are marked as such."""
    parts = [
        "# Model card",
        f"`{metadata.model_id}`",
        "## Intended use",
        metadata.intended_use,
        "## Out-of-scope use",
        _render_list(OUT_OF_SCOPE_USES),
        "## Architecture",
        *_architecture(metadata),
        "## Data",
        *_data(metadata),
        "## Metrics",
        *_metrics(metadata),
        "## Unseen sources",
        *_left_out(metadata.left_out),
        "## Confidence",
        *_confidence(metadata),
        "## Engines",
        *_engines(metadata.engines),
        "## Versions",
        render_table(("program", "version"), sorted(metadata.versions.items())),
        "`metadata.json` holds the digest of every file, and all values above with more digits.",
    ]
    return "\n\n".join(parts) + "\n"


def _architecture(metadata: ModelMetadata) -> Iterator[str]:
    size = metadata.input.size
    yield (
        f"A frozen MobileNetV2 over one grey channel with two heads: a class head "
        f"({', '.join(metadata.classes)}) and a decoder for the lungs. Input: {size} x {size} "
        f"pixels of 8 bits; normalisation: {metadata.input.normalisation}."
    )
    if settings := metadata.training.settings:
        shown = {name: value for name, value in settings.items() if name not in _PATH_SETTINGS}
        yield "Settings: " + ", ".join(f"{name} {value}" for name, value in sorted(shown.items()))


def _data(metadata: ModelMetadata) -> Iterator[str]:
    training, classes = metadata.training, metadata.classes
    if not training.images:
        yield "Not recorded."
        return
    yield render_table(
        ("class", *training.images),
        [
            (label, *(counts.get(label, 0) for counts in training.images.values()))
            for label in classes
        ],
    )
    yield render_table(
        ("source (train split)", *classes),
        [
            (source, *(counts.get(label, 0) for label in classes))
            for source, counts in training.sources.items()
        ],
    )
    yield (
        f"{training.audited} images were audited before training: no patient, copy or "
        "near duplicate occurs in two splits. Labels and masks are those of the collections. "
        f"Table `{training.table}`, snapshot {training.snapshot_id}."
    )


def _metrics(metadata: ModelMetadata) -> Iterator[str]:
    test = metadata.test_metrics
    if not test.images:
        yield "Not measured."
        return
    yield (
        f"On {test.images} test images of {test.patients} patients, held out from training "
        "and every choice; 95 % bootstrap intervals over patients."
    )
    groups: list[tuple[str, GroupMetrics]] = [("all", test), *test.by_source.items()]
    yield render_table(
        ("group", "images", *METRIC_TITLES.values()),
        [
            (name, group.images, *(_format_metric(*group.select(name)) for name in METRIC_TITLES))
            for name, group in groups
        ],
    )
    yield render_table(
        ("class", *CLASS_METRIC_TITLES.values()),
        [
            (
                label,
                *(_format_metric(*test.select_class(name, label)) for name in CLASS_METRIC_TITLES),
            )
            for label in metadata.classes
        ],
    )


def _left_out(left_out: Metrics) -> Iterator[str]:
    if not left_out.images:
        yield (
            "Not measured: this evaluation requires several sources and cached features. Expect "
            "lower values than above."
        )
        return
    yield (
        "Each source, predicted by a class head that was trained on the other sources alone. "
        "Expect these values, not those above, on images from elsewhere."
    )
    yield render_table(
        ("source", "images", "accuracy", "balanced accuracy"),
        [
            (
                source,
                group.images,
                _format_metric(*group.select("accuracy")),
                _format_metric(*group.select("balanced_accuracy")),
            )
            for source, group in left_out.by_source.items()
        ],
    )


def _confidence(metadata: ModelMetadata) -> Iterator[str]:
    calibration = metadata.calibration.get("test")
    if not calibration:
        yield "Not measured."
        return
    yield (
        f"Temperature {metadata.training.temperature:.2f}, fitted on the validation split. "
        f"Expected calibration error on the test split: {calibration.ece_before:.3f} before, "
        f"{calibration.ece:.3f} after. The most confident {calibration.coverage_98:.2f} of "
        "its images have an accuracy of 0.98."
    )
    if metadata.review.novelty:
        yield "A prediction needs review for one or more reasons:"
        yield _render_list(f"`{flag}`: {FLAG_MEANINGS[flag]}." for flag in Flag)
        yield (
            f"The threshold of the confidence is {metadata.review.confidence:.3f}. Nearly all "
            "images of a hospital with other acquisition or processing need review."
        )
    if shares := metadata.flagged:
        reasons = list(next(iter(shares.values())))
        yield "Share of images that need review, by reason:"
        yield render_table(
            ("split", *reasons),
            [
                (split, *(_format_value(share.get(reason)) for reason in reasons))
                for split, share in shares.items()
            ],
        )


def _engines(engines: Mapping[str, GateResult]) -> Iterator[str]:
    yield render_table(
        ("engine", "precision", "passed the gate", "share of equal labels"),
        [
            (
                name,
                result.precision,
                "yes" if result.passed else "no",
                _format_value(result.labels_equal),
            )
            for name, result in engines.items()
        ],
    )


def _format_metric(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    if not interval:
        return _format_value(value)
    low, high = interval
    return f"{_format_value(value)} ({_format_value(low)} to {_format_value(high)})"


def _format_value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 2 else f"{value:.1f}"


def _render_list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def render_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Render a Markdown table; cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_escape_cell, line))} |" for line in lines)


def _escape_cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
