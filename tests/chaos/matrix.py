"""The fault matrix: each job with each fault, repeated until it succeeds.

    python -m tests.chaos.matrix --work DIR --out results/faults.md [--only JOB/FAULT/STEP]…

The published result is compared row by row with that of the undisturbed job, and a reader polls it
during the cell. Each finished cell is a line in DIR/cells.jsonl; successful cells are not repeated.
`make faults` runs all cells.
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

from eagle_spark.model.card import render_table
from eagle_spark.spark.session import open_session
from eagle_spark.tables.maintenance import SMALL_FILES
from eagle_spark.testing.failpoints import FAILPOINTS
from tests.chaos.fault_jobs import JOBS, SECONDS, Sandbox, wait_for_exit
from tests.chaos.fault_reader import count_files, poll_published, read_published
from tests.chaos.fault_ready import Prepared, prepare, restore
from tests.chaos.fault_scene import Trial
from tests.chaos.fault_strikes import FAULTS, Fault
from tests.chaos.reader import SESSION
from tests.cluster.local_cluster import LocalCluster, cluster_command
from tests.helpers.processes import ROOT
from tests.helpers.tiny_model import write_model

HERE = Path(__file__).resolve().parent
CHEAP_FIRST = ("put", "preprocess", "maintain", "score", "train")
NOT_RUN: dict[str, Any] = {"struck": False, "codes": [], "same": False, "seen": {}}
ATTEMPTS = 3  # of a job after the strike


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix: a job and a fault at a failpoint."""

    job: str
    fault: str
    step: str
    place: str

    @property
    def name(self) -> str:
        return f"{self.job}/{self.fault}/{self.step}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell.

    Attributes:
        struck: whether the fault hit the job.
        codes: exit codes of all runs; None for a run that was killed after a timeout.
        said: error of the first run that failed.
        same: whether the published result equals that of the undisturbed job.
        seen: observations of the reader -> number.
        commit: of the tested code.
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
        return self.seen.get("whole", 0) > 0 and not any(
            outcome.startswith(wrong) for outcome in self.seen
        )

    @property
    def good(self) -> bool:
        return self.struck and self.same and self.whole and _is_done(self.job, self.codes)


