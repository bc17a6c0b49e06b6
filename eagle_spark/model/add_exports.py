"""A model for other programs: `eagle-export --model URI` adds ONNX and LiteRT to its folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from eagle_spark.errors import EagleError, PlatformError
from eagle_spark.job import main as run_job
from eagle_spark.model.bundle import Bundle, check_target, open_bundle, publish_bundle, seal
from eagle_spark.model.engines import ENGINES, KerasEngine
from eagle_spark.model.export import save_portable
from eagle_spark.model.gate import judge
from eagle_spark.model.metadata import GOLDEN
from eagle_spark.settings import ExportSettings

TOOLS = {"onnx": ("onnx", "tf2onnx"), "litert": ()}  # beside what runs the format
# ONNX takes any number of images at once. LiteRT's own compilers want one shape; one image at a
# time is as fast on CPUs.
BATCH = {"onnx": None, "litert": 1}


def add_exports(settings: ExportSettings) -> dict[str, Any]:
    """Add the formats to the model folder, each with the result of its gate; the folder is replaced
    in one step, and its model id stays.

    Returns:
        `model_id`, `engines` (format -> result of the gate), `bytes` (format -> size), `seconds`.

    Raises:
        PlatformError: when what makes or runs a format is not installed.
        BundleError: when the folder is no sound model, or was replaced meanwhile.
        OutputError: when it cannot be written.
        EagleError: when an export has not passed; it is in the folder all the same, and nothing
            here will run it.
    """
    started = time.perf_counter()
    formats = settings.format.split(",")
    check_installed(formats)
    bundle = open_bundle(settings.model)
    check_target(settings.model, overwrite=True)
    with tempfile.TemporaryDirectory(prefix="eagle-export-") as name:
        folder = Path(name, "model")
        shutil.copytree(bundle.path, folder, symlinks=True)
        found = export(open_bundle(str(folder), bundle.model_id), formats)
        card = dict(bundle.metadata) | {"engines": {**bundle.engines, **found}}
        del card["model_id"], card["digests"]
        sealed = seal(folder, card)
        open_bundle(settings.model, sealed.model_id)
        publish_bundle(folder, settings.model, overwrite=True)
        result = {
            "model_id": sealed.model_id,
            "engines": found,
            "bytes": {name: (folder / ENGINES[name].file).stat().st_size for name in formats},
            "seconds": round(time.perf_counter() - started, 1),
        }
    if failed := [name for name in formats if not found[name]["passed"]]:
        error = EagleError(
            f"--model {settings.model}: {', '.join(failed)} does not say what Keras says; "
            "kept, but marked as not passed"
        )
        error.figures = result
        raise error
    return result


def check_installed(formats: Sequence[str]) -> None:
    """Check that what makes and runs these formats is there.

    Raises:
        PlatformError: names what lacks.
    """
    wanted = [package for name in formats for package in (*TOOLS[name], ENGINES[name].package)]
    if missing := [package for package in wanted if not find_spec(package)]:
        raise PlatformError(
            f"not installed: {', '.join(missing)}; pip install 'eagle-spark[exports]' brings them"
        )


def export(bundle: Bundle, formats: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Write the formats into a model folder, and hold each against Keras on its golden images."""
    reference = KerasEngine(bundle.path, 1)
    with np.load(bundle.path / GOLDEN, allow_pickle=False) as golden:
        pixels = golden["pixels"]
    wanted = reference.predict(pixels)
    found = {}
    for name in formats:
        print(f"exporting {name}", file=sys.stderr, flush=True)
        kind = ENGINES[name]
        save_portable(reference.model, bundle.path / kind.file, name, BATCH[name])
        found[name] = judge(kind.load(bundle.path, 1), pixels, wanted, bundle.threshold)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eagle-export` in the frame of the jobs."""
    return run_job(ExportSettings, add_exports, argv)


if __name__ == "__main__":
    raise SystemExit(main())
