"""Engines of a model folder compared with Keras: file size, speed and parity.

    python -m benchmarks.engines --model DIR --images DIR [--count 500] [--seconds 5] [--rounds 5]

Runs every engine that this machine supports, with or without a passed gate, on `count` decoded
images of DIR with one thread. `images_per_second` counts CPU time, so that other processes matter
less: the median of `rounds`, in which the engines take turns for `seconds` each, in batches of 64.
`labels_equal`, `probability_difference` (largest), `dice` (mean) and `least_dice` compare an
engine's outputs with those of Keras; `batch_labels_equal` and `batch_difference` (largest, of the
probabilities of class and lung) compare its outputs in batches of 1 and 7 with those in batches of
64. The JSON goes to standard output, a table to standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eagle_spark.errors import ImageRejectedError
from eagle_spark.imaging.decode import decode_image
from eagle_spark.metrics.scores import dice
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import ENGINES, Engine, ModelOutputs
from tests.helpers.processes import link_images

BATCH = 64
OTHER_BATCHES = (1, 7)


def decode_folder(folder: Path, count: int, size: int) -> NDArray[np.uint8]:
    """Return `count` images of a folder, chosen by a hash of their paths, `(n, size, size)`."""
    images = []
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        for path in sorted(link_images(folder, count, Path(name, "images")).iterdir()):
            try:
                images.append(decode_image(path.read_bytes(), size).pixels)
            except ImageRejectedError as rejected:
                print(f"{path.resolve()}: {rejected}", file=sys.stderr)
    return np.stack(images)


def predict(engine: Engine, pixels: NDArray[np.uint8], batch: int) -> ModelOutputs:
    parts = [engine.predict(pixels[i : i + batch]) for i in range(0, len(pixels), batch)]
    return ModelOutputs(*map(np.concatenate, zip(*parts, strict=True)))


def measure_rate(engine: Engine, pixels: NDArray[np.uint8], seconds: float) -> float:
    """Return images per second of CPU time."""
    done, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        first = done % (len(pixels) - BATCH + 1)
        engine.predict(pixels[first : first + BATCH])
        done += BATCH
    return done / spent


def compare_outputs(
    outputs: ModelOutputs, reference: ModelOutputs, threshold: float
) -> dict[str, float]:
    overlap = dice(outputs.mask >= threshold, reference.mask >= threshold)
    return {
        "labels_equal": float(np.mean(outputs.label.argmax(1) == reference.label.argmax(1))),
        "probability_difference": float(np.abs(outputs.label - reference.label).max()),
        "mask_difference": float(np.abs(outputs.mask - reference.mask).max()),
        "dice": float(overlap.mean()),
        "least_dice": float(overlap.min()),
    }


def measure_size(bundle: Bundle, name: str) -> float:
    """Return the size of an engine's file and of its companion with the weights, MB."""
    file = bundle.path / ENGINES[name].file
    parts = [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]
    return round(sum(part.stat().st_size for part in parts) / 1e6, 2)


def measure_parity(
    engine: Engine, pixels: NDArray[np.uint8], reference: ModelOutputs, threshold: float
) -> dict[str, float]:
    """Compare an engine with Keras, and its batch sizes with each other."""
    outputs = predict(engine, pixels, BATCH)
    by_batch = [
        compare_outputs(predict(engine, pixels, batch), outputs, threshold)
        for batch in OTHER_BATCHES
    ]
    differences = ("probability_difference", "mask_difference")
    return {
        **compare_outputs(outputs, reference, threshold),
        "batch_labels_equal": min(figures["labels_equal"] for figures in by_batch),
        "batch_difference": max(figures[name] for figures in by_batch for name in differences),
    }


def print_table(engines: dict[str, dict[str, Any]]) -> None:
    columns = ["megabytes", "images_per_second", "labels_equal", "probability_difference", "dice"]
    columns += ["least_dice", "batch_labels_equal", "batch_difference"]
    print(f"| engine | {' | '.join(columns)} |", file=sys.stderr)
    print("|---" * (len(columns) + 1) + "|", file=sys.stderr)
    for name, row in engines.items():
        cells = " | ".join(f"{row[column]:.4g}" for column in columns)
        print(f"| {name} | {cells} |", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    bundle = open_bundle(options.model)
    pixels = decode_folder(options.images, options.count, bundle.metadata.input.size)
    engines = {
        name: kind.load(bundle.path, 1)
        for name, kind in ENGINES.items()
        if (bundle.path / kind.file).is_file() and find_spec(kind.package) and kind.runs_here()
    }
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, engine in engines.items():
            rates[name].append(measure_rate(engine, pixels, options.seconds))
    reference = predict(engines["keras"], pixels, BATCH)
    figures = {
        name: {
            "megabytes": measure_size(bundle, name),
            "images_per_second": round(statistics.median(rates[name]), 1),
            "rounds": [round(rate, 1) for rate in rates[name]],
            **measure_parity(engine, pixels, reference, bundle.metadata.mask_threshold),
        }
        for name, engine in engines.items()
    }
    print_table(figures)
    print(json.dumps({"images": len(pixels), "threads": 1, "engines": figures}, indent=1))


if __name__ == "__main__":
    main()
