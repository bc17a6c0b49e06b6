"""The last step of `make results`: tables and plots of two trainings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from eagle_spark.errors import InputError
from eagle_spark.metrics.evaluation import GroupMetrics
from eagle_spark.metrics.record import Interval
from eagle_spark.model.card import render_table
from eagle_spark.model.metadata import ModelMetadata
from eagle_spark.model.occlusion import IMAGE_VARIANTS
from eagle_spark.report.occlusion import OcclusionSummary, describe_occlusion
from eagle_spark.report.probe import ProbeResult
from eagle_spark.report.report import FIGURES, PLOTS

TRAININGS = {"one": "The small collection alone", "both": "Both collections"}
PAGE = "accuracy.md"
BEGIN, END = "<!-- begin: make results -->", "<!-- end: make results -->"


class ReportFigures(TypedDict):
    """The values of `figures.json` that the page holds; `card` is `metadata.json` of the model."""

    card: Mapping[str, object]
    shortcuts: Sequence[OcclusionSummary]
    probe: ProbeResult | None


class ExternalFigures(TypedDict):
    """The values of the result of `evaluate` that the page holds."""

    accuracy: float
    images: int
    wrong: int
    wrong_flagged: int
    right_flagged: int
    intervals: Mapping[str, Interval]
    drift: float | None
    out_of_range: bool | None


def metrics_table(metadata: ModelMetadata) -> str:
    """Return the metrics of the test split, of all images and of each source."""
    test = metadata.test_metrics
    groups: list[tuple[str, GroupMetrics]] = [("all", test), *test.by_source.items()]
    names = ("accuracy", "balanced_accuracy", "ece", "dice", "iou", "hausdorff95")
    rows = [
        (source, group.images, *(format_value(*group.select(name)) for name in names))
        for source, group in groups
    ]
    return render_table(("test split", "images", *names), rows)


def format_value(
    value: float | None, interval: Interval | None = None, digits: int | None = None
) -> str:
    if value is None:
        return "-"
    digits = digits or (1 if value > 2 else 3)
    ends = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
    return f"{value:.{digits}f}{ends}"


def confusion_table(metadata: ModelMetadata) -> str:
    classes, cells = metadata.classes, metadata.test_metrics.confusion
    rows = [(label, *row) for label, row in zip(classes, cells, strict=True)]
    return render_table(("true class (row), predicted class (column)", *classes), rows)


def occlusion_table(summaries: Iterable[OcclusionSummary]) -> str:
    return render_table(
        ("source", "class", "images", *IMAGE_VARIANTS, "importance in lungs", "area of lungs"),
        [
            (
                *(summary["source"], summary["label"], summary["images"]),
                *(format_value(summary["accuracy"][name], digits=2) for name in IMAGE_VARIANTS),
                *(format_value(share, digits=2) for share in (summary["inside"], summary["area"])),
            )
            for summary in summaries
        ],
    )


def leave_one_source_out_table(metadata: ModelMetadata) -> str:
    return render_table(
        ("held-out source", "images", "accuracy", "balanced accuracy", "ece"),
        [
            (
                *(source, group.images),
                format_value(*group.select("accuracy")),
                *(format_value(group.balanced_accuracy), format_value(group.ece)),
            )
            for source, group in metadata.left_out.by_source.items()
        ],
    )


def render_results(reports: Mapping[str, ReportFigures], external: ExternalFigures) -> str:
    """Return Markdown of both trainings.

    Args:
        reports: training -> its `figures.json`.
        external: result of `evaluate` for the small collection's model on the large collection.
    """
    parts = []
    for name, title in TRAININGS.items():
        figures = reports[name]
        metadata = ModelMetadata.model_validate(figures["card"])
        parts += [f"## {title}", metrics_table(metadata), confusion_table(metadata)]
        if calibration := metadata.calibration.get("test"):
            parts.append(
                f"Expected calibration error (ECE) of the test split: "
                f"{calibration.ece_before:.3f} before and {calibration.ece:.3f} after "
                f"temperature scaling; accuracy is 0.98 on the most confident "
                f"{calibration.coverage_98:.2f} of its images."
            )
        if metadata.left_out.images:
            parts.append(leave_one_source_out_table(metadata))
        parts += [" ".join(describe_occlusion(figures["shortcuts"], metadata.classes))]
        parts += [occlusion_table(figures["shortcuts"])]
        if probe := figures["probe"]:
            parts.append(
                f"A linear probe predicts the source of {probe['images']} validation images with a "
                f"balanced accuracy of {probe['balanced_accuracy']:.2f}; chance level is "
                f"{probe['chance']:.2f}."
            )
        if name == "one":
            parts.append("### External validation on the large collection")
            parts.append(describe_external_validation(external))
        parts.append(" ".join(f"![{plot}]({name}/{plot}.png)" for plot in ("accuracy", "loss")))
    return "\n\n".join(parts)


def replace_figures(page: str, figures: str) -> str:
    """Replace the figures between the two marks of a page.

    Raises:
        InputError: when the page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{PAGE}: wanted the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def describe_external_validation(result: ExternalFigures) -> str:
    low, high = result["intervals"]["accuracy"]
    correct = result["images"] - result["wrong"]
    return (
        f"Accuracy is {result['accuracy']:.3f} [{low:.3f}, {high:.3f}] on {result['images']} "
        f"images. `needs_review` flags {result['wrong_flagged']} of {result['wrong']} wrong and "
        f"{result['right_flagged']} of {correct} correct predictions. Drift (largest PSI): "
        f"{result['drift']}; out of range: {result['out_of_range']}."
    )


def write_results(work: Path, out: Path) -> None:
    """Write the figures and the plots of the trainings in `work` into the folder `out`."""
    reports = {
        name: json.loads((work / f"{name}.report" / FIGURES).read_text()) for name in TRAININGS
    }
    external = json.loads((work / "unseen.json").read_text())
    page = out / PAGE
    page.write_text(replace_figures(page.read_text(), render_results(reports, external)))
    for name in TRAININGS:
        shutil.copytree(work / f"{name}.report" / PLOTS, out / name, dirs_exist_ok=True)
