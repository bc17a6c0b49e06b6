"""Export a model to ONNX and LiteRT inside its own folder: `eagle export --model URI`."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from eagle_spark.errors import EagleError, require_extra
from eagle_spark.model.bundle import Bundle, check_target, open_bundle, publish_bundle, seal
from eagle_spark.model.engines import ENGINES, KerasEngine
from eagle_spark.model.export import save_portable
from eagle_spark.model.gate import compare_with_reference
from eagle_spark.model.metadata import GOLDEN, GateResult
from eagle_spark.settings import ExportSettings

EXPORTERS = {"onnx": ("onnx", "tf2onnx"), "litert": ()}  # packages, besides the engine's own
# ONNX takes any batch size. LiteRT's own compilers require a fixed shape; one image at a time is
# as fast on CPUs.
BATCH_SIZES = {"onnx": None, "litert": 1}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """Result of an export.

    Attributes:
        model_id: id of the model.
        engines: format -> `GateResult`.
        bytes: format -> size in bytes.
        seconds: wall time.
    """

    model_id: str
    engines: Mapping[str, Mapping[str, object]]
    bytes: Mapping[str, int]
    seconds: float


def add_exports(settings: ExportSettings) -> ExportResult:
    """Add exported formats and their gate results to a model folder.

    The folder is replaced in one step; its model id does not change.

    Raises:
        PlatformError: when a package that writes or runs a format is not installed.
        ModelError: when the model folder is invalid, or was replaced during the export.
        OutputError: when the folder cannot be written.
        EagleError: when an export fails its gate; it stays in the folder, and `choose_engine`
            never selects it.
    """
    started = time.perf_counter()
    formats = settings.format.split(",")
    check_installed(formats)
    bundle = open_bundle(settings.model)
    check_target(settings.model, overwrite=True)
    with tempfile.TemporaryDirectory(prefix="eagle-export-") as name:
        folder = Path(name, "model")
        shutil.copytree(bundle.path, folder, symlinks=True)
        metadata = bundle.metadata
        gate_results = export_formats(open_bundle(str(folder), metadata.model_id), formats)
        engines = {**metadata.engines, **gate_results}
        model_id = seal(folder, metadata.model_copy(update={"engines": engines})).metadata.model_id
        open_bundle(settings.model, model_id)
        publish_bundle(folder, settings.model, overwrite=True)
        result = ExportResult(
            model_id,
            {name: gate_result.to_dict() for name, gate_result in gate_results.items()},
            {name: (folder / ENGINES[name].file).stat().st_size for name in formats},
            round(time.perf_counter() - started, 1),
        )
    if failed := [name for name in formats if not gate_results[name].passed]:
        error = EagleError(
            f"`model` {settings.model}: the outputs of {', '.join(failed)} differ from those of "
            "Keras; kept, but marked as not passed"
        )
        error.figures = asdict(result)
        raise error
    return result


def check_installed(formats: Sequence[str]) -> None:
    """Check that the packages that write and run these formats are installed.

    Raises:
        PlatformError: names the first missing package.
    """
    for name in formats:
        packages = (*EXPORTERS[name], ENGINES[name].package)
        require_extra("exports", *packages, purpose=f"`format` {name}")
    require_extra("train", "tensorflow", "keras", purpose="the export")


def export_formats(bundle: Bundle, formats: Sequence[str]) -> dict[str, GateResult]:
    """Write the formats into a model folder and compare each with Keras on its golden images.

    Returns:
        Format -> gate result, see `compare_with_reference`.
    """
    reference = KerasEngine(bundle.path, 1)
    with np.load(bundle.path / GOLDEN, allow_pickle=False) as golden:
        pixels = golden["pixels"]
    expected = reference.predict(pixels)
    gate_results = {}
    for name in formats:
        _log.info("exporting %s", name)
        kind = ENGINES[name]
        save_portable(reference.model, bundle.path / kind.file, name, BATCH_SIZES[name])
        engine = kind.load(bundle.path, 1)
        gate_results[name] = compare_with_reference(
            engine, pixels, expected, bundle.metadata.mask_threshold
        )
    return gate_results
