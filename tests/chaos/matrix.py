"""The fault matrix: every job is struck by every fault, and run again until it ends well.

    python -m tests.chaos.matrix --work DIR --out results/faults.md [--only JOB/FAULT/STEP]…

What is published then is held against what the undisturbed job publishes, row for row, and a reader
looks at it all the while. Every cell is a line in DIR/cells.jsonl as soon as it is done; those that
ended well are not tried out again. `make faults` does all of this.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from eagle_spark.model.card import table
from eagle_spark.spark.session import open_session
from eagle_spark.tables.maintenance import SMALL_FILES
from eagle_spark.testing.failpoints import STEPS
from tests.chaos.fault_jobs import JOBS, SECONDS, World, ended
from tests.chaos.fault_reader import look, reading, small_files
from tests.chaos.fault_ready import Prepared, prepare, restore
from tests.chaos.fault_strikes import FAULTS, Fault, Scene
from tests.chaos.reader import SESSION
from tests.cluster.local_cluster import LocalCluster, cluster_command
from tests.helpers.processes import ROOT
from tests.helpers.untrained import write_model

HERE = Path(__file__).resolve().parent
CHEAP_FIRST = ("put", "preprocess", "maintain", "score", "train")
NOTHING: dict[str, Any] = {"struck": False, "codes": [], "same": False, "seen": {}}
ATTEMPTS = 3  # of a job that was struck


@dataclass(frozen=True)
class Cell:
    """One thing that is tried out."""

    job: str
    fault: str
    step: str
    place: str

    @property
    def name(self) -> str:
        return f"{self.job}/{self.fault}/{self.step}"


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        struck: whether the fault hit the job.
        codes: exit codes of all runs; None for one that had to be ended.
        said: the last line of the first run that failed.
        same: whether the published result is that of the undisturbed job.
        seen: what the reader saw, and how often.
        commit: of the code that was struck.
    """

    job: str
    fault: str
    step: str
    place: str
    struck: bool
    codes: list[int | None]
    said: str
    same: bool
    seen: dict[str, int]
    seconds: float
    commit: str

    @property
    def whole(self) -> bool:
        wrong = ("half",) if FAULTS[self.fault].away else ("half", "no answer")
        return self.seen.get("whole", 0) > 0 and not any(one.startswith(wrong) for one in self.seen)

    @property
    def good(self) -> bool:
        return self.struck and self.same and self.whole and _is_done(self.job, self.codes)


