"""train, disturbed: what comes of it when a process is killed or stopped, and what that costs.

    python -m benchmarks.train_faults --warehouse DIR --weights PATH [--ranks 10] [--drivers 5]
                                      [--stops 1] [--seed 1]

DIR is a warehouse on this disk with the table `images`, which is only read. First the job,
`spark-submit submit/train.py`, runs undisturbed twice: the first run computes the features, the
second is what the others are held against. Then, at a random step of the training each,

- a rank gets SIGKILL (the driver starts all ranks anew from the last checkpoint),
- the driver gets SIGKILL, Python, JVM and all (the job is run again with `--resume`),
- a rank gets SIGSTOP (the driver notices that it makes no step).

Printed is, of each, whether the weights are those of the undisturbed run to the bit, and the seconds
lost against it. On standard output it ends as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.train import ROOT, image_warehouse

TIMEOUT = 900.0  # seconds of one job
POLL = 0.2


class Job:
    """The train job as a process, with what its ranks tell of themselves."""

    def __init__(self, folder: Path, warehouse: Path, words: list[str]) -> None:
        self._warehouse, self.output = warehouse, folder / "output"
        self._before = set(self._attempts())  # what killed drivers left
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                words, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
        self.started = time.monotonic()

    def _attempts(self) -> Iterator[Path]:
        return self._warehouse.glob("cxr/_staging/*/attempt-*")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

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

    def wait_for_step(self, step: int) -> dict[int, dict[str, Any]]:
        """Wait until every rank has told of this step or a later one."""
        while self.seconds < TIMEOUT and self.process.poll() is None:
            beats = self.beats()
            if len(beats) > 1 and all(beat["step"] >= step for beat in beats.values()):
                return beats
            time.sleep(POLL)
        raise SystemExit(f"error: no step {step}:\n{self.output.read_text()[-3000:]}")

    def result(self) -> dict[str, Any]:
        """Wait for the end, and return the job's last line."""
        if self.process.wait(max(1.0, TIMEOUT - self.seconds)):
            raise SystemExit(f"error: the job failed:\n{self.output.read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(self.output.read_text().splitlines()[-1])
        return found

    def kill(self) -> None:
        """End the driver and all that it started, as a machine that loses its power does."""
        driver = psutil.Process(self.process.pid)
        processes = [driver, *driver.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, 10)


@contextmanager
def submitted(folder: Path, warehouse: Path, weights: str, *options: str) -> Iterator[Job]:
    words = [str(Path(sys.executable).with_name("spark-submit")), str(ROOT / "submit" / "train.py")]
    words += ["--warehouse", str(warehouse), "--model", str(folder / "model"), "--overwrite"]
    job = Job(folder, warehouse, [*words, "--weights", weights, *options])
    try:
        yield job
    finally:
        if job.process.poll() is None:
            job.kill()


def disturb(
    kind: str, step: int, folder: Path, warehouse: Path, weights: str, draw: random.Random
) -> dict[str, Any]:
    """Run the job to its end, disturbed at this step; return what came of it."""
    with submitted(folder, warehouse, weights) as job:
        beats = job.wait_for_step(step)
        rank = draw.choice(sorted(beats))
        told = {"step": beats[rank]["step"]}
        if kind == "driver":
            job.kill()
            spent = job.seconds
        else:
            told["rank"] = rank
            sign = signal.SIGKILL if kind == "rank" else signal.SIGSTOP
            psutil.Process(beats[rank]["pid"]).send_signal(sign)
            result = job.result()
            spent = job.seconds
    if kind == "driver":
        with submitted(folder, warehouse, weights, "--resume") as job:
            result = job.result()
            spent += job.seconds
    return told | {
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
        wanted = calm["weights_digests"][0]
        steps = calm["steps"]
        tell({"kind": "undisturbed", "seconds": round(seconds, 1), "weights": wanted})
        kinds = ["rank"] * given.ranks + ["driver"] * given.drivers + ["stopped"] * given.stops
        for kind in kinds:
            step = draw.randrange(1, steps)
            found = disturb(kind, step, folder, warehouse, given.weights, draw)
            found = {
                "kind": kind,
                **found,
                "same_weights": found["weights"] == wanted,
                "seconds_lost": round(found["seconds"] - seconds, 1),
            }
            rows.append(found)
            tell(found)
    summary = {
        kind: {
            "times": len(of_kind),
            "same_weights": sum(row["same_weights"] for row in of_kind),
            "seconds_lost_median": statistics.median(row["seconds_lost"] for row in of_kind),
            "seconds_lost_most": max(row["seconds_lost"] for row in of_kind),
        }
        for kind in dict.fromkeys(kinds)
        if (of_kind := [row for row in rows if row["kind"] == kind])
    }
    print(json.dumps({"undisturbed_seconds": round(seconds, 1), "steps": steps, **summary}))


def tell(found: dict[str, Any]) -> None:
    print(json.dumps(found), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
