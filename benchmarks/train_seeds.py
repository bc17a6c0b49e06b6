"""Spread of a model's metrics over seeds: one training per seed, each with its own split.

    python -m benchmarks.train_seeds --data DIR --weights PATH [--seeds 1,2,3,4,5] [--work DIR]

The seed determines the splits, the initial heads and the order of rows. Prints the metrics of each
seed's test split, their mean and their spread (standard deviation of the sample). With `--work` a
seed is measured once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.train import CORES, run, submit_train
from tests.helpers.processes import submit_words

METRICS = ("accuracy", "dice", "ece")


def measure(data: str, weights: str, seed: int, work: Path) -> dict[str, Any]:
    """Run preprocess and train with one seed; return the metrics of the model."""
    warehouse, option = work / f"warehouse-{seed}", ("--seed", str(seed))
    run(submit_words("preprocess", "--input", data, "--warehouse", str(warehouse), *option))
    result = submit_train(warehouse, work / f"model-{seed}", weights, min(2, CORES), *option)
    metrics = {name: round(result[name], 4) for name in METRICS}
    others = {"precision": result["precision"], "seconds": result["wall_seconds"]}
    return {"seed": seed, **metrics, **others}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, help="file, or none for a random start")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--work", type=Path, help="folder that keeps the measurements")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = (options.work or Path(name)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for seed in map(int, options.seeds.split(",")):
            file = work / f"seed-{seed}.json"
            if not file.exists():
                file.write_text(json.dumps(measure(options.data, options.weights, seed, work)))
            rows.append(json.loads(file.read_text()))
            print(rows[-1], file=sys.stderr, flush=True)
    for name in METRICS:
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        low, high = min(values), max(values)
        print(
            f"{name:8} {statistics.mean(values):.4f} +- {spread:.4f} ({low:.4f} to {high:.4f}), "
            f"{len(values)} seeds"
        )


if __name__ == "__main__":
    main()
