"""score compared with `predict_udf`, a bare loop, Ray Data, Daft, a pandas UDF over Keras.

    python -m benchmarks.score --images DIR --model DIR [--count 2000] [--large 1200] [--rounds 5]
                               [--systems ours,predict_udf,loop,engine,udf,ray,daft]

Uses `count` images of DIR unchanged, and `large` of them as JPEGs of 2000 x 2000 pixels. Every
system reads the same files and writes Parquet. All but `udf` do the same work for a row by the code
of this package: SHA-256, decoding, the exported model, mask, columns of the review (`udf` is a
pandas UDF over `keras.predict`, Pillow without draft mode, masks as lists of floats). `ours` is
`spark-submit submit/score.py` into an empty warehouse, with all its guarantees, `predict_udf` the
UDF of this package. Ray and Daft are installed into `build/rivals` on first use.

Systems take turns, in each round another one begins; figures are medians over the rounds. `seconds`
count from start to end of the process; `steady` is the rate between the first 20 % and the first
80 % of the rows, counted between ends of batches; `first_batch` the seconds from start to the first
row; `cpu_by_kind` the CPU seconds of Java, the driver's Python, Python workers and other programs.
`engine` is the upper bound: one process per core on decoded images, without reading and writing.
`ratio` is `ours` divided by the system within a round: median, minimum and maximum over the rounds.
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
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.types as pt

from eagle_spark.doctor.probes import read_java_version
from tests.helpers.processes import ROOT, link_images, run_watched, submit_words
from tests.helpers.rates import compute_steady_rate, summarise_ratios

RIVALS = ROOT / "build" / "rivals"
RIVAL_LIBRARIES = ("ray[data]", "daft", "simplejpeg", "opencv-python-headless")
TIMEOUT = 1800  # seconds
SYSTEMS = ("ours", "predict_udf", "loop", "engine", "udf", "ray", "daft")
LARGE_SIDE = 2000
CORES = len(os.sched_getaffinity(0))
RATIOS = ("steady", "first_batch", "seconds")
LIBRARIES = (
    *("pyspark", "pyarrow", "numpy", "pillow", "openvino", "keras", "tensorflow"),
    *("daft", "ray"),
)
READ_VERSIONS = f"""
import json, platform
from importlib.metadata import PackageNotFoundError, version
versions = {{"python": platform.python_version()}}
for name in {LIBRARIES}:
    try:
        versions[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(versions))
"""


def find_interpreter(system: str) -> str:
    """Return the Python of a system: this one, or for Ray and Daft that of the rivals."""
    return prepare_rivals() if system in ("ray", "daft") else sys.executable


def prepare_rivals() -> str:
    """Return a Python that has the `RIVAL_LIBRARIES` and all of this one; install them once."""
    python, libraries = RIVALS / "bin" / "python", "\n".join(RIVAL_LIBRARIES)
    ready = RIVALS / ".ready"
    if not ready.exists() or ready.read_text() != libraries:
        venv.create(RIVALS, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *RIVAL_LIBRARIES], check=True)
        (packages,) = RIVALS.glob("lib/python*/site-packages")
        (ours,) = {path for path in sys.path if path.endswith("site-packages")}
        (packages / "eagle.pth").write_text(f"{ours}\n")
        ready.write_text(libraries)
    return str(python)


def read_versions(systems: list[str]) -> dict[str, dict[str, str]]:
    """Return the versions of the libraries of each interpreter, by the systems that it runs."""
    by_interpreter: dict[str, list[str]] = {}
    for system in systems:
        by_interpreter.setdefault(find_interpreter(system), []).append(system)
    return {
        ", ".join(names): json.loads(subprocess.check_output([python, "-c", READ_VERSIONS]))
        for python, names in by_interpreter.items()
    }


def enlarge(folder: Path, count: int, target: Path) -> Path:
    """Write the first images of a folder as large JPEGs into a new folder."""
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
    """Run one system once over a folder; return seconds, memory, and rates of its rows.

    Args:
        keep: keep the output of an earlier run; `ours` then has nothing to score.
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
        words = [find_interpreter(system), "-m", f"benchmarks.rivals.{module}"]
        words += [str(paths), model, engine, str(out)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYSPARK_PYTHON": sys.executable}
    # Spark and Ray set it for their workers; without it the processes of a loop compete for cores.
    environment["OMP_NUM_THREADS"] = "1"
    started = time.time()
    _, load = run_watched(words, TIMEOUT, **environment)
    if system == "engine":
        rates = [json.loads(path.read_text()) for path in out.glob("*.json")]
        return {"steady": round(sum(rates), 1)}
    times = read_scored_at(out / "cxr" / "predictions" / "data" if system == "ours" else out)
    count = len(list(folder.iterdir()))
    if len(times) != count:
        raise SystemExit(f"error: {system}: {len(times)} rows of {count} images")
    return {
        "seconds": load.seconds,
        "cpu_seconds": load.cpu_seconds,
        "cpu_by_kind": load.cpu_by_kind,
        "peak_gb": load.peak_gb,
        "process_gb": load.process_gb,
        "first_batch": round(times[0] - started, 2),
        "steady": round(compute_steady_rate(times, CORES), 1),
    }


def read_scored_at(folder: Path) -> list[float]:
    """Return `scored_at` of all rows, seconds since the epoch, in order."""
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
    parser.add_argument("--large", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    options = parser.parse_args()
    systems = options.systems.split(",")
    model = str(Path(options.model).resolve())
    figures: dict[str, Any] = {
        "cores": CORES,
        "rounds": options.rounds,
        "java": read_java_version(),
        "versions": read_versions(systems),
    }
    print(json.dumps(figures), file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as name:
        work = Path(name)
        sets = {"small": link_images(options.images, options.count, work / "small")}
        if options.large:
            sets["large"] = enlarge(sets["small"], options.large, work / "large")
        for kind, folder in sets.items():
            runs: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
            for number in range(options.rounds):
                first = number % len(systems)
                for system in systems[first:] + systems[:first]:
                    runs[system].append(run(system, folder, model, options.engine, work))
                    line = json.dumps(runs[system][-1])
                    print(f"{kind}, round {number + 1}: {system}: {line}", file=sys.stderr)
            figures[kind] = summarise(runs)
    print(json.dumps(figures, indent=1))


def summarise(runs_by_system: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the medians of each system, and the ratios of `ours` to it."""
    table = {system: summarise_system(runs) for system, runs in runs_by_system.items()}
    ours = runs_by_system.get("ours", [])
    for system, runs in runs_by_system.items():
        if ours and system != "ours":
            table[system]["ratio"] = compare_rounds(ours, runs)
    return table


def compare_rounds(
    ours: list[dict[str, Any]], others: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return the ratios of `RATIOS` that the other system has, see `summarise_ratios`."""
    return {
        name: summarise_ratios([run[name] for run in ours], [run[name] for run in others])
        for name in RATIOS
        if name in others[0]
    }


def summarise_system(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of the figures of a system; of CPU seconds also by kind of process."""
    medians: dict[str, Any] = {
        name: statistics.median(run[name] for run in runs)
        for name, value in runs[0].items()
        if not isinstance(value, dict)
    }
    by_kind = [run["cpu_by_kind"] for run in runs if "cpu_by_kind" in run]
    if by_kind:
        medians["cpu_by_kind"] = {
            kind: statistics.median(seconds.get(kind, 0.0) for seconds in by_kind)
            for kind in sorted(set().union(*by_kind))
        }
    return medians


if __name__ == "__main__":
    main()
