"""score with killed processes: its result, and the time that a kill costs.

    python -m tests.chaos.score_faults --images DIR --model DIR [--count 2000] [--chunk 500]
                                      [--kills 10] [--kinds worker,driver,executor] [--seed 1]
                                      [--hadoop hadoop/run]

Scores `count` images of DIR into an empty warehouse, first undisturbed, then once per kill. The
moment of a kill is drawn uniformly from the time between listing and end of the undisturbed job:
one moment in each of `kills` equal parts, counted from the last commit before it, as runs differ in
speed. SIGKILL hits

- `worker`: a Python worker, on one machine,
- `driver`: the driver with Python and JVM, on one machine,
- `executor`: the JVM of one of two executors (`--master local-cluster`),
- `node`: on YARN, a NodeManager with its containers; the warehouse is on HDFS. It requires
  `make hadoop-up`; killed services are started again after each run.

A failed job is run again until it succeeds, as by a scheduler. Another Spark session counts the
rows of the published table twice a second. Prints for each kill the stage of the job, the rows on
its branch, the seconds since its last commit (repeated work), whether the table equals that of the
undisturbed run row by row, the row counts that the reader observed, and the lost seconds and CPU
seconds (the latter are more reliable on a shared machine; on YARN they are those of the client
alone). The last line on standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pyspark

from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, list_folder, resolve
from eagle_spark.spark.session import open_session
from tests.chaos.faults import Job, command_line, is_worker, kill_at_end, print_record
from tests.chaos.reader import SESSION, Reader
from tests.helpers.processes import ROOT, link_images, submit_words, watch_load

JARS = Path(pyspark.__file__).parent / "jars"
POLL = 0.05
ATTEMPTS = 4  # of a job, with the killed one
COSTS = ("seconds_since_commit", "seconds_lost", "cpu_seconds_lost")
VERSION = re.compile(r"/v(\d+)\.metadata\.json$")  # of a table, in a catalog of type hadoop
EXECUTOR = "CoarseGrainedExecutorBackend"
CONF = {
    "worker": [],
    "driver": [],
    "executor": ["--master", "local-cluster[2,1,1024]"],
    "node": [
        *("--master", "yarn", "--conf", f"spark.yarn.jars=local:{JARS}/*"),
        *("--conf", "spark.executor.instances=2", "--conf", "spark.executor.memory=512m"),
        *("--conf", "spark.executor.memoryOverhead=1g"),
    ],
}

Progress = tuple[int, int]
NO_COMMIT = (0, 0.0)


@dataclass(frozen=True)
class Setting:
    """Options of the job, number of images, and folders."""

    options: list[str]
    count: int
    folder: Path
    hadoop: Path


class ScoreJob(Job):
    """The score job, with its progress as read from its tables."""

    def __init__(self, kind: str, setting: Setting, warehouse: str) -> None:
        options = [*setting.options, "--warehouse", warehouse]
        self.warehouse, self._hadoop = warehouse, setting.hadoop
        super().__init__(setting.folder, submit_words("score", *options, conf=CONF[kind]))

    def wait_for(self, progress: Progress) -> float:
        """Wait until the images are listed and the table has that progress; return the time."""
        while self.is_running:
            if self.progress() >= progress and self._listed():
                return time.time()
            time.sleep(POLL)
        return math.inf

    def _listed(self) -> bool:
        return any(file.name.startswith("part-") for file in self._files("_staging"))

    def progress(self) -> Progress:
        """Return the rows of `main` and of the branch."""
        refs = self.refs()
        return refs.get("main", NO_COMMIT)[0], refs.get("branch", NO_COMMIT)[0]

    def _files(self, folder: str) -> list[FileEntry]:
        uri = f"{self.warehouse}/cxr/{folder}"
        with suppress(InputError):  # does not exist yet, or is being deleted
            return list(list_folder(uri))
        return []

    def refs(self) -> dict[str, tuple[int, float]]:
        """Return rows and time of the last commit of `main` and of the branch, if they exist."""
        matches = [VERSION.search(file.uri) for file in self._files("predictions/metadata")]
        versions = {int(match[1]): match.string for match in matches if match}
        if not versions:
            return {}
        storage, path = resolve(versions[max(versions)])
        table = json.loads(storage.read(path, 1 << 26))
        snapshots = {entry["snapshot-id"]: entry for entry in table["snapshots"]}
        tips = {name: snapshots[ref["snapshot-id"]] for name, ref in table["refs"].items()}
        return {
            name if name == "main" else "branch": (
                int(tip["summary"]["total-records"]),
                tip["timestamp-ms"] / 1000,
            )
            for name, tip in tips.items()
        }

    def strike(self, kind: str, draw: random.Random) -> bool:
        """Kill processes of that kind; return whether any existed."""
        if kind == "driver":
            self.kill()
            return True
        if kind == "node":
            victims = find_node_processes(
                self._hadoop, draw.choice(("nodemanager-1", "nodemanager-2"))
            )
        else:
            fits = is_worker if kind == "worker" else is_executor
            candidates = [process for process in self.processes() if fits(process)]
            victims = [draw.choice(candidates)] if candidates else []
        try:
            for process in victims:
                process.kill()
        except psutil.NoSuchProcess:  # it has just ended
            return False
        return bool(victims)


def is_executor(process: psutil.Process) -> bool:
    return EXECUTOR in command_line(process)


def find_node_processes(hadoop: Path, name: str) -> list[psutil.Process]:
    """Return a NodeManager and its containers; empty while no executor runs on it."""
    manager = psutil.Process(int((hadoop / "pids" / name).read_text().split()[0]))
    lines = {process: command_line(process) for process in psutil.process_iter()}
    inside = [
        process for process, line in lines.items() if str(hadoop) in line and f"/{name}/" in line
    ]
    return [manager, *inside] if any(EXECUTOR in lines[process] for process in inside) else []


@dataclass(frozen=True)
class Baseline:
    """The undisturbed run.

    Attributes:
        cpu_seconds: of all descendants of the job on this machine.
        reached: progress of the table, and its time in seconds from the listing.
        lasted: seconds from the listing to the end.
    """

    seconds: float
    cpu_seconds: float
    reached: list[tuple[Progress, float]]
    lasted: float


def run_baseline(kind: str, setting: Setting, warehouse: str) -> Baseline:
    with watch_load() as load, kill_at_end(ScoreJob(kind, setting, warehouse)) as job:
        listed = job.wait_for((0, 0))
        reached = [((0, 0), 0.0)]
        while job.is_running:
            if (now := job.progress()) > reached[-1][0]:
                reached.append((now, time.time() - listed))
            time.sleep(POLL)
        job.result()
        lasted = time.time() - listed
    return Baseline(load.seconds, load.cpu_seconds, reached, lasted)


def run_with_kill(
    kind: str,
    moment: float,
    baseline: Baseline,
    setting: Setting,
    warehouse: str,
    draw: random.Random,
) -> dict[str, Any]:
    """Score to the end, with a kill at that moment of the undisturbed run; return the figures.

    Empty if the job ended before the kill.
    """
    hit: dict[str, Any] = {}
    codes: list[int] = []
    progress, at = max(point for point in baseline.reached if point[1] <= moment)
    with watch_load() as load:
        while not codes or (codes[-1] and len(codes) < ATTEMPTS):
            with kill_at_end(ScoreJob(kind, setting, warehouse)) as job:
                if not codes:
                    listed = job.wait_for((0, 0))
                    strike_at = job.wait_for(progress) + moment - at
                    while job.is_running and not hit:
                        time.sleep(max(POLL, min(strike_at - time.time(), 1.0)))
                        if job.is_running and time.time() >= strike_at and job.strike(kind, draw):
                            hit = describe_kill(job, setting.count, listed)
                codes.append(job.end())
                if codes[-1] and not hit:
                    raise job.failure("it failed undisturbed")
    if codes[-1]:
        raise SystemExit(f"error: not done after {ATTEMPTS} attempts: {job.output.read_text()}")
    spent = {"seconds": load.seconds, "cpu_seconds": load.cpu_seconds}
    return hit and hit | {"exit_codes": codes, **spent}


def describe_kill(job: ScoreJob, count: int, listed: float) -> dict[str, Any]:
    """Return the stage of the job, and the work that it has to repeat."""
    now, refs = time.time(), job.refs()
    committed = max((rows for rows, _ in refs.values()), default=0)
    if refs.get("main", NO_COMMIT)[0]:
        stage = "after publishing"
    elif committed == count:
        stage = "audit or publishing"
    else:
        stage = "scoring" if refs else "comparing"
    since = max(at for _, at in refs.values()) if committed else listed
    return {
        "seconds_from_listing": round(now - listed, 1),
        "stage": stage,
        "committed": committed,
        "seconds_since_commit": round(now - since, 1),
    }


def restart_services(kind: str, hadoop: Path) -> None:
    if kind == "node":
        words = [sys.executable, str(ROOT / "hadoop" / "cluster.py"), "up", "--run", str(hadoop)]
        subprocess.run(words, check=True, capture_output=True)


def run_kind(
    kind: str, kills: int, setting: Setting, root: str, reader: Reader, draw: random.Random
) -> dict[str, Any]:
    """Run the job with `kills` kills of a kind; return the figures."""
    baseline = run_baseline(kind, setting, f"{root}/{kind}-baseline")
    expected = reader.table(f"{root}/{kind}-baseline")
    if expected.num_rows != setting.count:
        raise SystemExit(f"error: {expected.num_rows} rows of {setting.count} images")
    print_record({"kind": kind, **asdict(baseline)})
    rows: list[dict[str, Any]] = []
    missed = 0
    while len(rows) < kills:
        moment = (len(rows) + draw.random()) / kills * baseline.lasted
        warehouse = f"{root}/{kind}-{len(rows)}-{missed}"
        with reader.poll(warehouse) as observations:
            figures = run_with_kill(kind, moment, baseline, setting, warehouse, draw)
        restart_services(kind, setting.hadoop)
        if not figures:
            missed += 1
            continue
        figures |= {
            "same_rows": reader.table(warehouse).equals(expected),
            "seen": dict(observations),
            "seconds_lost": round(figures["seconds"] - baseline.seconds, 1),
            "cpu_seconds_lost": round(figures["cpu_seconds"] - baseline.cpu_seconds, 1),
        }
        rows.append({"kind": kind, **figures})
        print_record(rows[-1])
        delete_folder(warehouse)
    delete_folder(f"{root}/{kind}-baseline")
    undone = {
        "undisturbed_seconds": baseline.seconds,
        "undisturbed_cpu_seconds": baseline.cpu_seconds,
    }
    return undone | summarise(rows)


def delete_folder(folder: str) -> None:
    storage, path = resolve(folder)
    storage.delete(path)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    observations: Counter[str] = Counter()
    for row in rows:
        observations.update(row["seen"])
    return {
        "kills": len(rows),
        "stages": dict(Counter(row["stage"] for row in rows)),
        "run_again": sum(len(row["exit_codes"]) > 1 for row in rows),
        "same_rows": sum(row["same_rows"] for row in rows),
        "seen": dict(observations),
        **{name: [row[name] for row in rows] for name in COSTS},
        "medians": {name: statistics.median(row[name] for row in rows) for name in COSTS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--chunk", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--kinds", default="worker,driver,executor")
    parser.add_argument("--seed", type=int, default=1, help="of moments and processes")
    parser.add_argument("--hadoop", type=Path, default=ROOT / "hadoop" / "run")
    arguments = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if "node" in arguments.kinds.split(","):  # the others need no HDFS, and it may be down
        os.environ.setdefault("HADOOP_CONF_DIR", str(arguments.hadoop.resolve() / "conf"))
    figures = {}
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = Path(name)
        images = link_images(arguments.images, arguments.count, folder / "images")
        options = ["--images", str(images), "--model", str(Path(arguments.model).resolve())]
        options += ["--chunk", str(arguments.chunk)]
        setting = Setting(options, len(list(images.iterdir())), folder, arguments.hadoop.resolve())
        with open_session("bench", str(folder / "reader"), SESSION) as spark:
            draw = random.Random(arguments.seed)
            for kind in arguments.kinds.split(","):
                root = f"hdfs:///faults-{folder.name}" if kind == "node" else str(folder)
                figures[kind] = run_kind(kind, arguments.kills, setting, root, Reader(spark), draw)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
