"""What YARN costs: a score run that finds nothing new, on one machine and in cluster mode.

    python -m benchmarks.yarn --images URI --model URI --warehouse URI [--dist dist] [--rounds 3]

with the local cluster up and HADOOP_CONF_DIR set. The folder is scored once before. Then each round
runs, in turn, the same job on one machine; in cluster mode with the package on HDFS and
unpacked on the nodes already; with a package on HDFS that the nodes have never seen; and with the
package sent up from the client. Wall seconds are those of spark-submit; `outside` is what
of them the job does not count as its own.
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

from eagle_spark.errors import LOOK_FIRST

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 900  # seconds
FILES = ("environment.tar.gz", "spark-jars.zip")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("images", "model", "warehouse"):
        parser.add_argument(f"--{name}", required=True, metavar="URI")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="what make package made")
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

    def sent() -> list[str]:
        return cluster(options.dist.resolve().as_uri())

    kinds = {
        "on one machine": local,
        "on YARN, package unpacked on the nodes": warm,
        "on YARN, package on HDFS, new to the nodes": cold,
        "on YARN, package sent by the client": sent,
    }
    run(warm() + job)  # scores what is new, and brings the package to the nodes
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    try:
        for number in range(options.rounds):
            for kind, settings in kinds.items():
                given = settings()
                wall, own = run(given + job)
                seconds[kind].append((wall, wall - own))
                print(
                    f"round {number + 1}: {kind}: {wall:.1f} s, outside {wall - own:.1f} s",
                    file=sys.stderr,
                )
    finally:
        file_shell("-rm", "-r", "-f", "-skipTrash", "/eagle_spark/benchmark-*")
    for kind, found in seconds.items():
        walls, outside = [statistics.median(column) for column in zip(*found, strict=True)]
        print(f"{kind:45} {walls:6.1f} s, outside {outside:6.1f} s")
    return 0


def cluster(folder: str) -> list[str]:
    """Return the options of spark-submit for a package that lies in `folder`."""
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
    """Submit; return the wall seconds and those that the job counts as its own."""
    started = time.monotonic()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("spark-submit")), *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    wall = time.monotonic() - started
    if done.returncode not in (0, LOOK_FIRST):
        raise SystemExit(f"error: the job failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    logs = ["cat"]  # the driver's output: here, or some seconds later among the containers' logs
    if found := re.search(r"application_\d+_\d+", done.stderr + done.stdout):
        logs = [str(ROOT / "hadoop" / "logs"), found.group(), "-log_files", "stdout"]
    for _ in range(20):
        shown = subprocess.run(
            logs, input=done.stdout, capture_output=True, text=True, timeout=TIMEOUT
        ).stdout
        if lines := re.findall(r"^\{.*\}$", shown, re.MULTILINE):
            return wall, float(json.loads(lines[-1])["seconds"])
        time.sleep(1)
    raise SystemExit(f"error: no figures of the job are in the logs:\n{shown[-2000:]}")


if __name__ == "__main__":
    raise SystemExit(main())
