"""The engine alone, one process a core, on images that are decoded already: the upper bound."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.rivals.work import BATCH, Told, loaded, told
from eagle_spark.imaging.decode import read_radiograph


def work(part: int, parts: int, given: Told, gate: multiprocessing.synchronize.Barrier) -> None:
    bundle, engine = loaded(given.model, given.engine)
    some = given.paths[part::parts][: 4 * BATCH]
    pixels = np.stack([read_radiograph(Path(p).read_bytes(), bundle.size).pixels for p in some])
    engine.predict(pixels[:BATCH])
    gate.wait(120)
    started = time.perf_counter()
    for _ in range(4):
        for first in range(0, len(pixels), BATCH):
            engine.predict(pixels[first : first + BATCH])
    rate = 4 * len(pixels) / (time.perf_counter() - started)
    Path(given.out, f"{part}.json").write_text(json.dumps(rate))


if __name__ == "__main__":
    os.makedirs(told().out)
    parts = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    gate = spawn.Barrier(parts)
    processes = [spawn.Process(target=work, args=(i, parts, told(), gate)) for i in range(parts)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
