"""Overhead of YARN: a score run without new images, on one machine and in cluster mode.

    python -m benchmarks.yarn --images URI --model URI --warehouse URI [--dist dist] [--rounds 3]

Requires a running local cluster and HADOOP_CONF_DIR. The folder is scored once before. Then each
round runs the same job on one machine; in cluster mode with a package on HDFS that the nodes have
unpacked; with a package on HDFS that is new to the nodes; and with a package that the client
uploads. Wall seconds are those of spark-submit; `outside` are the wall seconds minus the seconds
of the job.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

from eagle_spark.errors import EXIT_NEEDS_ATTENTION

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 900  # seconds
FILES = ("environment.tar.gz", "spark-jars.zip")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("images", "model", "warehouse"):
        parser.add_argument(f"--{name}", required=True, metavar="URI")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="output of make package")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    job = [str(ROOT / "submit" / "score.py")]
    for name in ("images", "model", "warehouse"):
        job += [f"--{name}", getattr(options, name)]

    def local() -> list[str]:
        return []

    def warm() -> list[str]:
        return cluster("hdfs:///eagle_spark")

    def cold() -> list[str]:
        folder = f"/eagle_spark/benchmark-{uuid4().hex[:8]}"
        file_shell("-mkdir", "-p", folder)
        file_shell("-put", *(str(options.dist / name) for name in FILES), folder)
        return cluster(f"hdfs://{folder}")

    def uploaded() -> list[str]:
        return cluster(options.dist.resolve().as_uri())

    kinds = {
        "on one machine": local,
        "on YARN, package unpacked on the nodes": warm,
        "on YARN, package on HDFS, new to the nodes": cold,
        "on YARN, package sent by the client": uploaded,
    }
    run(warm() + job)  # scores new images, and unpacks the package on the nodes
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
    return 0


def cluster(folder: str) -> list[str]:
    """Return the options of spark-submit for a package in `folder`."""
    return [
        *("--properties-file", str(ROOT / "conf" / "yarn-cluster.conf")),
        *("--conf", f"spark.yarn.archive={folder}/spark-jars.zip"),
        *("--conf", f"spark.archives={folder}/environment.tar.gz#environment"),
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
    if done.returncode not in (0, EXIT_NEEDS_ATTENTION):
        raise SystemExit(f"error: the job failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    logs = ["cat"]  # the driver's output: here, or some seconds later in the containers' logs
    if application := re.search(r"application_\d+_\d+", done.stderr + done.stdout):
        logs = [str(ROOT / "hadoop" / "logs"), application.group(), "-log_files", "stdout"]
    for _ in range(20):
        output = subprocess.run(
            logs, input=done.stdout, capture_output=True, text=True, timeout=TIMEOUT
        ).stdout
        if lines := re.findall(r"^\{.*\}$", output, re.MULTILINE):
            return wall, float(json.loads(lines[-1])["seconds"])
        time.sleep(1)
    raise SystemExit(f"error: the logs have no result of the job:\n{output[-2000:]}")


if __name__ == "__main__":
    raise SystemExit(main())
