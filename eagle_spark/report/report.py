"""The report job: one HTML file that says what a model is worth, and what not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagle_spark.errors import InputError, OutputError
from eagle_spark.io import absolute_uri, locate
from eagle_spark.model.bundle import INTENDED_USE, Bundle, open_bundle
from eagle_spark.model.engines import choose_engine
from eagle_spark.report import charts, findings
from eagle_spark.report.curves import CURVES, draw_curves, parse_log
from eagle_spark.report.occlusion import Attributor, attributions, in_words, shortcut_figures
from eagle_spark.report.pictures import png_uri
from eagle_spark.report.probe import probe_rows, probe_source
from eagle_spark.settings import ReportSettings
from eagle_spark.spark.session import open_session, threads_per_task
from eagle_spark.tables import IMAGES, Warehouse
from eagle_spark.tables.runs import Run

if TYPE_CHECKING:
    import pandas as pd

PAGE, PLOTS, FIGURES = "report.html", "plots", "figures.json"
LOG = "logs/training_log.csv"


def report(settings: ReportSettings) -> dict[str, Any]:
    """Run the job: write `report.html`, `plots/*.png` and `figures.json` into the folder `out`.

    Raises:
        BundleError: when the model folder is incomplete or altered.
        InputError: when there is no such warehouse, or it holds classes that the model lacks.
        OutputError: when the folder cannot be written.
    """
    run = Run.begin("report", settings)
    storage, place = locate(settings.warehouse)
    if not storage.exists(place):
        raise InputError(f"--warehouse {settings.warehouse}: no such folder")
    out = Path(settings.out)
    check_folder(out)
    bundle = open_bundle(settings.model)
    training = bundle.metadata.get("training", {})
    with open_session("report", settings.warehouse) as spark:
        warehouse = Warehouse(spark)
        attributor = Attributor(
            absolute_uri(settings.model),
            bundle.model_id,
            choose_engine(bundle, "auto"),
            threads_per_task(spark),
        )
        snapshot = _snapshot(warehouse, training)
        rows = _attributions(warehouse, snapshot, attributor, bundle.classes)
        features = findings.features_of(warehouse, training.get("backbone"))
        found: dict[str, Any] = {
            "data_set": findings.data_set(warehouse, snapshot),
            "rejected": findings.rejected_images(warehouse, bundle.model_id),
            "training_run": findings.training_run(warehouse, bundle.metadata.get("run_id")),
            "runs": findings.runs(warehouse),
            "probe": None if features is None else probe_source(probe_rows(features)),
        }
    found["shortcuts"] = [] if rows is None else shortcut_figures(rows, bundle.classes)
    plots = _plots(bundle)
    page = render(bundle, found, rows, plots)
    _write(out, page, plots, {**found, "card": dict(bundle.metadata)})
    return {
        "report": str(out / PAGE),
        "figures": sorted(f"{PLOTS}/{name}" for name in plots),
        "pictures": 0 if rows is None else len(rows),
        "bytes": len(page.encode()),
        "model_id": bundle.model_id,
        "run_id": run.run_id,
        "seconds": run.seconds,
    }


def check_folder(out: Path) -> None:
    """Raise OutputError unless the folder is there, or can be made, and may be written to."""
    try:
        (out / PLOTS).mkdir(parents=True, exist_ok=True)
        probe = out / ".eagle-write-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written: {error}") from error


def _snapshot(warehouse: Warehouse, training: Mapping[str, Any]) -> int | None:
    """Return the snapshot of `images` that the model was trained on, if this warehouse has it."""
    wanted = training.get("snapshot_id")
    if wanted is None or not warehouse.exists(IMAGES):
        return None
    known = warehouse.spark.sql(f"SELECT snapshot_id FROM {IMAGES.full_name}.snapshots").collect()
    return wanted if wanted in [row.snapshot_id for row in known] else None


def _attributions(
    warehouse: Warehouse,
    snapshot: int | None,
    attributor: Attributor,
    classes: tuple[str, ...],
) -> pd.DataFrame | None:
    if not warehouse.exists(IMAGES):
        return None
    images = warehouse.read(IMAGES) if snapshot is None else warehouse.at(IMAGES, snapshot)
    test = images.where("split = 'test'")
    named = {row.label for row in test.select("label").distinct().collect()}
    if unknown := sorted(named - set(classes)):
        raise InputError(
            f"{IMAGES.full_name} holds images of {unknown}, the model knows {list(classes)}"
        )
    rows = attributions(test, attributor)
    return rows if len(rows) else None


def _plots(bundle: Bundle) -> dict[str, bytes]:
    """Return the eight plots of the training's log; nothing of a model without one."""
    log = bundle.path / LOG
    return draw_curves(parse_log(log.read_bytes(), str(log))) if log.is_file() else {}


def render(
    bundle: Bundle,
    found: Mapping[str, Any],
    rows: pd.DataFrame | None,
    plots: Mapping[str, bytes],
) -> str:
    """Return the page. Whatever names and texts hold, it is shown as text.

    Args:
        found: what the tables say, see `report`.
        rows: what `attributions` returns.
        plots: PNG of each of `CURVES`, by file name.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("eagle_spark.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"share": _share, "number": _number, "interval": _interval}
    card = bundle.metadata
    calibration = card.get("calibration") or {}
    text: str = page.get_template("page.html").render(
        card=card,
        classes=bundle.classes,
        metrics=card.get("metrics", {}),
        calibration=calibration,
        charts=_charts(calibration),
        gallery={}
        if rows is None
        else findings.gallery(rows, bundle.classes, bundle.limits.confidence),
        words=in_words(found["shortcuts"], bundle.classes) if found["shortcuts"] else [],
        plots=[(curve.title, png_uri(plots[f"{curve.name}.png"])) for curve in CURVES if plots],
        intended_use=INTENDED_USE,
        **found,
    )
    return text


def _charts(calibration: Mapping[str, Any]) -> dict[str, str]:
    from markupsafe import Markup

    drawn = {}
    if own := calibration.get("test"):
        drawn["reliability"] = charts.reliability(own["reliability_before"], own["reliability"])
        curves = {
            name: calibration[name]["risk_coverage"]
            for name in ("val", "test")
            if calibration.get(name)
        }
        drawn["risk_coverage"] = charts.risk_coverage(curves, 0.02)
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 - drawn here


def _share(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _interval(ends: tuple[float, float] | None, digits: int = 3) -> str:
    return "" if not ends else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def _write(out: Path, page: str, plots: Mapping[str, bytes], figures: Mapping[str, Any]) -> None:
    try:
        for name, picture in plots.items():
            (out / PLOTS / name).write_bytes(picture)
        text = json.dumps(figures, indent=1, default=str, allow_nan=False)
        (out / FIGURES).write_text(text + "\n")
        fresh = out / f".{PAGE}.partial"
        fresh.write_text(page)
        fresh.replace(out / PAGE)
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written: {error}") from error
