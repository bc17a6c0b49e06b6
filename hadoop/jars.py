"""Bring the jars of one set in jars.lock into a folder, each checked against its digest.

    python hadoop/jars.py SET FOLDER        FOLDER `pyspark` is the jars folder of this pyspark

Jars come through Ivy, which Spark brings along, or through Maven where Ivy fails and Maven is
installed. A jar that is there with the right digest is left alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
IVY_SETTINGS = HERE.parent / "conf" / "ivysettings.xml"
TIMEOUT = 600  # seconds for one jar


def pyspark_jars() -> Path:
    """Return the jars folder of the pyspark that this Python imports."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SystemExit("error: pyspark is not installed for this Python; run `make install`")
    return Path(spec.origin).parent / "jars"


def read_lock(wanted: str) -> list[tuple[str, str]]:
    """Return (coordinates, sha256) of the jars of one set."""
    lines = (HERE / "jars.lock").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    found = [(coordinates, digest) for name, coordinates, digest in rows if name == wanted]
    if not found:
        known = ", ".join(sorted({name for name, *_ in rows}))
        raise SystemExit(f"error: no set {wanted!r} in jars.lock; known are {known}")
    return found


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(coordinates: str, folder: Path) -> Path:
    """Download one jar into `folder`, without what it depends on."""
    group, artifact, version = coordinates.split(":")
    (ivy,) = pyspark_jars().glob("ivy-*.jar")
    by_ivy = [
        *("java", f"-Divy.default.ivy.user.dir={folder / 'ivy'}", "-cp", str(ivy)),
        *("org.apache.ivy.Main", "-settings", str(IVY_SETTINGS), "-notransitive"),
        *("-dependency", group, artifact, version),
        *("-retrieve", f"{folder}/[artifact]-[revision].[ext]"),
    ]
    by_maven = [
        *("mvn", "--batch-mode", "--quiet", "dependency:copy"),
        *(f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"),
    ]
    target = folder / f"{artifact}-{version}.jar"
    said = ""
    for command in (by_ivy, by_maven):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
            said += done.stdout[-1500:] + done.stderr[-1500:]
            if target.exists():
                return target
    raise SystemExit(f"error: {coordinates} could not be downloaded:\n{said}")


def main(wanted: str, place: str) -> None:
    folder = pyspark_jars() if place == "pyspark" else Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    for coordinates, digest in read_lock(wanted):
        _, artifact, version = coordinates.split(":")
        jar = folder / f"{artifact}-{version}.jar"
        if jar.exists() and sha256(jar) == digest:
            continue
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fetched = fetch(coordinates, Path(scratch))
            if sha256(fetched) != digest:
                raise SystemExit(f"error: {coordinates}: sha256 {sha256(fetched)}, not {digest}")
            fetched.replace(jar)
        print(f"{jar.name}: downloaded and verified", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2])
