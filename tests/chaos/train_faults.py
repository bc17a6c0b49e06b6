"""train, disturbed: what comes of it when processes are killed or stopped, and what that costs.

    python -m tests.chaos.train_faults --warehouse DIR --weights PATH [--ranks 10] [--drivers 5]
                                      [--stops 1] [--seed 1]

DIR is a warehouse on this disk with the table `images`, which is only read. First the job,
`spark-submit submit/train.py`, runs undisturbed twice: the first run computes the features, the
second is what the others are held against. Then it runs to its end in spite of

- SIGKILL of a rank, five times a training at most (the driver starts all ranks anew from the last
  checkpoint),
- SIGKILL of the driver, Python, JVM and all (the job is run again with `--resume`, and killed
  again),
- SIGSTOP of a rank (the driver notices that it makes no step).

Steps and ranks are drawn at random. Printed is, of each training, whether the weights are those of
the undisturbed one to the bit, and the seconds lost a fault. On standard output it ends as one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.train import image_warehouse
from tests.chaos.faults import Job, killed_at_last, tell
from tests.helpers.processes import submit_words

POLL = 0.2
MOST = 5  # faults of one training


class Training(Job):
    """The train job, with what its ranks tell of themselves."""

    def __init__(self, folder: Path, warehouse: Path, words: list[str]) -> None:
        self._warehouse = warehouse
        self._before = set(self._attempts())  # what killed drivers left
        super().__init__(folder, words)

    def _attempts(self) -> Iterator[Path]:
        return self._warehouse.glob("cxr/_staging/*/attempt-*")

    def beats(self) -> dict[int, dict[str, Any]]:
        """Rank -> what it last told, of the attempt that runs."""
        attempts = sorted(set(self._attempts()) - self._before)
        found = {}
        for file in attempts[-1].glob("heartbeat-*.json") if attempts else []:
            try:
                found[int(file.stem.split("-")[1])] = json.loads(file.read_text())
            except (ValueError, FileNotFoundError):  # just being written
                continue
        return found

    def wait_for_step(self, step: int, after: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Wait until every rank, none of them hit before, tells of this step or a later one."""
        old = {hit["pid"] for hit in after}
        while self.runs:
            beats = self.beats()
            fresh = len(beats) > 1 and not old & {beat["pid"] for beat in beats.values()}
            if fresh and all(beat["step"] >= step for beat in beats.values()):
                return beats
            time.sleep(POLL)
        raise self.failure(f"no step {step}")


def submitted(
    folder: Path, warehouse: Path, weights: str, *options: str
) -> AbstractContextManager[Training]:
    words = submit_words("train", "--warehouse", str(warehouse), "--weights", weights, *options)
    words += ["--model", str(folder / "model"), "--overwrite"]
    return killed_at_last(Training(folder, warehouse, words))


def disturb(
    kind: str, steps: list[int], folder: Path, warehouse: Path, weights: str, draw: random.Random
) -> dict[str, Any]:
    """Run the training to its end, disturbed at these steps; return what came of it."""
    hits: list[dict[str, Any]] = []
    left, spent, result = list(steps), 0.0, None
    while result is None:
        options = ["--max-restarts", str(len(steps)), *(["--resume"] if spent else [])]
        with submitted(folder, warehouse, weights, *options) as job:
            while left:
                beats = job.wait_for_step(left.pop(0), after=hits)
                rank = draw.choice(sorted(beats))
                hits.append({"rank": rank, "step": beats[rank]["step"], "pid": beats[rank]["pid"]})
                if kind == "driver":
                    job.kill()
                    break
                sign = signal.SIGKILL if kind == "rank" else signal.SIGSTOP
                psutil.Process(beats[rank]["pid"]).send_signal(sign)
            else:
                result = job.result()
            spent += job.seconds
    return {
        "steps": [hit["step"] for hit in hits],
        "resumed_from": result["resumed_from"],
        "restarts": result["restarts"],
        "reasons": result["restart_reasons"],
        "weights": result["weights_digests"][0],
        "seconds": round(spent, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", required=True, type=Path)
    parser.add_argument("--weights", required=True, help="file, or none for a random start")
    parser.add_argument("--ranks", type=int, default=10, help="how often a rank is killed")
    parser.add_argument("--drivers", type=int, default=5, help="how often the driver is killed")
    parser.add_argument("--stops", type=int, default=1, help="how often a rank is stopped")
    parser.add_argument("--seed", type=int, default=1, help="of the steps and ranks")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = Path(name)
        warehouse = image_warehouse(given.warehouse, folder / "warehouse")
        for _ in range(2):
            with submitted(folder, warehouse, given.weights) as job:
                calm = job.result()
                seconds = job.seconds
        wanted, steps = calm["weights_digests"][0], calm["steps"]
        tell({"kind": "undisturbed", "seconds": round(seconds, 1), "weights": wanted})
        for kind, faults in (
            *(("rank", min(MOST, given.ranks - n)) for n in range(0, given.ranks, MOST)),
            *(("driver", min(MOST, given.drivers - n)) for n in range(0, given.drivers, MOST)),
            *(("stopped", 1) for _ in range(given.stops)),
        ):
            at = sorted(draw.sample(range(1, steps), faults))
            found = disturb(kind, at, folder, warehouse, given.weights, draw)
            found |= {
                "faults": faults,
                "same_weights": found["weights"] == wanted,
                "seconds_lost_each": round((found["seconds"] - seconds) / faults, 1),
            }
            rows.append({"kind": kind, **found})
            tell(rows[-1])
    summary = {
        kind: {
            "faults": sum(row["faults"] for row in of_kind),
            "trainings": len(of_kind),
            "same_weights": sum(row["same_weights"] for row in of_kind),
            "seconds_lost_each": [row["seconds_lost_each"] for row in of_kind],
        }
        for kind in dict.fromkeys(row["kind"] for row in rows)
        if (of_kind := [row for row in rows if row["kind"] == kind])
    }
    print(json.dumps({"undisturbed_seconds": round(seconds, 1), "steps": steps, **summary}))


if __name__ == "__main__":
    main()
