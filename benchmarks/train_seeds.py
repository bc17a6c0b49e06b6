"""How much of a model's figures is luck: one training for each seed, each with its own split.

    python -m benchmarks.train_seeds --data DIR --weights PATH [--seeds 1,2,3,4,5] [--work DIR]

The seed decides which patients are in which split, where the heads begin and in which order rows
come. Printed are the figures of every seed's test split, and their mean and spread (standard
deviation of the sample). With `--work` a seed that was measured is not measured again.
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

FIGURES = ("accuracy", "dice", "ece")


def measure(data: str, weights: str, seed: int, work: Path) -> dict[str, Any]:
    """Return what preprocess and train of one seed end with."""
    warehouse, own = work / f"warehouse-{seed}", ("--seed", str(seed))
    run(submit_words("preprocess", "--input", data, "--warehouse", str(warehouse), *own))
    found = submit_train(warehouse, work / f"model-{seed}", weights, min(2, CORES), *own)
    kept = {name: round(found[name], 4) for name in FIGURES}
    return {"seed": seed, **kept, "precision": found["precision"], "seconds": found["wall_seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, help="file, or none for a random start")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--work", type=Path, help="folder that keeps what was measured")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = (given.work or Path(name)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for seed in map(int, given.seeds.split(",")):
            kept = work / f"seed-{seed}.json"
            if not kept.exists():
                kept.write_text(json.dumps(measure(given.data, given.weights, seed, work)))
            rows.append(json.loads(kept.read_text()))
            print(rows[-1], file=sys.stderr, flush=True)
    for name in FIGURES:
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        low, high = min(values), max(values)
        print(
            f"{name:8} {statistics.mean(values):.4f} +- {spread:.4f} ({low:.4f} to {high:.4f}), "
            f"{len(values)} seeds"
        )


if __name__ == "__main__":
    main()
