"""train compared with the recipe of the original, on the same table: seconds, accuracy, Dice.

    python -m benchmarks.train --warehouse DIR --weights PATH [--original-epochs 1] [--rounds 1]
                               [--ranks 2] [--epochs N]

DIR is a warehouse on this disk with a table `images`, which is only read. The original is
`benchmarks.original`: one epoch is measured, and ten are extrapolated, start included; accuracy and
Dice are those after the epochs that were run. `--original-epochs 10` runs ten. `ours` is the job,
`spark-submit submit/train.py` from start to saved model: `fresh` on a warehouse with images alone,
`again` with cached features. Each round runs the original and every kind of `ours` in turn; figures
of `ours` are medians over rounds. On a shared machine `cpu_seconds` are more reliable than
`seconds`. `--ranks 1,2` compares numbers of ranks; the ranks share all cores (`spark.task.cpus`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers.processes import copy_image_table, run_watched, submit_words

CORES = len(os.sched_getaffinity(0))
TIMEOUT = 3600  # seconds
JOB_FIGURES = (
    "accuracy",
    "dice",
    "ece",
    "rank_seconds",
    "rank_peak_memory_mb",
    "features_computed",
)


def run_original(warehouse: Path, weights: str, epochs: int) -> dict[str, Any]:
    words = ["--warehouse", str(warehouse), "--weights", weights, "--epochs", str(epochs)]
    return run([sys.executable, "-m", "benchmarks.original", *words])


def submit_train(
    warehouse: Path, model: Path, weights: str, ranks: int, *options: str
) -> dict[str, Any]:
    """Run the job; return its figures and those of `run`."""
    conf = ["--conf", f"spark.task.cpus={max(1, CORES // ranks)}"]
    words = ["--warehouse", str(warehouse), "--model", str(model), "--overwrite"]
    words += ["--weights", weights, "--ranks", str(ranks)]
    return run(submit_words("train", *words, *options, conf=conf))


def run(words: list[str]) -> dict[str, Any]:
    """Run a program whose last line is JSON; return its content, with seconds and memory."""
    output, load = run_watched(words, TIMEOUT)
    usage = {
        "wall_seconds": load.seconds,
        "cpu_seconds": load.cpu_seconds,
        "job_gb": load.peak_gb,
    }
    return json.loads(output.splitlines()[-1]) | usage


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of the seconds, all of them, and the figures of the last run."""
    return {
        "seconds": statistics.median(figures["wall_seconds"] for figures in runs),
        "cpu_seconds": statistics.median(figures["cpu_seconds"] for figures in runs),
        "all_seconds": [figures["wall_seconds"] for figures in runs],
        **{name: runs[-1][name] for name in JOB_FIGURES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True, type=Path)
    parser.add_argument("--weights", required=True, help="file, or none for a random start")
    parser.add_argument("--original-epochs", type=int, default=1, help="0 leaves the original out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ranks", default="2", help="one number, or several: 1,2")
    parser.add_argument("--epochs", type=int, help="of ours; default: the job's")
    options = parser.parse_args()
    epochs = ["--epochs", str(options.epochs)] if options.epochs else []
    original: list[dict[str, Any]] = []
    ours: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = Path(name)
        for number in range(options.rounds):
            if options.original_epochs:
                source = copy_image_table(options.warehouse, work / "original")
                original.append(run_original(source, options.weights, options.original_epochs))
                print_figures(number, "original", original[-1])
            for ranks in map(int, options.ranks.split(",")):
                warehouse = copy_image_table(options.warehouse, work / f"ranks-{ranks}")
                for kind in ("fresh", "again"):
                    key = f"{ranks} ranks of {max(1, CORES // ranks)} threads, {kind}"
                    done = submit_train(warehouse, work / "model", options.weights, ranks, *epochs)
                    ours.setdefault(key, []).append(done)
                    print_figures(number, key, summarise([done]))
    figures: dict[str, Any] = {"cores": CORES, "load": os.getloadavg()[0], "original": None}
    if original:
        seconds = statistics.median(run["seconds_10_epochs"] for run in original)
        figures["original"] = original[-1] | {"seconds_10_epochs": seconds}
    figures["ours"] = {key: summarise(runs) for key, runs in ours.items()}
    if original:
        for row in figures["ours"].values():
            row["ratio"] = round(seconds / row["seconds"], 2)
    print(json.dumps(figures, indent=1))


def print_figures(number: int, kind: str, figures: dict[str, Any]) -> None:
    print(f"round {number + 1}: {kind}: {json.dumps(figures)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
