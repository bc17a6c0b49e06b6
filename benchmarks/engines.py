"""The engines of a model folder beside Keras: file size, speed, and how like they are.

    python -m benchmarks.engines --model DIR --images DIR [--count 500] [--seconds 5] [--rounds 5]

All that can run here, whether they passed their gate or not, on `count` decoded images of DIR, with
one thread each. `images_per_second` is that of CPU time, so that others on the machine matter less:
the median of `rounds`, in which the engines take turns for `seconds` each, in batches of 64.
`labels_equal`, `probability_difference` (largest), `dice` (mean) and `least_dice` hold an engine's
outputs against those of Keras; `batch_labels_equal` and `batch_difference` (largest, of
probabilities of class and of lung) its outputs in batches of 1 and 7 against its own in batches of
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

from benchmarks.score import choose
from eagle_spark.errors import ImageRejected
from eagle_spark.imaging.decode import read_radiograph
from eagle_spark.metrics.scores import dice
from eagle_spark.model.bundle import Bundle, open_bundle
from eagle_spark.model.engines import ENGINES, Engine, Predictions

BATCH = 64
OTHER_BATCHES = (1, 7)


def decoded(folder: Path, count: int, size: int) -> NDArray[np.uint8]:
    """Return `count` images of a folder, by a hash of their path, `(n, size, size)`."""
    found = []
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        for path in sorted(choose(folder, count, Path(name, "some")).iterdir()):
            try:
                found.append(read_radiograph(path.read_bytes(), size).pixels)
            except ImageRejected as rejected:
                print(f"{path.resolve()}: {rejected}", file=sys.stderr)
    return np.stack(found)


def predict(engine: Engine, pixels: NDArray[np.uint8], batch: int) -> Predictions:
    parts = [engine.predict(pixels[i : i + batch]) for i in range(0, len(pixels), batch)]
    return Predictions(*map(np.concatenate, zip(*parts, strict=True)))


def rate(engine: Engine, pixels: NDArray[np.uint8], seconds: float) -> float:
    """Return images per second of CPU time."""
    done, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        first = done % (len(pixels) - BATCH + 1)
        engine.predict(pixels[first : first + BATCH])
        done += BATCH
    return done / spent


def likeness(found: Predictions, wanted: Predictions, threshold: float) -> dict[str, float]:
    overlap = dice(found.mask >= threshold, wanted.mask >= threshold)
    return {
        "labels_equal": float(np.mean(found.label.argmax(1) == wanted.label.argmax(1))),
        "probability_difference": float(np.abs(found.label - wanted.label).max()),
        "mask_difference": float(np.abs(found.mask - wanted.mask).max()),
        "dice": float(overlap.mean()),
        "least_dice": float(overlap.min()),
    }


def megabytes(bundle: Bundle, name: str) -> float:
    """Return the size of an engine's file, and of what lies beside it under the same name."""
    file = bundle.path / ENGINES[name].file
    parts = [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]
    return round(sum(part.stat().st_size for part in parts) / 1e6, 2)


def measure(
    engine: Engine, pixels: NDArray[np.uint8], wanted: Predictions, threshold: float
) -> Any:
    usual = predict(engine, pixels, BATCH)
    others = [likeness(predict(engine, pixels, n), usual, threshold) for n in OTHER_BATCHES]
    batch = ("probability_difference", "mask_difference")
    return {
        **likeness(usual, wanted, threshold),
        "batch_labels_equal": min(one["labels_equal"] for one in others),
        "batch_difference": max(one[name] for one in others for name in batch),
    }


def print_table(engines: dict[str, dict[str, Any]]) -> None:
    columns = ("megabytes", "images_per_second", "labels_equal", "probability_difference", "dice")
    columns += ("least_dice", "batch_labels_equal", "batch_difference")
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
    given = parser.parse_args()
    bundle = open_bundle(given.model)
    pixels = decoded(given.images, given.count, bundle.size)
    engines = {
        name: kind.load(bundle.path, 1)
        for name, kind in ENGINES.items()
        if (bundle.path / kind.file).is_file() and find_spec(kind.package) and kind.runs_here()
    }
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(given.rounds):
        for name, engine in engines.items():
            rates[name].append(rate(engine, pixels, given.seconds))
    wanted = predict(engines["keras"], pixels, BATCH)
    found = {
        name: {
            "megabytes": megabytes(bundle, name),
            "images_per_second": round(statistics.median(rates[name]), 1),
            "rounds": [round(one, 1) for one in rates[name]],
            **measure(engine, pixels, wanted, bundle.threshold),
        }
        for name, engine in engines.items()
    }
    print_table(found)
    print(json.dumps({"images": len(pixels), "threads": 1, "engines": found}, indent=1))


if __name__ == "__main__":
    main()
