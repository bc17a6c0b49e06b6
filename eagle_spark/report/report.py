"""The report job: an HTML file with the evaluation of a model and its limitations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from eagle_spark.errors import InputError, OutputError, require_extra
from eagle_spark.io import absolute_uri, resolve
from eagle_spark.metrics.calibration import Calibration
from eagle_spark.metrics.evaluation import Metrics
from eagle_spark.metrics.record import Interval
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import choose_engine
from eagle_spark.model.metadata import INTENDED_USE, ModelMetadata
from eagle_spark.model.predictor import ModelRef
from eagle_spark.report import charts, findings
from eagle_spark.report.curves import CURVES, draw_curves, parse_log
from eagle_spark.report.findings import RunSummary
from eagle_spark.report.occlusion import (
    OcclusionSummary,
    OcclusionWorker,
    compute_attributions,
    describe_occlusion,
    summarise_occlusion,
)
from eagle_spark.report.pictures import to_png_uri
from eagle_spark.report.probe import ProbeResult, probe_source, sample_features
from eagle_spark.settings import ReportSettings
from eagle_spark.spark.session import open_session, threads_per_task
from eagle_spark.tables import IMAGES, Warehouse
from eagle_spark.tables.runs import Run

if TYPE_CHECKING:
    import pandas as pd

PAGE, PLOTS, FIGURES = "report.html", "plots", "figures.json"
LOG = "logs/training_log.csv"
TARGET_RISK = 0.02  # dashed line of the risk-coverage chart


@dataclass(frozen=True)
class ReportResult:
    """Result of the report job.

    Attributes:
        report: path of `report.html`.
        figures: plots, relative to the folder `out`.
        pictures: test images of the occlusion analysis.
        bytes: size of `report.html`.
        model_id: id of the model.
        run_id: id of this run.
        seconds: wall time.
    """

    report: str
    figures: list[str]
    pictures: int
    bytes: int
    model_id: str
    run_id: str
    seconds: float


class Sections(TypedDict):
    """Values of the page and of `figures.json` that come from tables."""

    data_set: list[dict[str, object]]
    rejected: list[dict[str, object]]
    training_run: dict[str, object]
    runs: list[RunSummary]
    probe: ProbeResult | None
    shortcuts: list[OcclusionSummary]


def report(settings: ReportSettings) -> ReportResult:
    """Run the job: write `report.html`, `plots/*.png` and `figures.json` into the folder `out`.

    Raises:
        ModelError: when the model folder is incomplete or altered.
        InputError: when the warehouse does not exist, or has classes that the model does not have.
        OutputError: when the folder `out` is not writable.
        PlatformError: when the extra `report` is not installed.
    """
    require_extra("report")
    run = Run.begin("report", settings)
    storage, path = resolve(settings.warehouse)
    if not storage.exists(path):
        raise InputError(f"`warehouse` {settings.warehouse}: no such folder")
    out = Path(settings.out)
    check_output_folder(out)
    bundle = open_bundle(settings.model)
    metadata = bundle.metadata
    with open_session("report", settings.warehouse) as spark:
        warehouse = Warehouse(spark)
        model = ModelRef(
            absolute_uri(settings.model),
            metadata.model_id,
            choose_engine(bundle, "auto"),
            threads_per_task(spark),
        )
        snapshot = _find_training_snapshot(warehouse, metadata.training.snapshot_id)
        attributions = _compute_test_attributions(warehouse, snapshot, model, metadata.classes)
        features = findings.read_features(warehouse, metadata.training.backbone)
        sections: Sections = {
            "data_set": findings.count_images(warehouse, snapshot),
            "rejected": findings.count_rejects_by_job(warehouse, metadata.model_id),
            "training_run": findings.read_training_run(warehouse, metadata.run_id),
            "runs": findings.read_runs(warehouse),
            "probe": None if features is None else probe_source(sample_features(features)),
            "shortcuts": []
            if attributions is None
            else summarise_occlusion(attributions, metadata.classes),
        }
    plots = _draw_training_plots(bundle)
    page = render_page(metadata, sections, attributions, plots)
    _write_report(out, page, plots, {**sections, "card": metadata.to_dict()})
    return ReportResult(
        report=str(out / PAGE),
        figures=sorted(f"{PLOTS}/{name}" for name in plots),
        pictures=0 if attributions is None else len(attributions),
        bytes=len(page.encode()),
        model_id=metadata.model_id,
        run_id=run.run_id,
        seconds=run.seconds,
    )


def check_output_folder(out: Path) -> None:
    """Create the folder if necessary; raise OutputError unless it is writable."""
    try:
        (out / PLOTS).mkdir(parents=True, exist_ok=True)
        probe = out / ".eagle-write-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"`out` {out} cannot be written: {error}") from error


def _find_training_snapshot(warehouse: Warehouse, snapshot: int | None) -> int | None:
    """Return the training snapshot of `images`; None if this warehouse does not have it."""
    if snapshot is None or not warehouse.exists(IMAGES):
        return None
    rows = warehouse.spark.sql(f"SELECT snapshot_id FROM {IMAGES.full_name}.snapshots").collect()
    return snapshot if snapshot in [row.snapshot_id for row in rows] else None


def _compute_test_attributions(
    warehouse: Warehouse,
    snapshot: int | None,
    model: ModelRef,
    classes: tuple[str, ...],
) -> pd.DataFrame | None:
    if not warehouse.exists(IMAGES):
        return None
    images = warehouse.read_images(snapshot)
    test = images.where("split = 'test'")
    labels = {row.label for row in test.select("label").distinct().collect()}
    if unknown := sorted(labels - set(classes)):
        raise InputError(
            f"{IMAGES.full_name}: wanted images of the model's classes {list(classes)}; "
            f"got {unknown}"
        )
    attributions = compute_attributions(test, OcclusionWorker(model))
    return attributions if len(attributions) else None


def _draw_training_plots(bundle: Bundle) -> dict[str, bytes]:
    """Return the eight plots of the training log; empty for a model folder without log."""
    log = bundle.path / LOG
    return draw_curves(parse_log(log.read_bytes(), str(log))) if log.is_file() else {}


def render_page(
    metadata: ModelMetadata,
    sections: Sections,
    attributions: pd.DataFrame | None,
    plots: Mapping[str, bytes],
) -> str:
    """Return the HTML page; all names and texts are escaped.

    Args:
        metadata: of the model.
        sections: values of the tables.
        attributions: rows of `compute_attributions`.
        plots: file name -> PNG of each of `CURVES`; empty without training log.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("eagle_spark.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": _format_share,
        "number": _format_number,
        "interval": _format_interval,
    }
    classes, summaries = metadata.classes, sections["shortcuts"]
    page: str = environment.get_template("page.html").render(
        metadata=metadata,
        classes=classes,
        val=metadata.metrics.get("val", Metrics()),
        test=metadata.test_metrics,
        calibration=metadata.calibration.get("test"),
        charts=_draw_calibration_charts(metadata.calibration),
        gallery={}
        if attributions is None
        else findings.select_pictures(attributions, classes, metadata.review.confidence),
        interpretation=describe_occlusion(summaries, classes) if summaries else [],
        plots=[(curve.title, to_png_uri(plots[f"{curve.name}.png"])) for curve in CURVES if plots],
        intended_use=INTENDED_USE,
        **sections,
    )
    return page


def _draw_calibration_charts(calibration: Mapping[str, Calibration | None]) -> dict[str, str]:
    from markupsafe import Markup

    drawn = {}
    if test := calibration.get("test"):
        drawn["reliability"] = charts.draw_reliability(test.reliability_before, test.reliability)
        curves = {
            split: values.risk_coverage
            for split in ("val", "test")
            if (values := calibration.get(split))
        }
        drawn["risk_coverage"] = charts.draw_risk_coverage(curves, TARGET_RISK)
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 - drawn here


def _format_share(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _format_interval(ends: Interval | None, digits: int = 3) -> str:
    return "" if not ends else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _write_report(
    out: Path, page: str, plots: Mapping[str, bytes], figures: Mapping[str, object]
) -> None:
    try:
        for name, png in plots.items():
            (out / PLOTS / name).write_bytes(png)
        text = json.dumps(figures, indent=1, default=str, allow_nan=False)
        (out / FIGURES).write_text(text + "\n")
        partial = out / f".{PAGE}.partial"
        partial.write_text(page)
        partial.replace(out / PAGE)
    except OSError as error:
        raise OutputError(f"`out` {out} cannot be written: {error}") from error
