"""The engine alone, one process per core, on decoded images: the upper bound."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from benchmarks.rivals.work import BATCH, Arguments, load, parse_arguments
from eagle_spark.imaging.decode import decode_image

ROUNDS, START_SECONDS = 4, 120


def work(part: int, parts: int, arguments: Arguments, barrier: Barrier) -> None:
    model = load(arguments.model, arguments.engine)
    paths = arguments.paths[part::parts][: 4 * BATCH]
    pixels = np.stack([decode_image(Path(path).read_bytes(), model.size).pixels for path in paths])
    model.compute_outputs(pixels[:BATCH])
    barrier.wait(START_SECONDS)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        for first in range(0, len(pixels), BATCH):
            model.compute_outputs(pixels[first : first + BATCH])
    rate = ROUNDS * len(pixels) / (time.perf_counter() - started)
    Path(arguments.out, f"{part}.json").write_text(json.dumps(rate))


if __name__ == "__main__":
    arguments = parse_arguments()
    os.makedirs(arguments.out)
    parts = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(parts)
    processes = [
        spawn.Process(target=work, args=(i, parts, arguments, barrier)) for i in range(parts)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
