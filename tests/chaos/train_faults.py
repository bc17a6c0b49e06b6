"""train with killed or stopped processes: its result, and the time that a fault costs.

    python -m tests.chaos.train_faults --warehouse DIR --weights PATH [--ranks 10] [--drivers 5]
                                      [--stops 1] [--seed 1]

DIR is a warehouse on this disk with the table `images`, which is only read. First the job,
`spark-submit submit/train.py`, runs undisturbed twice: the first run computes the features, the
second is the reference. Then it runs to its end with

- SIGKILL of a rank, at most five times per training (the driver restarts all ranks from the last
  checkpoint),
- SIGKILL of the driver, Python and JVM (the job is run again with `--resume`, and killed again),
- SIGSTOP of a rank (the driver detects that it makes no step).

Steps and ranks are drawn at random. Prints for each training whether the weights equal those of the
reference bit by bit, and the seconds lost per fault. The last line on standard output is one JSON
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

from tests.chaos.faults import Job, kill_at_end, print_record
from tests.helpers.processes import copy_image_table, submit_words

POLL = 0.2
MAX_FAULTS = 5  # of one training


class Training(Job):
    """The train job, with the heartbeats of its ranks."""

    def __init__(self, folder: Path, warehouse: Path, words: list[str]) -> None:
        self._warehouse = warehouse
        self._before = set(self._attempts())  # left by killed drivers
        super().__init__(folder, words)

    def _attempts(self) -> Iterator[Path]:
        return self._warehouse.glob("cxr/_staging/*/attempt-*")

    def read_heartbeats(self) -> dict[int, dict[str, Any]]:
        """Return rank -> newest heartbeat of the running attempt."""
        attempts = sorted(set(self._attempts()) - self._before)
        heartbeats = {}
        for file in attempts[-1].glob("heartbeat-*.json") if attempts else []:
            try:
                heartbeats[int(file.stem.split("-")[1])] = json.loads(file.read_text())
            except (ValueError, FileNotFoundError):  # is being written
                continue
        return heartbeats

    def wait_for_step(self, step: int, after: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Wait until every rank, none of them hit before, reports this step or a later one."""
        old = {hit["pid"] for hit in after}
        while self.is_running:
            beats = self.read_heartbeats()
            fresh = len(beats) > 1 and not old & {beat["pid"] for beat in beats.values()}
            if fresh and all(beat["step"] >= step for beat in beats.values()):
                return beats
            time.sleep(POLL)
        raise self.failure(f"no step {step}")


def start_training(
    folder: Path, warehouse: Path, weights: str, *options: str
) -> AbstractContextManager[Training]:
    words = submit_words("train", "--warehouse", str(warehouse), "--weights", weights, *options)
    words += ["--model", str(folder / "model"), "--overwrite"]
    return kill_at_end(Training(folder, warehouse, words))


def disturb(
    kind: str, steps: list[int], folder: Path, warehouse: Path, weights: str, draw: random.Random
) -> dict[str, Any]:
    """Run the training to its end with faults at these steps; return the figures."""
    hits: list[dict[str, Any]] = []
    remaining, spent, result = list(steps), 0.0, None
    while result is None:
        options = ["--max-restarts", str(len(steps)), *(["--resume"] if spent else [])]
        with start_training(folder, warehouse, weights, *options) as job:
            while remaining:
                beats = job.wait_for_step(remaining.pop(0), after=hits)
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
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = Path(name)
        warehouse = copy_image_table(arguments.warehouse, folder / "warehouse")
        for _ in range(2):
            with start_training(folder, warehouse, arguments.weights) as job:
                baseline = job.result()
                seconds = job.seconds
        expected, steps = baseline["weights_digests"][0], baseline["steps"]
        print_record({"kind": "undisturbed", "seconds": round(seconds, 1), "weights": expected})
        for kind, faults in (
            *(
                ("rank", min(MAX_FAULTS, arguments.ranks - n))
                for n in range(0, arguments.ranks, MAX_FAULTS)
            ),
            *(
                ("driver", min(MAX_FAULTS, arguments.drivers - n))
                for n in range(0, arguments.drivers, MAX_FAULTS)
            ),
            *(("stopped", 1) for _ in range(arguments.stops)),
        ):
            at = sorted(draw.sample(range(1, steps), faults))
            figures = disturb(kind, at, folder, warehouse, arguments.weights, draw)
            figures |= {
                "faults": faults,
                "same_weights": figures["weights"] == expected,
                "seconds_lost_each": round((figures["seconds"] - seconds) / faults, 1),
            }
            rows.append({"kind": kind, **figures})
            print_record(rows[-1])
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
