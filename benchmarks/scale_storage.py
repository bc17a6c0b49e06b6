"""What `benchmarks.scale` measures of storage: to list an archive and to commit, by the clock.

On the local disk, and on an HDFS of its own: a NameNode and two DataNodes on this machine, which
nobody else asks.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from benchmarks.scale_measure import BRANCH, Figures, alone, each_of, tables, timed
from eagle_spark.io import locate
from eagle_spark.scoring.listing import list_images, spool_listing
from eagle_spark.tables import PREDICTIONS
from tests.helpers.processes import ROOT

FILES, FILES_PER_FOLDER, MEMBERS = 30_000, 1_000, 10_000
ROUNDS, COMMITS = 3, 50


def storage(files: int = FILES) -> Figures:
    """What it takes on this disk, and on HDFS."""
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as folder:
        found = {"disk": alone(_storage, folder, files, "")}
    with hadoop() as (address, site):
        return found | {"hdfs": alone(_storage, address, files, site)}


def _storage(place: str, files: int, site: str) -> Figures:
    if site:
        os.environ["HADOOP_CONF_DIR"] = site
    with tables(f"{place}/warehouse") as its:
        its.java.fill(f"{place}/archive", files, FILES_PER_FOLDER)
        store, path = locate(f"{place}/members.zip")
        store.write(path, _zip())
        its.warehouse.open_branch(PREDICTIONS, BRANCH)
        its.table.refresh()
        its.append(0, 10, 1, BRANCH)  # Java has compiled it
        _, took = timed(lambda: its.append(10, COMMITS, 1, BRANCH))
        return {
            "files": files,
            "list": _list(f"{place}/archive", files),
            "members": MEMBERS,
            "list_members": _list(f"{place}/members.zip", MEMBERS),
            "commits": COMMITS,
            "commit": each_of(took, COMMITS),
        }


def _list(images: str, files: int) -> Figures:
    """List as score does, into a file of Parquet on this disk."""
    rounds = []
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as staging:
        for _ in range(ROUNDS):
            listed, took = timed(lambda: spool_listing(list_images(images), staging))
            assert listed == files, (listed, files)
            rounds.append(took)
    return {name: statistics.median(took[name] for took in rounds) for name in rounds[0]}


def _zip() -> bytes:
    """Return a zip of empty files: what is listed is its directory."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for number in range(MEMBERS):
            packed.writestr(f"night/{number:09d}.png", b"")
    return stream.getvalue()


@contextmanager
def hadoop() -> Iterator[tuple[str, str]]:
    """Yield address and configuration of a Hadoop that is there for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="eagle-bench-") as folder:
        run = Path(folder, "run")

        def cluster(*words: str) -> None:
            script = str(ROOT / "hadoop" / "cluster.py")
            words = (*words, "--run", str(run))
            subprocess.run([sys.executable, script, *words], check=True, stdout=subprocess.DEVNULL)

        try:
            cluster("up", "--free-ports")
            lines = (run / "ports.conf").read_text().splitlines()
            port = dict(line.split("=") for line in lines)["NAMENODE_PORT"]
            yield f"hdfs://127.0.0.1:{port}", str(run / "conf")
        finally:
            cluster("down")
