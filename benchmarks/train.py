"""train beside the recipe of the original, on the same table: seconds, accuracy, Dice.

    python -m benchmarks.train --warehouse DIR --weights PATH [--original-epochs 1] [--rounds 1]
                               [--ranks 2] [--epochs N]

DIR is a warehouse on this disk with a table `images`, which is only read. The original is
`benchmarks.original`: its epoch is measured, ten are extrapolated, start included; with
`--original-epochs 10` ten are run, and its accuracy and Dice are those that it reaches. Without,
they are those of the epochs that were run. Ours is the job itself, `spark-submit submit/train.py`
from start to saved model: `fresh` on a warehouse that holds the images alone, `again` where the
features are there already. Each round runs the original and every kind of ours in turn; figures of
ours are medians over rounds. On a machine that others use too, `cpu_seconds` say more than
`seconds`. `--ranks 1,2` compares numbers of ranks, all cores shared out among
the ranks (`spark.task.cpus`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers.processes import run_watched, submit_words

CORES = len(os.sched_getaffinity(0))
TIMEOUT = 3600  # seconds
KEPT = ("accuracy", "dice", "ece", "rank_seconds", "rank_peak_memory_mb", "features_computed")


def image_warehouse(source: Path, target: Path) -> Path:
    """Make a warehouse of the table `images` of another, without its files: they are read there.

    Only tables that are not copied may be written to: a table keeps the address it was made at.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "cxr" / "images" / "metadata", target / "cxr" / "images" / "metadata")
    return target


def run_original(warehouse: Path, weights: str, epochs: int) -> dict[str, Any]:
    words = ["--warehouse", str(warehouse), "--weights", weights, "--epochs", str(epochs)]
    return run([sys.executable, "-m", "benchmarks.original", *words])


def submit_train(
    warehouse: Path, model: Path, weights: str, ranks: int, *options: str
) -> dict[str, Any]:
    """Run the job; return its figures, and what `run` adds."""
    conf = ["--conf", f"spark.task.cpus={max(1, CORES // ranks)}"]
    wanted = ["--warehouse", str(warehouse), "--model", str(model), "--overwrite"]
    wanted += ["--weights", weights, "--ranks", str(ranks)]
    return run(submit_words("train", *wanted, *options, conf=conf))


def run(words: list[str]) -> dict[str, Any]:
    """Run a program whose last line is JSON; return that, and what it took."""
    output, load = run_watched(words, TIMEOUT)
    spent = {
        "wall_seconds": load.seconds,
        "cpu_seconds": load.cpu_seconds,
        "job_gb": load.peak_gb,
    }
    return json.loads(output.splitlines()[-1]) | spent


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of the seconds, all of them, and the figures of the last run."""
    return {
        "seconds": statistics.median(found["wall_seconds"] for found in runs),
        "cpu_seconds": statistics.median(found["cpu_seconds"] for found in runs),
        "all_seconds": [found["wall_seconds"] for found in runs],
        **{name: runs[-1][name] for name in KEPT},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True, type=Path)
    parser.add_argument("--weights", required=True, help="file, or none for a random start")
    parser.add_argument("--original-epochs", type=int, default=1, help="0 leaves the original out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ranks", default="2", help="one number, or several: 1,2")
    parser.add_argument("--epochs", type=int, help="of ours; without it the job's default")
    given = parser.parse_args()
    epochs = ["--epochs", str(given.epochs)] if given.epochs else []
    original: list[dict[str, Any]] = []
    ours: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = Path(name)
        for number in range(given.rounds):
            if given.original_epochs:
                source = image_warehouse(given.warehouse, work / "original")
                original.append(run_original(source, given.weights, given.original_epochs))
                tell(number, "original", original[-1])
            for ranks in map(int, given.ranks.split(",")):
                warehouse = image_warehouse(given.warehouse, work / f"ranks-{ranks}")
                for kind in ("fresh", "again"):
                    key = f"{ranks} ranks of {max(1, CORES // ranks)} threads, {kind}"
                    done = submit_train(warehouse, work / "model", given.weights, ranks, *epochs)
                    ours.setdefault(key, []).append(done)
                    tell(number, key, summarise([done]))
    figures: dict[str, Any] = {"cores": CORES, "load": os.getloadavg()[0], "original": None}
    if original:
        seconds = statistics.median(run["seconds_10_epochs"] for run in original)
        figures["original"] = original[-1] | {"seconds_10_epochs": seconds}
    figures["ours"] = {key: summarise(runs) for key, runs in ours.items()}
    if original:
        for found in figures["ours"].values():
            found["ratio"] = round(seconds / found["seconds"], 2)
    print(json.dumps(figures, indent=1))


def tell(number: int, kind: str, figures: dict[str, Any]) -> None:
    print(f"round {number + 1}: {kind}: {json.dumps(figures)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
