"""One run of score over many images, some of them broken, while its workers are killed.

    python -m tests.chaos.soak --images DIR --model DIR [--count 100000] [--seed 1]
                              [--kill-every 60]

Makes `count` files from the images of DIR; 0.5 % of them are broken (see `copies.BROKEN`), selected
by the seed. One `spark-submit submit/score.py` scores them into an empty warehouse, and every
`kill-every` seconds SIGKILL hits one of its Python workers. Then another Spark session compares the
table with the files: the listed files are scored or rejected, exactly the broken ones are rejected,
each for its reason, and every file has one row. Two numbers each describe the trend of memory and
rate (`flat.Trend`). Writes `results/soak.md` and its two plots; the last line on standard output is
one JSON object. Exit code 1 if sums do not balance, no worker was killed, or memory or rate are not
flat by the bounds of `soak_report.uneven`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from eagle_spark.spark.session import open_session
from eagle_spark.tables import PREDICTIONS, Warehouse
from tests.chaos.copies import BROKEN, break_some, repeat
from tests.chaos.faults import command_line, is_worker, kill_at_end, print_record
from tests.chaos.flat import Trend, fit_trend
from tests.chaos.reader import SESSION
from tests.chaos.score_faults import ScoreJob, Setting
from tests.chaos.soak_report import JAVA, MEMORY, PAGE, RATE, SPEED, Line, draw, page, uneven
from tests.helpers.processes import ROOT, images_in

BROKEN_SHARE = 0.005
CHUNKS = 10  # commits; the default of the job for 100,000 images
BEAT_SECONDS = 0.5
RATE_SECONDS = 30.0  # width of the intervals of rates
REPORT_SECONDS = 10.0
LOST = re.compile(r"Lost task ")
MEMORIES = (JAVA, "driver, Python", "workers, sum", "workers, largest")


class LongScoreJob(ScoreJob):
    timeout = 6 * 3600.0


@dataclass
class Measurements:
    """Measurements of a running job.

    Attributes:
        times: of the measurements, seconds since the epoch.
        memory: by `MEMORIES`, GB at each time.
        kills: times of killed workers.
        lives: worker -> times of its first and last measurement.
    """

    times: list[float] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEMORIES})
    kills: list[float] = field(default_factory=list)
    lives: dict[psutil.Process, tuple[float, float]] = field(default_factory=dict)

    def add(self, job: ScoreJob) -> list[psutil.Process]:
        """Measure the memory of the job; return its workers."""
        now, java, python, workers = time.time(), 0, 0, {}
        for process in job.processes():
            try:
                name, resident = process.name(), process.memory_info().rss
            except psutil.Error:  # has ended
                continue
            if name == "java":
                java = max(java, resident)
            elif "submit/score.py" in command_line(process):
                python = max(python, resident)
            elif is_worker(process):
                workers[process] = resident
                self.lives[process] = (self.lives.get(process, (now, now))[0], now)
        self.times.append(now)
        values = (java, python, sum(workers.values()), max(workers.values(), default=0))
        for name, value in zip(MEMORIES, values, strict=True):
            self.memory[name].append(value / 1e9)
        return list(workers)


def soak(job: ScoreJob, every: float, generator: random.Random) -> Measurements:
    """Measure the job until its end, and kill a worker at equal intervals."""
    measurements, due, reported = Measurements(), 0.0, 0.0
    while job.is_running:
        with suppress(psutil.NoSuchProcess):  # the job has just ended
            workers = measurements.add(job)
            now = time.time()
            if workers and not due:
                due = now + every
            if workers and now >= due:
                generator.choice(workers).kill()
                measurements.kills.append(now)
                due += every
            if now >= reported + REPORT_SECONDS:
                reported = now
                state = {name: round(values[-1], 2) for name, values in measurements.memory.items()}
                rows = max(job.progress())
                print_record({"seconds": round(job.seconds), "committed": rows, **state})
        time.sleep(BEAT_SECONDS)
    return measurements


@dataclass(frozen=True)
class Published:
    """The content of the published table.

    Attributes:
        rows: file name, status and reason of each row.
        scored_at: seconds since the epoch, in order.
        commits: time and number of added rows, in order.
    """

    rows: list[tuple[str, str, str | None]]
    scored_at: list[float]
    commits: list[tuple[float, int]]


def read_published(warehouse: str) -> Published:
    with open_session("bench", warehouse, SESSION) as spark:
        rows = Warehouse(spark).read(PREDICTIONS).select("path", "status", "reason", "scored_at")
        records = rows.toArrow().to_pylist()
        commits = spark.sql(
            "SELECT unix_millis(committed_at) / 1000 AS at, "
            "CAST(summary['added-records'] AS INT) AS added "
            f"FROM {PREDICTIONS.full_name}.snapshots "
            # The first branch of an empty table is an append without rows.
            "WHERE operation = 'append' AND summary['added-records'] IS NOT NULL ORDER BY at"
        ).collect()
    return Published(
        [(Path(row["path"]).name, row["status"], row["reason"]) for row in records],
        sorted(row["scored_at"].timestamp() for row in records),
        [(float(row.at), int(row.added)) for row in commits],
    )


def compare_counts(
    written: set[str], broken: Mapping[str, str], result: Mapping[str, Any], table: Published
) -> dict[str, Any]:
    """Compare the result of the job and the table with the written files."""
    reasons = {name: reason for name, status, reason in table.rows if status == "rejected"}
    files = {name for name, _, _ in table.rows}
    counts: dict[str, Any] = {
        "listed": result["listed"],
        "scored": result["scored"],
        "rejected": result["rejected"],
        "as_expected": sum(
            reasons.get(name) == BROKEN[way][1].value for name, way in broken.items()
        ),
        "by_reason": dict(Counter(reasons.values())),
        "rows": len(table.rows),
        "files": len(files),
    }
    balanced = (
        files == written
        and counts["rows"] == counts["listed"] == len(written)
        and counts["listed"] == counts["scored"] + counts["rejected"]
        and counts["rejected"] == len(reasons) == counts["as_expected"] == len(broken)
    )
    return counts | {"balanced": balanced}


def rates(times: Sequence[float], width: float) -> tuple[list[float], list[float]]:
    """Return the start of each whole interval, and the images per second within it."""
    edges = np.arange(times[0], times[-1], width)
    counts, _ = np.histogram(times, edges)
    return edges[:-1].tolist(), (counts / width).tolist()


def fit_trends(
    measurements: Measurements, table: Published, count: int, width: float
) -> dict[str, Trend | None]:
    """Return the trends of rate and memory."""
    times = table.scored_at
    starts, values = rates(times, width)
    done = [bisect_right(times, start + width / 2) for start in starts]
    flat = {SPEED: fit_trend(done, values, count)}
    while_scoring = [
        number for number, at in enumerate(measurements.times) if times[0] <= at <= times[-1]
    ]
    done = [bisect_right(times, measurements.times[number]) for number in while_scoring]
    for name, memory in measurements.memory.items():
        flat[name] = fit_trend(done, [memory[number] for number in while_scoring], count)
    return flat


def plot(folder: Path, measurements: Measurements, table: Published, width: float) -> None:
    began = measurements.times[0]
    kills = [at - began for at in measurements.kills]
    lines = [
        Line(name, [at - began for at in measurements.times], values)
        for name, values in measurements.memory.items()
    ]
    title = f"Memory while {len(table.rows):,} images are scored"
    draw(folder / MEMORY, title, "resident, twice a second", "GB", lines, kills)
    starts, values = rates(table.scored_at, width)
    ends = [table.scored_at[0], *(at for at, _ in table.commits)]
    by_commit = [
        added / (end - start)
        for start, end, (_, added) in zip(ends, ends[1:], table.commits, strict=False)
    ]
    lines = [
        Line(
            f"in {width:.3g} s",
            [at - began for at in [*starts, starts[-1] + width]],
            [*values, values[-1]],
            steps=True,
        ),
        Line(
            "from commit to commit",
            [at - began for at in ends],
            [*by_commit, by_commit[-1]],
            steps=True,
        ),
    ]
    title = f"Rate while {len(table.rows):,} images are scored"
    note = "rows by their time; what was lost with a worker and done again counts once"
    draw(folder / RATE, title, note, "images a second", lines, kills)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="of broken files and killed workers")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds")
    arguments = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    generator = random.Random(arguments.seed)
    chunk = max(1, arguments.count // CHUNKS)
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = Path(name)
        files = images_in(arguments.images)
        generator.shuffle(files)  # so that all parts of the run are alike
        images = repeat(files, arguments.count, folder / "images")
        broken = break_some(images, round(BROKEN_SHARE * arguments.count), generator)
        written = {path.name for path in images.iterdir()}
        print_record({"written": len(written), "broken": len(broken)})
        options = ["--images", str(images), "--model", str(Path(arguments.model).resolve())]
        setting = Setting([*options, "--chunk", str(chunk)], arguments.count, folder, ROOT)
        warehouse = str(folder / "warehouse")
        with kill_at_end(LongScoreJob("worker", setting, warehouse)) as job:
            measurements = soak(job, arguments.kill_every, generator)
            result = job.result()
            # Printed even if a later step fails.
            print_record(result | {"kills": measurements.kills})
            lost = len(LOST.findall(job.output.read_text()))
        table = read_published(warehouse)
    # At least ten intervals.
    width = min(RATE_SECONDS, (table.scored_at[-1] - table.scored_at[0]) / 10)
    flat = fit_trends(measurements, table, arguments.count, width)
    figures = {
        "count": arguments.count,
        "broken": len(broken),
        "seed": arguments.seed,
        "chunk": chunk,
        "kill_every": arguments.kill_every,
        "kills": len(measurements.kills),
        "lost_tasks": lost,
        **compare_counts(written, broken, result, table),
        **{name: result[name] for name in ("seconds", "images_per_second", "engine", "model_id")},
        "cores": len(os.sched_getaffinity(0)),
        "longest_worker_seconds": max(end - start for start, end in measurements.lives.values()),
        "peak_gb": {name: max(values) for name, values in measurements.memory.items()},
        "flat": {name: values and asdict(values) for name, values in flat.items()},
    }
    plot(ROOT / "results", measurements, table, width)
    (ROOT / "results" / PAGE).write_text(page(figures))
    print(json.dumps(figures))
    return outcome(figures)


def outcome(figures: Mapping[str, Any]) -> int:
    """Return the exit code; print the reason if it is not 0."""
    slopes = uneven(figures)
    problems = [
        *([] if figures["balanced"] else ["the sums do not balance"]),
        *([] if figures["kills"] else ["no worker was killed"]),
        *([f"not flat: {'; '.join(slopes)}"] if slopes else []),
    ]
    if problems:
        print(f"error: {'; '.join(problems)}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
