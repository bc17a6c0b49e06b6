"""score beside other ways to do the same: a bare loop, Ray Data, Daft, Spark as most write it.

    python -m benchmarks.score --images DIR --model DIR [--count 2000] [--large 300] [--rounds 3]
                               [--systems ours,loop,engine,udf,ray,daft]

From DIR `count` images are taken as they are, and `large` of them as JPEGs of 2000 x 2000 pixels.
Every system reads the same files and writes Parquet; all but `udf` use the same decoder and the
same exported model (`udf` is a pandas UDF over `keras.predict`, Pillow without draft mode, masks as
lists of floats). Ours is `spark-submit submit/score.py` into an empty warehouse, guarantees and
all. Ray and Daft are installed into `build/rivals` on first use.

Systems take turns, `rounds` times; figures are medians. `seconds` are those from start to end of
the process; `steady` is the rate between the 20 % and the 80 % of rows that were scored first;
`first_batch` the seconds from start to the first row. `engine` is the upper bound: a process a core
on decoded images, reading and writing nothing. `ratio` is ours to theirs, of `steady`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.types as pt

from tests.helpers.processes import ROOT, images_in, run_watched, submit_words

RIVALS = ROOT / "build" / "rivals"
TIMEOUT = 1800  # seconds
SYSTEMS = ("ours", "loop", "engine", "udf", "ray", "daft")
LARGE_SIDE = 2000


def interpreter(system: str) -> str:
    """Return the Python of a system: ours, or one that has Ray and Daft beside all of ours."""
    if system not in ("ray", "daft"):
        return sys.executable
    python = RIVALS / "bin" / "python"
    if not (RIVALS / ".ready").exists():
        venv.create(RIVALS, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "ray[data]", "daft"], check=True)
        (packages,) = RIVALS.glob("lib/python*/site-packages")
        (own,) = {path for path in sys.path if path.endswith("site-packages")}
        (packages / "eagle.pth").write_text(f"{own}\n")
        (RIVALS / ".ready").touch()
    return str(python)


def choose(folder: Path, count: int, target: Path) -> Path:
    """Put links to some images of a folder, by a hash of their path, into a new one."""
    files = sorted(
        images_in(folder),
        key=lambda path: sha256(str(path.relative_to(folder)).encode()).digest(),
    )
    target.mkdir()
    for number, path in enumerate(files[:count]):
        (target / f"{number:06d}{path.suffix.lower()}").symlink_to(path.resolve())
    return target


def enlarge(folder: Path, count: int, target: Path) -> Path:
    from PIL import Image

    target.mkdir()
    for path in sorted(folder.iterdir())[:count]:
        with Image.open(path) as image:
            large = image.convert("L").resize((LARGE_SIDE, LARGE_SIDE), Image.Resampling.BICUBIC)
            large.save(target / f"{path.stem}.jpg", quality=90)
    return target


def run(
    system: str, folder: Path, model: str, engine: str, work: Path, *, keep: bool = False
) -> dict[str, Any]:
    """Run one system once over a folder; return seconds, memory, and rates from its rows.

    Args:
        keep: leave what an earlier run wrote; ours then finds nothing new.
    """
    out = work / "out"
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
    if system == "ours":
        options = ["--images", str(folder), "--model", model, "--engine", engine]
        words = submit_words("score", *options, "--warehouse", str(out))
    else:
        paths = work / "paths"
        paths.write_text("\n".join(str(path) for path in sorted(folder.iterdir())))
        module = {"ray": "ray_data", "daft": "daft_data"}.get(system, system)
        words = [interpreter(system), "-m", f"benchmarks.rivals.{module}"]
        words += [str(paths), model, engine, str(out)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYSPARK_PYTHON": sys.executable}
    # Spark and Ray say so to their workers; without it those of a loop fight over the cores.
    environment["OMP_NUM_THREADS"] = "1"
    started = time.time()
    _, load = run_watched(words, TIMEOUT, **environment)
    if system == "engine":
        rates = [json.loads(path.read_text()) for path in out.glob("*.json")]
        return {"steady": round(sum(rates), 1)}
    times = scored_at(out / "cxr" / "predictions" / "data" if system == "ours" else out)
    count = len(list(folder.iterdir()))
    if len(times) != count:
        raise SystemExit(f"error: {system}: {len(times)} rows of {count} images")
    low, high = times[count // 5], times[count * 4 // 5]
    return {
        "seconds": load.seconds,
        "cpu_seconds": load.cpu_seconds,
        "peak_gb": load.peak_gb,
        "process_gb": load.process_gb,
        "first_batch": round(times[0] - started, 1),
        "steady": round((count * 4 // 5 - count // 5) / (high - low), 1),
    }


def scored_at(folder: Path) -> list[float]:
    """Return when each row was scored, seconds since the epoch, in order."""
    files = [str(path) for path in folder.rglob("*.parquet")]
    column = ds.dataset(files).to_table(["scored_at"])["scored_at"].drop_null()
    values = column.to_pylist()
    return sorted(value.timestamp() if pt.is_timestamp(column.type) else value for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--large", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    given = parser.parse_args()
    systems = given.systems.split(",")
    model = str(Path(given.model).resolve())
    figures: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "rounds": given.rounds}
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = Path(name)
        sets = {"small": choose(given.images, given.count, work / "small")}
        if given.large:
            sets["large"] = enlarge(sets["small"], given.large, work / "large")
        for kind, folder in sets.items():
            found: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
            for number in range(given.rounds):
                for system in systems:
                    found[system].append(run(system, folder, model, given.engine, work))
                    told = json.dumps(found[system][-1])
                    print(f"{kind}, round {number + 1}: {system}: {told}", file=sys.stderr)
            figures[kind] = summary(found)
    print(json.dumps(figures, indent=1))


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return the medians, and how many times as fast as each of the others ours was."""
    table = {
        system: {
            name: statistics.median(run[name] for run in runs)
            for name in runs[0]
            if name != "process_gb"
        }
        for system, runs in found.items()
    }
    if "ours" in table:
        for row in table.values():
            row["ratio"] = round(table["ours"]["steady"] / row["steady"], 2)
    return table


if __name__ == "__main__":
    main()
