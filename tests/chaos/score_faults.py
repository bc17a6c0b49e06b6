"""score, disturbed: what comes of it when processes are killed, and what that costs.

    python -m tests.chaos.score_faults --images DIR --model DIR [--count 2000] [--chunk 500]
                                      [--kills 10] [--kinds worker,driver,executor] [--seed 1]
                                      [--hadoop hadoop/run]

Of DIR `count` images are scored into an empty warehouse, first undisturbed, then once a kill: at a
moment drawn uniformly from the time that the undisturbed job took from its listing to its end (one
moment in each of `kills` equal parts of it; counted from the last commit before it, as not every
run is as fast), SIGKILL hits

- `worker`: a Python worker, on one machine,
- `driver`: the driver, Python, JVM and all, on one machine,
- `executor`: the JVM of one of two executors (`--master local-cluster`),
- `node`: on YARN, a NodeManager with its containers; the warehouse is on HDFS. For this one
  `make hadoop-up` comes first; what is killed is started again after each run.

A job that failed is run again until it ends well, as a scheduler does it. Meanwhile another Spark
session asks the published table for its rows, twice a second. Printed is of each kill what the job
was at, the rows on its branch, the seconds since its last commit (work done twice), whether the
table is that of the undisturbed run row for row, the numbers of rows that the reader saw, and the
seconds and CPU seconds lost (on a machine that others use too the latter say more; on YARN they are
those of the client alone). On standard output it ends as one JSON object.
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

from benchmarks.score import choose
from eagle_spark.errors import InputError
from eagle_spark.io import FileEntry, list_folder, locate
from eagle_spark.spark.session import open_session
from tests.chaos.faults import Job, is_worker, killed_at_last, line_of, tell
from tests.chaos.reader import SESSION, Reader
from tests.helpers.processes import ROOT, submit_words, watch_load

JARS = Path(pyspark.__file__).parent / "jars"
POLL = 0.05
ATTEMPTS = 4  # of a job, the killed one among them
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
NONE = (0, 0.0)


@dataclass(frozen=True)
class Setting:
    """What is scored, and where."""

    options: list[str]
    count: int
    folder: Path
    hadoop: Path


class Night(Job):
    """The score job, with what can be seen of it from outside."""

    def __init__(self, kind: str, setting: Setting, warehouse: str) -> None:
        options = [*setting.options, "--warehouse", warehouse]
        self.warehouse, self._hadoop = warehouse, setting.hadoop
        super().__init__(setting.folder, submit_words("score", *options, conf=CONF[kind]))

    def wait_for(self, progress: Progress) -> float:
        """Wait until the images are listed and the table is so far; return the time."""
        while self.runs:
            if self.progress() >= progress and self._listed():
                return time.time()
            time.sleep(POLL)
        return math.inf

    def _listed(self) -> bool:
        return any(file.name.startswith("part-") for file in self._files("_staging"))

    def progress(self) -> Progress:
        """Return the rows of `main` and of the branch."""
        refs = self.refs()
        return refs.get("main", NONE)[0], refs.get("branch", NONE)[0]

    def _files(self, folder: str) -> list[FileEntry]:
        uri = f"{self.warehouse}/cxr/{folder}"
        with suppress(InputError):  # not there yet, or just being removed
            return list(list_folder(uri))
        return []

    def refs(self) -> dict[str, tuple[int, float]]:
        """Return rows and time of the last commit of `main` and of the branch, as far as there."""
        found = [VERSION.search(file.uri) for file in self._files("predictions/metadata")]
        versions = {int(match[1]): match.string for match in found if match}
        if not versions:
            return {}
        storage, path = locate(versions[max(versions)])
        table = json.loads(storage.read(path, 1 << 26))
        known = {one["snapshot-id"]: one for one in table["snapshots"]}
        tips = {name: known[ref["snapshot-id"]] for name, ref in table["refs"].items()}
        return {
            name if name == "main" else "branch": (
                int(tip["summary"]["total-records"]),
                tip["timestamp-ms"] / 1000,
            )
            for name, tip in tips.items()
        }

    def strike(self, kind: str, draw: random.Random) -> bool:
        """Kill what the kind says; return whether it was there."""
        if kind == "driver":
            self.kill()
            return True
        if kind == "node":
            victims = node(self._hadoop, draw.choice(("nodemanager-1", "nodemanager-2")))
        else:
            fits = is_worker if kind == "worker" else is_executor
            found = [process for process in self.processes() if fits(process)]
            victims = [draw.choice(found)] if found else []
        try:
            for process in victims:
                process.kill()
        except psutil.NoSuchProcess:  # it has just ended by itself
            return False
        return bool(victims)


def is_executor(process: psutil.Process) -> bool:
    return EXECUTOR in line_of(process)


def node(hadoop: Path, name: str) -> list[psutil.Process]:
    """Return a NodeManager and its containers; nothing as long as there is no executor on it."""
    manager = psutil.Process(int((hadoop / "pids" / name).read_text().split()[0]))
    lines = {process: line_of(process) for process in psutil.process_iter()}
    inside = [one for one, line in lines.items() if str(hadoop) in line and f"/{name}/" in line]
    return [manager, *inside] if any(EXECUTOR in lines[one] for one in inside) else []


@dataclass(frozen=True)
class Calm:
    """The undisturbed run.

    Attributes:
        cpu_seconds: of all that ran on this machine as a child of the job.
        reached: how far the table was when, in seconds from the listing.
        lasted: seconds from the listing to the end.
    """

    seconds: float
    cpu_seconds: float
    reached: list[tuple[Progress, float]]
    lasted: float


def undisturbed(kind: str, setting: Setting, warehouse: str) -> Calm:
    with watch_load() as load, killed_at_last(Night(kind, setting, warehouse)) as job:
        listed = job.wait_for((0, 0))
        reached = [((0, 0), 0.0)]
        while job.runs:
            if (now := job.progress()) > reached[-1][0]:
                reached.append((now, time.time() - listed))
            time.sleep(POLL)
        job.result()
        lasted = time.time() - listed
    return Calm(load.seconds, load.cpu_seconds, reached, lasted)


def disturbed(
    kind: str, moment: float, calm: Calm, setting: Setting, warehouse: str, draw: random.Random
) -> dict[str, Any]:
    """Score to the end, with a kill at that moment of the undisturbed run; return what came of it.

    Empty where the job ended before.
    """
    hit: dict[str, Any] = {}
    codes: list[int] = []
    progress, at = max(point for point in calm.reached if point[1] <= moment)
    with watch_load() as load:
        while not codes or (codes[-1] and len(codes) < ATTEMPTS):
            with killed_at_last(Night(kind, setting, warehouse)) as job:
                if not codes:
                    listed = job.wait_for((0, 0))
                    strike_at = job.wait_for(progress) + moment - at
                    while job.runs and not hit:
                        time.sleep(max(POLL, min(strike_at - time.time(), 1.0)))
                        if job.runs and time.time() >= strike_at and job.strike(kind, draw):
                            hit = at_the_kill(job, setting.count, listed)
                codes.append(job.end())
                if codes[-1] and not hit:
                    raise job.failure("it failed undisturbed")
    if codes[-1]:
        raise SystemExit(f"error: not done after {ATTEMPTS} attempts: {job.output.read_text()}")
    spent = {"seconds": load.seconds, "cpu_seconds": load.cpu_seconds}
    return hit and hit | {"exit_codes": codes, **spent}


def at_the_kill(job: Night, count: int, listed: float) -> dict[str, Any]:
    """Return the stage that the job is in, by what it has left, and what it does twice now."""
    now, refs = time.time(), job.refs()
    committed = max((rows for rows, _ in refs.values()), default=0)
    if refs.get("main", NONE)[0]:
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


def mend(kind: str, hadoop: Path) -> None:
    if kind == "node":
        words = [sys.executable, str(ROOT / "hadoop" / "cluster.py"), "up", "--run", str(hadoop)]
        subprocess.run(words, check=True, capture_output=True)


def run_kind(
    kind: str, kills: int, setting: Setting, root: str, reader: Reader, draw: random.Random
) -> dict[str, Any]:
    """Kill as often as wanted; return the figures of the kind."""
    calm = undisturbed(kind, setting, f"{root}/{kind}-calm")
    wanted = reader.table(f"{root}/{kind}-calm")
    if wanted.num_rows != setting.count:
        raise SystemExit(f"error: {wanted.num_rows} rows of {setting.count} images")
    tell({"kind": kind, **asdict(calm)})
    rows: list[dict[str, Any]] = []
    missed = 0
    while len(rows) < kills:
        moment = (len(rows) + draw.random()) / kills * calm.lasted
        warehouse = f"{root}/{kind}-{len(rows)}-{missed}"
        with reader.polling(warehouse) as seen:
            found = disturbed(kind, moment, calm, setting, warehouse, draw)
        mend(kind, setting.hadoop)
        if not found:
            missed += 1
            continue
        found |= {
            "same_rows": reader.table(warehouse).equals(wanted),
            "seen": dict(seen),
            "seconds_lost": round(found["seconds"] - calm.seconds, 1),
            "cpu_seconds_lost": round(found["cpu_seconds"] - calm.cpu_seconds, 1),
        }
        rows.append({"kind": kind, **found})
        tell(rows[-1])
        remove(warehouse)
    remove(f"{root}/{kind}-calm")
    undone = {"undisturbed_seconds": calm.seconds, "undisturbed_cpu_seconds": calm.cpu_seconds}
    return undone | summary(rows)


def remove(folder: str) -> None:
    storage, path = locate(folder)
    storage.delete(path)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    seen: Counter[str] = Counter()
    for row in rows:
        seen.update(row["seen"])
    return {
        "kills": len(rows),
        "stages": dict(Counter(row["stage"] for row in rows)),
        "run_again": sum(len(row["exit_codes"]) > 1 for row in rows),
        "same_rows": sum(row["same_rows"] for row in rows),
        "seen": dict(seen),
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
    given = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    if "node" in given.kinds.split(","):  # the others need no HDFS, and it may be down
        os.environ.setdefault("HADOOP_CONF_DIR", str(given.hadoop.resolve() / "conf"))
    found = {}
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = Path(name)
        images = choose(given.images, given.count, folder / "images")
        options = ["--images", str(images), "--model", str(Path(given.model).resolve())]
        options += ["--chunk", str(given.chunk)]
        setting = Setting(options, len(list(images.iterdir())), folder, given.hadoop.resolve())
        with open_session("bench", str(folder / "reader"), SESSION) as spark:
            draw = random.Random(given.seed)
            for kind in given.kinds.split(","):
                root = f"hdfs:///faults-{folder.name}" if kind == "node" else str(folder)
                found[kind] = run_kind(kind, given.kills, setting, root, Reader(spark), draw)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
