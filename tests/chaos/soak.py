"""score over many images in one go, some broken, while its workers are killed.

    python -m tests.chaos.soak --images DIR --model DIR [--count 100000] [--seed 1]
                              [--kill-every 60]

`count` files are made from the images of DIR; 0.5 % of them are broken (see `copies.BROKEN`), which
ones and how is drawn by the seed. One `spark-submit submit/score.py` scores them into an empty
warehouse, and every `kill-every` seconds a Python worker that is there is killed by SIGKILL. Then
another Spark session holds the table against what was made: listed are scored and rejected,
rejected are the broken ones, each for its reason, and every file has one row. Whether memory and
rate stay as they are is told as two numbers each (`flat.Flat`). Written are `results/soak.md` and
its two plots; on standard output it ends as one JSON object. Exit code 1 where sums do not balance,
no worker was killed, or memory or rate are not flat by the bounds of `soak_report.uneven`.
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
from tests.chaos.faults import is_worker, killed_at_last, line_of, tell
from tests.chaos.flat import Flat, flatness
from tests.chaos.reader import SESSION
from tests.chaos.score_faults import Night, Setting
from tests.chaos.soak_report import JAVA, MEMORY, PAGE, RATE, SPEED, Line, draw, page, uneven
from tests.helpers.processes import ROOT, images_in

BROKEN_SHARE = 0.005
CHUNKS = 10  # commits; of 100,000 images that is the job's own default
BEAT = 0.5  # seconds
SPAN = 30.0  # seconds, of a rate
TOLD_EVERY = 10.0  # seconds
LOST = re.compile(r"Lost task ")
MEMORIES = (JAVA, "driver, Python", "workers, sum", "workers, largest")


class LongNight(Night):
    timeout = 6 * 3600.0


@dataclass
class Seen:
    """What was seen of a job from outside.

    Attributes:
        times: of the looks, seconds since the epoch.
        memory: by `MEMORIES`, GB at each look.
        kills: when a worker was killed.
        lives: worker -> when it was seen first and last.
    """

    times: list[float] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEMORIES})
    kills: list[float] = field(default_factory=list)
    lives: dict[psutil.Process, tuple[float, float]] = field(default_factory=dict)

    def look(self, job: Night) -> list[psutil.Process]:
        """Take in what the job holds now; return its workers."""
        now, java, python, workers = time.time(), 0, 0, {}
        for process in job.processes():
            try:
                name, own = process.name(), process.memory_info().rss
            except psutil.Error:  # it has ended
                continue
            if name == "java":
                java = max(java, own)
            elif "submit/score.py" in line_of(process):
                python = max(python, own)
            elif is_worker(process):
                workers[process] = own
                self.lives[process] = (self.lives.get(process, (now, now))[0], now)
        self.times.append(now)
        found = (java, python, sum(workers.values()), max(workers.values(), default=0))
        for name, value in zip(MEMORIES, found, strict=True):
            self.memory[name].append(value / 1e9)
        return list(workers)


def soak(job: Night, every: float, draw: random.Random) -> Seen:
    """Watch the job to its end, and kill a worker again and again."""
    seen, due, told = Seen(), 0.0, 0.0
    while job.runs:
        with suppress(psutil.NoSuchProcess):  # the job has just ended
            workers = seen.look(job)
            now = time.time()
            if workers and not due:
                due = now + every
            if workers and now >= due:
                draw.choice(workers).kill()
                seen.kills.append(now)
                due += every
            if now >= told + TOLD_EVERY:
                told = now
                state = {name: round(values[-1], 2) for name, values in seen.memory.items()}
                rows = max(job.progress())
                tell({"seconds": round(job.seconds), "committed": rows, **state})
        time.sleep(BEAT)
    return seen


@dataclass(frozen=True)
class Published:
    """What a reader finds in the table.

    Attributes:
        rows: file name, status and reason of each row.
        scored_at: seconds since the epoch, in order.
        commits: when, and how many rows came; in order.
    """

    rows: list[tuple[str, str, str | None]]
    scored_at: list[float]
    commits: list[tuple[float, int]]


def published(warehouse: str) -> Published:
    with open_session("bench", warehouse, SESSION) as spark:
        rows = Warehouse(spark).read(PREDICTIONS).select("path", "status", "reason", "scored_at")
        found = rows.toArrow().to_pylist()
        commits = spark.sql(
            "SELECT unix_millis(committed_at) / 1000 AS at, "
            "CAST(summary['added-records'] AS INT) AS added "
            f"FROM {PREDICTIONS.full_name}.snapshots "
            # The first branch of an empty table is an append of nothing.
            "WHERE operation = 'append' AND summary['added-records'] IS NOT NULL ORDER BY at"
        ).collect()
    return Published(
        [(Path(row["path"]).name, row["status"], row["reason"]) for row in found],
        sorted(row["scored_at"].timestamp() for row in found),
        [(float(row.at), int(row.added)) for row in commits],
    )


def sums(
    written: set[str], broken: Mapping[str, str], result: Mapping[str, Any], table: Published
) -> dict[str, Any]:
    """Hold what the job says and what the table has against what was written."""
    reasons = {name: reason for name, status, reason in table.rows if status == "rejected"}
    files = {name for name, _, _ in table.rows}
    found: dict[str, Any] = {
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
        and found["rows"] == found["listed"] == len(written)
        and found["listed"] == found["scored"] + found["rejected"]
        and found["rejected"] == len(reasons) == found["as_expected"] == len(broken)
    )
    return found | {"balanced": balanced}


def rates(times: Sequence[float], width: float) -> tuple[list[float], list[float]]:
    """Return the beginning of each whole span of time, and the images a second within it."""
    edges = np.arange(times[0], times[-1], width)
    counts, _ = np.histogram(times, edges)
    return edges[:-1].tolist(), (counts / width).tolist()


def judge(seen: Seen, table: Published, count: int, width: float) -> dict[str, Flat | None]:
    """Return how flat rate and memory are."""
    times = table.scored_at
    starts, values = rates(times, width)
    done = [bisect_right(times, start + width / 2) for start in starts]
    found = {SPEED: flatness(done, values, count)}
    while_scoring = [number for number, at in enumerate(seen.times) if times[0] <= at <= times[-1]]
    done = [bisect_right(times, seen.times[number]) for number in while_scoring]
    for name, memory in seen.memory.items():
        found[name] = flatness(done, [memory[number] for number in while_scoring], count)
    return found


def plot(folder: Path, seen: Seen, table: Published, width: float) -> None:
    began = seen.times[0]
    kills = [at - began for at in seen.kills]
    lines = [
        Line(name, [at - began for at in seen.times], values)
        for name, values in seen.memory.items()
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
    given = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    random_of = random.Random(given.seed)
    chunk = max(1, given.count // CHUNKS)
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = Path(name)
        files = images_in(given.images)
        random_of.shuffle(files)  # so that every part of the night is like the others
        images = repeat(files, given.count, folder / "images")
        broken = break_some(images, round(BROKEN_SHARE * given.count), random_of)
        written = {path.name for path in images.iterdir()}
        tell({"written": len(written), "broken": len(broken)})
        options = ["--images", str(images), "--model", str(Path(given.model).resolve())]
        setting = Setting([*options, "--chunk", str(chunk)], given.count, folder, ROOT)
        warehouse = str(folder / "warehouse")
        with killed_at_last(LongNight("worker", setting, warehouse)) as job:
            seen = soak(job, given.kill_every, random_of)
            result = job.result()
            tell(result | {"kills": seen.kills})  # there whatever comes of the rest
            lost = len(LOST.findall(job.output.read_text()))
        table = published(warehouse)
    # Ten spans at least, whatever the size.
    width = min(SPAN, (table.scored_at[-1] - table.scored_at[0]) / 10)
    flat = judge(seen, table, given.count, width)
    found = {
        "count": given.count,
        "broken": len(broken),
        "seed": given.seed,
        "chunk": chunk,
        "kill_every": given.kill_every,
        "kills": len(seen.kills),
        "lost_tasks": lost,
        **sums(written, broken, result, table),
        **{name: result[name] for name in ("seconds", "images_per_second", "engine", "model_id")},
        "cores": len(os.sched_getaffinity(0)),
        "longest_worker_seconds": max(end - start for start, end in seen.lives.values()),
        "peak_gb": {name: max(values) for name, values in seen.memory.items()},
        "flat": {name: one and asdict(one) for name, one in flat.items()},
    }
    plot(ROOT / "results", seen, table, width)
    (ROOT / "results" / PAGE).write_text(page(found))
    print(json.dumps(found))
    return outcome(found)


def outcome(found: Mapping[str, Any]) -> int:
    """Return the exit code, and say why it is not 0."""
    told = uneven(found)
    problems = [
        *([] if found["balanced"] else ["the sums do not balance"]),
        *([] if found["kills"] else ["no worker was killed"]),
        *([f"not flat: {'; '.join(told)}"] if told else []),
    ]
    if problems:
        print(f"error: {'; '.join(problems)}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
