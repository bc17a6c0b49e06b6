"""What the window takes: memory, time to the first result, time to the next ones.

    python -m benchmarks.viewer --model DIR --images DIR [--count 50] [--rounds 5]

The program is started anew in each of `rounds`, as `eagle-view` starts, without a display.
`first_seconds` run from the start of the process until the first image stands in the window with
its answer, Python and Qt included; `next_ms` from a key that asks for the next image until it has
been drawn, over `count` images. `pause_ms` is the longest time without an answer of the window.
`peak_mb` is the largest resident memory, `unique_mb` what is shared with no other process, both at
the end. Medians of the rounds, but for `pause_ms` and `peak_mb`: the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from tests.helpers.processes import ROOT

BEAT = 5  # milliseconds
LONGEST = 300  # seconds
WORST = ("pause_ms", "peak_mb")


def look(model: str, folder: str, count: int) -> dict[str, float]:
    """Open the window in this process, step through a folder, and return what it took."""
    from PySide6.QtCore import QSettings, QTimer

    from eagle_spark.viewer.app import make_application
    from eagle_spark.viewer.window import Window
    from eagle_spark.viewer.words import ENGLISH

    application = make_application()
    settings = QSettings(os.path.join(folder, ".settings.ini"), QSettings.Format.IniFormat)
    window = Window(ENGLISH, settings)
    window.show()
    window.open_model(model)
    window.open_files([folder])
    beats, waits = [time.perf_counter()], []
    first: list[float] = []
    asked = 0.0

    def beat() -> None:
        beats.append(time.perf_counter())

    def shown(_found: object) -> None:
        nonlocal asked
        window.canvas.repaint()
        if not first:
            first.append(time.time() - psutil.Process().create_time())
        else:
            waits.append(time.perf_counter() - asked)
        if len(waits) == count:
            window.close()
            application.quit()
            return
        QTimer.singleShot(20, step)

    def step() -> None:
        nonlocal asked
        asked = time.perf_counter()
        window.step(1)

    timer = QTimer()
    timer.timeout.connect(beat)
    timer.start(BEAT)
    window.shown.connect(shown)
    application.exec()
    memory = psutil.Process().memory_full_info()
    return {
        "first_seconds": round(first[0], 2),
        "next_ms": round(1000 * statistics.median(waits), 1),
        "slowest_ms": round(1000 * max(waits), 1),
        "pause_ms": round(1000 * max(b - a for a, b in pairwise(beats)), 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
        "unique_mb": round(memory.uss / 1e6, 1),
    }


def measure(model: str, images: Path, count: int, rounds: int) -> dict[str, Any]:
    from benchmarks.score import choose  # brings Arrow, which the window is without

    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = choose(images, count + 1, Path(name, "some"))
        words = [sys.executable, "-m", "benchmarks.viewer", "--inside"]
        words += ["--model", model, "--images", str(folder), "--count", str(count)]
        found = []
        for _ in range(rounds):
            done = subprocess.run(
                words,
                cwd=ROOT,
                env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
                capture_output=True,
                text=True,
                timeout=LONGEST,
            )
            if done.returncode:
                raise SystemExit(f"error: {done.stderr[-3000:]}")
            found.append(json.loads(done.stdout.splitlines()[-1]))
    together = {
        key: max(one[key] for one in found)
        if key in WORST
        else statistics.median(one[key] for one in found)
        for key in found[0]
    }
    return {**together, "rounds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        found: dict[str, Any] = look(given.model, str(given.images), given.count)
    else:
        found = measure(os.path.abspath(given.model), given.images, given.count, given.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
