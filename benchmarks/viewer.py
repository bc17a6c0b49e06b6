"""Cost of the viewer window: memory, time to the first result, time to the next ones.

    python -m benchmarks.viewer --model DIR --images DIR [--count 50] [--rounds 5]

Each of `rounds` starts a new process like `eagle-view`, without a display. `first_seconds` is the
time from the start of the process until the first image and its prediction are in the window,
Python and Qt included; `next_ms` the time from the key for the next image until that is drawn, over
`count` images. `pause_ms` is the longest time in which the window handles no event. `peak_mb` is
the largest resident memory, `unique_mb` the memory that no other process shares, both at the end.
Medians of the rounds; of `pause_ms` and `peak_mb` the largest.
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

from tests.helpers.processes import ROOT, link_images

BEAT_MILLISECONDS = 5
TIMEOUT = 300  # seconds
MAXIMA = ("pause_ms", "peak_mb")


def run_window(model: str, folder: str, count: int) -> dict[str, float]:
    """Open the window in this process and step through a folder; return times and memory."""
    from PySide6.QtCore import QSettings, QTimer

    from eagle_spark.viewer.app import create_application
    from eagle_spark.viewer.window import Window
    from eagle_spark.viewer.words import ENGLISH

    application = create_application()
    settings = QSettings(os.path.join(folder, ".settings.ini"), QSettings.Format.IniFormat)
    window = Window(ENGLISH, settings)
    window.show()
    window.open_model(model)
    window.open_files([folder])
    beats, waits = [time.perf_counter()], []
    first: list[float] = []
    requested = 0.0

    def beat() -> None:
        beats.append(time.perf_counter())

    def record(_analysis: object) -> None:
        nonlocal requested
        window.canvas.repaint()
        if not first:
            first.append(time.time() - psutil.Process().create_time())
        else:
            waits.append(time.perf_counter() - requested)
        if len(waits) == count:
            window.close()
            application.quit()
            return
        QTimer.singleShot(20, step)

    def step() -> None:
        nonlocal requested
        requested = time.perf_counter()
        window.step(1)

    timer = QTimer()
    timer.timeout.connect(beat)
    timer.start(BEAT_MILLISECONDS)
    window.analysis_shown.connect(record)
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
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        folder = link_images(images, count + 1, Path(name, "images"))
        words = [sys.executable, "-m", "benchmarks.viewer", "--inside"]
        words += ["--model", model, "--images", str(folder), "--count", str(count)]
        figures = []
        for _ in range(rounds):
            done = subprocess.run(
                words,
                cwd=ROOT,
                env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
            if done.returncode:
                raise SystemExit(f"error: {done.stderr[-3000:]}")
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    summary = {
        key: max(row[key] for row in figures)
        if key in MAXIMA
        else statistics.median(row[key] for row in figures)
        for key in figures[0]
    }
    return {**summary, "rounds": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(run_window(options.model, str(options.images), options.count)))
        return
    model = os.path.abspath(options.model)
    print(json.dumps(measure(model, options.images, options.count, options.rounds)))


if __name__ == "__main__":
    main()
