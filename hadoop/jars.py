"""Download the jars of one set in jars.lock to a folder and verify their digests.

    python hadoop/jars.py SET FOLDER        FOLDER `pyspark` is the jars folder of this pyspark

Ivy, a part of Spark, downloads the jars; Maven, if installed, replaces it after a failure. Existing
jars with the right digest are kept.
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


def find_pyspark_jars() -> Path:
    """Return the jars folder of the pyspark that this Python imports."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SystemExit("error: pyspark is not installed for this Python; run `make install`")
    return Path(spec.origin).parent / "jars"


def read_lock(set_name: str) -> list[tuple[str, str]]:
    """Return (coordinates, sha256) of each jar of a set."""
    lines = (HERE / "jars.lock").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    jars = [(coordinates, digest) for name, coordinates, digest in rows if name == set_name]
    if not jars:
        names = ", ".join(sorted({name for name, *_ in rows}))
        raise SystemExit(f"error: SET: wanted one of {names}; got {set_name!r}")
    return jars


def compute_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(coordinates: str, folder: Path) -> Path:
    """Download one jar to `folder`, without its dependencies."""
    group, artifact, version = coordinates.split(":")
    (ivy,) = find_pyspark_jars().glob("ivy-*.jar")
    ivy_command = [
        *("java", f"-Divy.default.ivy.user.dir={folder / 'ivy'}", "-cp", str(ivy)),
        *("org.apache.ivy.Main", "-settings", str(IVY_SETTINGS), "-notransitive"),
        *("-dependency", group, artifact, version),
        *("-retrieve", f"{folder}/[artifact]-[revision].[ext]"),
    ]
    maven_command = [
        *("mvn", "--batch-mode", "--quiet", "dependency:copy"),
        *(f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"),
    ]
    target = folder / f"{artifact}-{version}.jar"
    output = ""
    for command in (ivy_command, maven_command):
        if shutil.which(command[0]):
            result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
            output += result.stdout[-1500:] + result.stderr[-1500:]
            if target.exists():
                return target
    raise SystemExit(f"error: {coordinates} could not be downloaded:\n{output}")


def main(set_name: str, target: str) -> None:
    folder = find_pyspark_jars() if target == "pyspark" else Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    for coordinates, digest in read_lock(set_name):
        _, artifact, version = coordinates.split(":")
        jar = folder / f"{artifact}-{version}.jar"
        if jar.exists() and compute_sha256(jar) == digest:
            continue
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            download_path = download(coordinates, Path(scratch))
            if (actual := compute_sha256(download_path)) != digest:
                raise SystemExit(f"error: {coordinates}: wanted sha256 {digest}; got {actual}")
            download_path.replace(jar)
        print(f"{jar.name}: downloaded and verified", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2])