@lru_cache
def commit() -> str:
    """Return the commit that is checked out."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout.strip()


@lru_cache
def describe_commit(name: str) -> str:
    """Return a commit with its date; the name alone if this clone does not have the commit."""
    words = ["git", "-C", str(ROOT), "show", "-s", "--format=%cs", name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return f"{name} of {date}" if (date := done.stdout.strip()) else name


def _is_done(job: str, codes: Sequence[int | None]) -> bool:
    """Whether the last run succeeded; train ends with 2 if its model exists."""
    return codes[-1:] == [0] or (job == "train" and codes[-1:] == [2] and 0 in codes)


def cells() -> Iterator[Cell]:
    """Yield all cells to which the fault applies."""
    for name, fault in FAULTS.items():
        for job in JOBS:
            if job not in fault.empty:
                place = "hdfs" if job == "put" else fault.place
                for step in fault.steps.get(job, fault.steps["others"]):
                    yield Cell(job, name, step, place)


def run_trial(cell: Cell, sandbox: Sandbox, prepared: Prepared) -> Outcome:
    """Strike the job, run it again until it succeeds, and read the published result."""
    fault: Fault = FAULTS[cell.fault]()
    trial = Trial(sandbox, cell.job, cell.step, cell.place)
    seconds = SECONDS + fault.seconds
    restore(sandbox.live(cell.place), prepared.copy)
    started = time.monotonic()
    codes: list[int | None] = []
    complete = [prepared.before, prepared.after]
    with poll_published(sandbox, cell.job, cell.place, complete) as observations:
        try:
            fault.ready(trial)
            struck, message = _struck(fault, trial, seconds, codes)
            for _ in range(ATTEMPTS):
                again = sandbox.start(cell.job, cell.place, "again", **trial.environment)
                trial.running.append(again)
                codes.append(wait_for_exit(again, seconds))
                message = message or _last(again.output, codes[-1])
                if _is_done(cell.job, codes):
                    break
            time.sleep(1.0)  # for one more poll of the reader
            published = read_published(sandbox, cell.job, cell.place)
        finally:
            trial.release()
            for job in trial.running:
                if job.process.poll() is None:
                    job.kill()
            fault.close(trial)
    same = published == prepared.after
    if cell.job == "maintain":
        same = same and count_files(sandbox, cell.place) < SMALL_FILES
    took = round(time.monotonic() - started, 1)
    return Outcome(
        **asdict(cell),
        struck=struck,
        codes=codes,
        said=message.replace(str(sandbox.folder), "DIR").replace(str(ROOT), "."),
        same=same,
        seen=dict(observations),
        seconds=took,
        commit=commit(),
    )


def _struck(
    fault: Fault, trial: Trial, seconds: float, codes: list[int | None]
) -> tuple[bool, str]:
    """Run the job with the fault; return whether it hit, and the error of the first failed run."""
    message = ""
    try:
        if trial.begin("struck").is_running:
            fault.strike(trial)
        else:
            message = "it ended before the step"
    except TimeoutError as error:
        message = str(error)
    finally:
        # The next runs need this after any strike.
        struck = not message
        trial.release()
        for job in (trial.process, *trial.others):
            codes.append(wait_for_exit(job, seconds))
            message = message or _last(job.output, codes[-1])
        fault.mend(trial)
    return struck, message


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


def describe(outcome: Outcome) -> str:
    """Return a summary of the outcome."""
    codes = ", ".join("ended" if code is None else str(code) for code in outcome.codes)
    problems = [] if outcome.struck else ["NOT STRUCK"]
    problems += [] if outcome.same else ["ANOTHER RESULT"]
    problems += [] if outcome.whole else ["HALF SEEN"]
    problems += [] if _is_done(outcome.job, outcome.codes) else ["NEVER DONE"]
    return f"{'; '.join(problems) or 'ok'} ({codes})"


def page(outcomes: Iterable[Outcome]) -> str:
    """Return the matrix and the table of all cells as Markdown."""
    latest = {(outcome.job, outcome.fault, outcome.step): outcome for outcome in outcomes}
    all_cells = list(cells())
    rows = []
    for name, fault in FAULTS.items():
        row = [name]
        for job in JOBS:
            row_cells = [cell for cell in all_cells if (cell.job, cell.fault) == (job, name)]
            shown = []
            for cell in row_cells:
                outcome = latest.get((cell.job, cell.fault, cell.step))
                text = describe(outcome) if outcome else "not run"
                shown.append(f"{cell.step}: {text}" if len(row_cells) > 1 else text)
            row.append("<br>".join(shown) or f"- ({fault.empty[job]})")
        rows.append(row)
    every = []
    for cell in all_cells:
        if outcome := latest.get((cell.job, cell.fault, cell.step)):
            looks = ", ".join(
                f"{text.replace('|', ' ')[:80]} x {n}" for text, n in outcome.seen.items()
            )
            every.append(
                (
                    *(outcome.job, outcome.fault, outcome.step, outcome.place),
                    ", ".join("ended" if code is None else str(code) for code in outcome.codes),
                    _cell(outcome.said[:160]),
                    *("yes" if outcome.same else "NO", "yes" if outcome.whole else "NO"),
                    *(_cell(looks), f"{outcome.seconds:.0f}"),
                )
            )
    ran = [
        latest[key] for cell in all_cells if (key := (cell.job, cell.fault, cell.step)) in latest
    ]
    good = sum(outcome.good for outcome in ran)
    minutes = sum(outcome.seconds for outcome in ran) / 60
    commits = sorted({outcome.commit for outcome in ran})
    header = ("job", "fault", "step", "where", "exit codes", "first error", "same result", "whole")
    return f"""# What becomes of a job that a fault hits?

{good} of {len(all_cells)} cells end well: the same command, run again, publishes the result of the undisturbed
job, and no reader sees a part of it.

{render_table(("fault", *JOBS), rows)}

## How to read the table

- A cell is a job, a fault and a step of the job. The job pauses at the step, the fault strikes, its cause is
  removed, and the same command runs again, at least once, until it ends with 0. `train` ends with 2 where its
  model exists.
- In brackets: the exit codes of all runs. A negative code is the signal that killed the run. Of two runs at
  once both codes are shown.
- A cell without names of steps has one step. Processes of tasks are killed during a task: train while two ranks
  train, maintain before it writes, as its tasks run in Java. File times change before anything is written. A
  run of train takes minutes: only the kill of its driver strikes at all its steps.