@lru_cache
def commit() -> str:
    """Return which commit is checked out."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout.strip()


def _is_done(job: str, codes: Sequence[int | None]) -> bool:
    """Whether the last run ended well; train refuses (2) where its model is there."""
    return codes[-1:] == [0] or (job == "train" and codes[-1:] == [2] and 0 in codes)


def cells() -> Iterator[Cell]:
    """Yield all cells, those that have no sense left out."""
    for name, fault in FAULTS.items():
        for job in JOBS:
            if job not in fault.empty:
                place = "hdfs" if job == "put" else fault.place
                for step in fault.steps.get(job, fault.steps["others"]):
                    yield Cell(job, name, step, place)


def try_out(cell: Cell, world: World, prepared: Prepared) -> Outcome:
    """Strike the job, run it again, until it ends well, and look at what is there then."""
    fault: Fault = FAULTS[cell.fault]()
    scene = Scene(world, cell.job, cell.step, cell.place)
    seconds = SECONDS + fault.seconds
    restore(world.live(cell.place), prepared.kept)
    started = time.monotonic()
    codes: list[int | None] = []
    known = [prepared.before, prepared.after]
    with reading(world, cell.job, cell.place, known) as seen:
        try:
            fault.ready(scene)
            struck, said = _struck(fault, scene, seconds, codes)
            for _ in range(ATTEMPTS):
                again = world.start(cell.job, cell.place, "again", **scene.environment)
                scene.running.append(again)
                codes.append(ended(again, seconds))
                said = said or _last(again.output, codes[-1])
                if _is_done(cell.job, codes):
                    break
            time.sleep(1.0)  # the reader looks once more
            found = look(world, cell.job, cell.place)
        finally:
            scene.release()
            for job in scene.running:
                if job.process.poll() is None:
                    job.kill()
            fault.close(scene)
    same = found == prepared.after
    if cell.job == "maintain":
        same = same and small_files(world, cell.place) < SMALL_FILES
    took = round(time.monotonic() - started, 1)
    return Outcome(
        **asdict(cell),
        struck=struck,
        codes=codes,
        said=said.replace(str(world.folder), "DIR").replace(str(ROOT), "."),
        same=same,
        seen=dict(seen),
        seconds=took,
        commit=commit(),
    )


def _struck(
    fault: Fault, scene: Scene, seconds: float, codes: list[int | None]
) -> tuple[bool, str]:
    """Run the job with the fault; return whether it hit, and what the first failed run said."""
    said = ""
    try:
        if scene.begin("struck").runs:
            fault.strike(scene)
        else:
            said = "it ended before the step"
    except TimeoutError as error:
        said = str(error)
    finally:
        # What follows needs it, whatever came of the strike.
        struck = not said
        scene.release()
        for job in (scene.process, *scene.others):
            codes.append(ended(job, seconds))
            said = said or _last(job.output, codes[-1])
        fault.mend(scene)
    return struck, said


def _last(output: Path, code: int | None) -> str:
    if code == 0:
        return ""
    if code is None:
        return "it had to be ended"
    lines = output.read_text(errors="replace").splitlines() or [""]
    try:
        return str(json.loads(lines[-1])["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return "" if code < 0 else lines[-1][:300]


def told(outcome: Outcome) -> str:
    """Return what happened, in a few words."""
    codes = ", ".join("ended" if code is None else str(code) for code in outcome.codes)
    problems = [] if outcome.struck else ["NOT STRUCK"]
    problems += [] if outcome.same else ["ANOTHER RESULT"]
    problems += [] if outcome.whole else ["HALF SEEN"]
    problems += [] if _is_done(outcome.job, outcome.codes) else ["NEVER DONE"]
    return f"{'; '.join(problems) or 'ok'} ({codes})"


def page(outcomes: Iterable[Outcome]) -> str:
    """Return the matrix, and below it every cell, as Markdown."""
    latest = {(one.job, one.fault, one.step): one for one in outcomes}
    wanted = list(cells())
    rows = []
    for name, fault in FAULTS.items():
        row = [name]
        for job in JOBS:
            mine = [one for one in wanted if (one.job, one.fault) == (job, name)]
            shown = []
            for cell in mine:
                one = latest.get((cell.job, cell.fault, cell.step))
                text = told(one) if one else "not run"
                shown.append(f"{cell.step}: {text}" if len(mine) > 1 else text)
            row.append("<br>".join(shown) or f"- ({fault.empty[job]})")
        rows.append(row)
    every = []
    for cell in wanted:
        if one := latest.get((cell.job, cell.fault, cell.step)):
            looks = ", ".join(
                f"{text.replace('|', ' ')[:80]} x {n}" for text, n in one.seen.items()
            )
            every.append(
                (
                    *(one.job, one.fault, one.step, one.place),
                    ", ".join("ended" if code is None else str(code) for code in one.codes),
                    _cell(one.said[:160]),
                    *("yes" if one.same else "NO", "yes" if one.whole else "NO"),
                    *(_cell(looks), f"{one.seconds:.0f}"),
                )
            )
    ran = [latest[key] for cell in wanted if (key := (cell.job, cell.fault, cell.step)) in latest]
    good = sum(one.good for one in ran)
    minutes = sum(one.seconds for one in ran) / 60
    header = ("job", "fault", "at step", "where", "exit codes", "said", "same result", "whole")
    return (
        "# Faults\n\n"
        f"{len(wanted)} cells, {len(ran)} run, {good} ended well; {minutes:.0f} minutes in all. "
        f"Made by `make faults`, of the code of {', '.join(sorted({one.commit for one in ran}))}."
        "\n\n"
        "Each job was struck at the step, its cause mended, and the same command given again, in "
        "any case once, until it ended with 0; train refuses (2) where its model is there. In "
        "brackets: the exit codes of all runs (negative: killed by that signal; of two runs at "
        "once, of both). Where no step is named there is one: processes that work on tasks are "
        "killed while they have one (train: while two ranks train; maintain, whose tasks are "
        "Java's, before it writes); file times change before anything is written; and train, a "
        "run of which takes minutes, is struck at all its steps by the kill of its driver alone. "
        "ok: what is published is that of the undisturbed job row for row (a hash of each row, "
        "without the columns that name run and time; train: the same weights to the bit, and the "
        "rows of the run that the model names; put: every file's SHA-256), and a reader who looked "
        "twice a second saw nothing but what was published before, or all of it. What a job said "
        "is of that run: some of the lines may have been mended since.\n\n"
        f"{table(('fault', *JOBS), rows)}\n\n## What the steps are\n\n{_steps()}\n\n"
        f"{(HERE / 'faults_notes.md').read_text().strip()}\n\n"
        f"## Every cell\n\n{table((*header, 'seen', 's'), every)}\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", " ").replace("<", "&lt;")


def _steps() -> str:
    from eagle_spark.testing import failpoints as steps

    lines = str(steps.__doc__).splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def read_outcomes(file: Path) -> list[Outcome]:
    if not file.exists():
        return []
    return [Outcome(**json.loads(line)) for line in file.read_text().splitlines()]


@contextmanager
def cluster_in(folder: Path) -> Iterator[LocalCluster]:
    """Start a cluster, and stop it afterwards."""
    os.environ["HADOOP_CONF_DIR"] = str(folder / "conf")
    try:
        begun = cluster_command(folder, "up", "--free-ports")
        if begun.returncode:
            raise SystemExit(f"error: {begun.stderr}")
        yield LocalCluster(folder)
    finally:
        cluster_command(folder, "down")


@contextmanager
def world_in(work: Path, hadoop: bool) -> Iterator[World]:
    """Make what all cells need."""
    work.mkdir(parents=True, exist_ok=True)
    model = work / "model"
    if not model.exists():
        write_model(model, 64)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # The cluster first: Spark takes its configuration when it begins.
    with (
        cluster_in(work / "hadoop") if hadoop else nullcontext() as cluster,
        open_session("faults", str(work / "reader"), SESSION) as spark,
    ):
        yield World(work, model, spark, cluster)


def run(work: Path, out: Path, only: Sequence[str]) -> int:
    """Try out the cells that did not end well yet; return how many did not now."""
    record = work / "cells.jsonl"
    done = {(one.job, one.fault, one.step) for one in read_outcomes(record) if one.good}
    wanted = [
        cell
        for cell in cells()
        if any(fnmatch(cell.name, pattern) for pattern in only)
        and (cell.job, cell.fault, cell.step) not in done
    ]
    bad = 0
    for hadoop in (False, True):
        some = [cell for cell in wanted if (cell.place in ("hdfs", "yarn")) == hadoop]
        some.sort(key=_order)
        if not some:
            continue
        with world_in(work, hadoop) as world:
            for cell in some:
                one = _tried(cell, world)
                with record.open("a") as file:
                    file.write(json.dumps(asdict(one)) + "\n")
                out.write_text(page(read_outcomes(record)))
                bad += not one.good
    return bad


def _order(cell: Cell) -> tuple[bool, bool, int, int]:
    """Return what puts cheap cells first, and those at all steps before others."""
    steps = FAULTS[cell.fault].steps["others"]
    step = -STEPS.index(cell.step) if cell.step in STEPS else 0  # publishing first
    return cell.job == "train", len(steps) == 1, step, CHEAP_FIRST.index(cell.job)


def _tried(cell: Cell, world: World) -> Outcome:
    """Try out the cell; what the harness itself cannot do is an outcome too."""
    print(f"{cell.name} ({cell.place}): ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        one = try_out(cell, world, prepare(world, cell.job, cell.place))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        said = f"not tried out: {' '.join(str(error).split())[:300]}"
        took = round(time.monotonic() - started, 1)
        one = Outcome(**asdict(cell), **NOTHING, said=said, seconds=took, commit=commit())
    print(f"{told(one)}, {one.seconds:.0f} s; {one.said[:160]} {one.seen}", file=sys.stderr)
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", required=True, type=Path, help="folder for all that is made")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", action="append", metavar="JOB/FAULT/STEP", help="with * and ?")
    given = parser.parse_args()
    if bad := run(given.work.resolve(), given.out, given.only or ["*"]):
        raise SystemExit(f"error: {bad} cells did not end well")


if __name__ == "__main__":
    main()
