"""Overhead of YARN: a score run without new images, on one machine and in cluster mode.

    python -m benchmarks.yarn --images URI --model URI --warehouse URI [--dist dist] [--rounds 3]
        [--environments environment-score environment-train]

Requires a running local cluster, HADOOP_CONF_DIR, and the output of `make package` in
hdfs:///eagle_spark. The folder is scored once before. Then each round runs the same job on one
machine, and for each environment in cluster mode: with a package on HDFS that the nodes have
unpacked, with a package on HDFS that is new to the nodes, and with a package that the client
uploads. Wall seconds are those of spark-submit; `outside` are the wall seconds minus the seconds
of the job. The table at the end has the medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from uuid import uuid4

from eagle_spark.errors import EXIT_NEEDS_ATTENTION

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 900  # seconds
ENVIRONMENTS = ("environment-score", "environment-train")
JARS = "spark-jars.zip"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("images", "model", "warehouse"):
        parser.add_argument(f"--{name}", required=True, metavar="URI")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="output of make package")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", nargs="+", default=ENVIRONMENTS, metavar="NAME")
    options = parser.parse_args()
    job = [str(ROOT / "submit" / "score.py")]
    for name in ("images", "model", "warehouse"):
        job += [f"--{name}", getattr(options, name)]

    def local() -> list[str]:
        return []

    def warm(environment: str) -> list[str]:
        return cluster("hdfs:///eagle_spark", environment)

    def cold(environment: str) -> list[str]:
        folder = f"/eagle_spark/benchmark-{uuid4().hex[:8]}"
        file_shell("-mkdir", "-p", folder)
        file_shell("-put", str(archive_path(environment)), str(options.dist / JARS), folder)
        return cluster(f"hdfs://{folder}", environment)

    def uploaded(environment: str) -> list[str]:
        return cluster(options.dist.resolve().as_uri(), environment)

    def archive_path(environment: str) -> Path:
        return Path(options.dist, f"{environment}.tar.gz")

    kinds = {"on one machine": local}
    for environment in options.environments:
        kinds |= {
            f"{environment}, unpacked on the nodes": partial(warm, environment),
            f"{environment}, on HDFS, new to the nodes": partial(cold, environment),
            f"{environment}, uploaded by the client": partial(uploaded, environment),
        }
        run(warm(environment) + job)  # the first scores the images; each unpacks its environment
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    try:
        for number in range(options.rounds):
            for kind, settings in kinds.items():
                wall, inside = run(settings() + job)
                seconds[kind].append((wall, wall - inside))
                print(
                    f"round {number + 1}: {kind}: {wall:.1f} s, outside {wall - inside:.1f} s",
                    file=sys.stderr,
                )
    finally:
        file_shell("-rm", "-r", "-f", "-skipTrash", "/eagle_spark/benchmark-*")
    for kind, rows in seconds.items():
        walls, outside = [statistics.median(column) for column in zip(*rows, strict=True)]
        print(f"{kind:45} {walls:6.1f} s, outside {outside:6.1f} s")
    for file in (*map(archive_path, options.environments), options.dist / JARS):
        print(f"{file.name:45} {file.stat().st_size / 2**20:6.1f} MiB")
    return 0


def cluster(folder: str, environment: str) -> list[str]:
    """Return the options of spark-submit for an environment in `folder`."""
    return [
        *("--properties-file", str(ROOT / "conf" / "yarn-score.conf")),
        *("--conf", f"spark.yarn.archive={folder}/{JARS}"),
        *("--conf", f"spark.archives={folder}/{environment}.tar.gz#environment"),
    ]


def file_shell(*words: str) -> None:
    subprocess.run(
        [str(ROOT / "hadoop" / "fs"), *words], check=True, timeout=TIMEOUT, capture_output=True
    )


def run(words: list[str]) -> tuple[float, float]:
    """Submit the job; return the wall seconds and the seconds that the job reports."""
    started = time.monotonic()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("spark-submit")), *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    wall = time.monotonic() - started
    logs = ["cat"]  # the driver's output: here, or some seconds later in the containers' logs
    if application := re.search(r"application_\d+_\d+", done.stderr + done.stdout):
        logs = [str(ROOT / "hadoop" / "logs"), application.group(), "-log_files", "stdout"]
    for _ in range(20):
        output = subprocess.run(
            logs, input=done.stdout, capture_output=True, text=True, timeout=TIMEOUT
        ).stdout
        if lines := re.findall(r"^\{.*\}$", output, re.MULTILINE):
            result = json.loads(lines[-1])
            # In cluster mode spark-submit ends with 1 where the job ends with 3.
            if result["exit_code"] in (0, EXIT_NEEDS_ATTENTION):
                return wall, float(result["seconds"])
            break
        time.sleep(1)
    raise SystemExit(f"error: the job failed:\n{output[-1000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    raise SystemExit(main())