- `ok`: the published rows equal those of the undisturbed job (a hash of each row, without the columns of run
  and time; train: the same weights to the bit, and the rows of the run that the model names; put: the SHA-256
  of every file), and a reader that polls twice a second sees the earlier result or the whole new one.
- `first error` is the text of the version that ran; later versions may have another text.

## How to run it

<!-- not run: takes hours -->
```bash
make faults                    # all cells that have not ended well yet
make faults ONLY='score/*/*'   # some of them
```

## Date and machine

Code of {", ".join(map(describe_commit, commits))}; {len(ran)} cells in {minutes:.0f} minutes on one machine, on which the HDFS and YARN of
`make hadoop-up` run as well.

## The steps

{_steps()}

{(HERE / "faults_notes.md").read_text().strip()}

## Every cell

{render_table((*header, "reader", "s"), every)}
"""  # noqa: E501


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
def open_cluster(folder: Path) -> Iterator[LocalCluster]:
    """Run a cluster during the block."""
    os.environ["HADOOP_CONF_DIR"] = str(folder / "conf")
    try:
        begun = cluster_command(folder, "up", "--free-ports")
        if begun.returncode:
            raise SystemExit(f"error: {begun.stderr}")
        yield LocalCluster(folder)
    finally:
        cluster_command(folder, "down")


@contextmanager
def open_sandbox(work: Path, hadoop: bool) -> Iterator[Sandbox]:
    """Yield the folders and services of all cells."""
    work.mkdir(parents=True, exist_ok=True)
    model = work / "model"
    if not model.exists():
        write_model(model, 64)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # The cluster first: Spark reads its configuration at its start.
    with (
        open_cluster(work / "hadoop") if hadoop else nullcontext() as cluster,
        open_session("faults", str(work / "reader"), SESSION) as spark,
    ):
        yield Sandbox(work, model, spark, cluster)


def run(work: Path, out: Path, only: Sequence[str]) -> int:
    """Run the cells that have not succeeded yet; return the number of failures."""
    record = work / "cells.jsonl"
    done = {
        (outcome.job, outcome.fault, outcome.step)
        for outcome in read_outcomes(record)
        if outcome.good
    }
    remaining = [
        cell
        for cell in cells()
        if any(fnmatch(cell.name, pattern) for pattern in only)
        and (cell.job, cell.fault, cell.step) not in done
    ]
    bad = 0
    for hadoop in (False, True):
        selected = [cell for cell in remaining if (cell.place in ("hdfs", "yarn")) == hadoop]
        selected.sort(key=_order)
        if not selected:
            continue
        with open_sandbox(work, hadoop) as sandbox:
            for cell in selected:
                outcome = _tried(cell, sandbox)
                with record.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                out.write_text(page(read_outcomes(record)))
                bad += not outcome.good
    return bad


def _order(cell: Cell) -> tuple[bool, bool, int, int]:
    """Return a sort key: cheap cells first, faults at all failpoints before others."""
    steps = FAULTS[cell.fault].steps["others"]
    step = -FAILPOINTS.index(cell.step) if cell.step in FAILPOINTS else 0  # publishing first
    return cell.job == "train", len(steps) == 1, step, CHEAP_FIRST.index(cell.job)


def _tried(cell: Cell, sandbox: Sandbox) -> Outcome:
    """Run the cell; a failure of the harness is an outcome too."""
    print(f"{cell.name} ({cell.place}): ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        outcome = run_trial(cell, sandbox, prepare(sandbox, cell.job, cell.place))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        message = f"not tried out: {' '.join(str(error).split())[:300]}"
        took = round(time.monotonic() - started, 1)
        outcome = Outcome(**asdict(cell), **NOT_RUN, said=message, seconds=took, commit=commit())
    print(
        f"{describe(outcome)}, {outcome.seconds:.0f} s; {outcome.said[:160]} {outcome.seen}",
        file=sys.stderr,
    )
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", required=True, type=Path, help="folder for all files")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", action="append", metavar="JOB/FAULT/STEP", help="with * and ?")
    arguments = parser.parse_args()
    if bad := run(arguments.work.resolve(), arguments.out, arguments.only or ["*"]):
        raise SystemExit(f"error: {bad} cells did not end well")


if __name__ == "__main__":
    main()
