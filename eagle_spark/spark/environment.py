"""Run Spark, Python and Java of this environment, independent of the shell's settings.

Tutorials put `SPARK_HOME`, `PYSPARK_PYTHON` and `PYTHONPATH` of another Spark into `.bashrc`; cron
has no `LANG`; hardened servers mount `/tmp` with `noexec`. `make install` writes `spark-submit` and
the other Spark programs into `.venv/bin` as calls of `main`.
"""

from __future__ import annotations

import json
import locale
import os
import shlex
import shutil
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from eagle_spark.errors import PlatformError
from eagle_spark.spark.archive import PROGRAMS, add_archive, find_no_conf
from eagle_spark.spark.terminal import run_quietly

JAVA_REQUIREMENT = "Java 17 or 21 is needed (Debian: apt-get install openjdk-17-jre-headless)"
_DRIVER_PYTHON_VARIABLES = ("PYSPARK_DRIVER_PYTHON", "PYSPARK_DRIVER_PYTHON_OPTS")
_LOCALE_VARIABLES = ("LC_ALL", "LC_CTYPE", "LANG")  # the first set variable counts
_UTF8_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8", "UTF-8")
_JAVA_OPTIONS_VARIABLES = ("SPARK_SUBMIT_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
JAVA_TMP = "/tmp"  # noqa: S108
_NOEXEC = getattr(os, "ST_NOEXEC", 0)


def build_spark_environment(
    environ: Mapping[str, str], program: str = "spark-submit"
) -> dict[str, str]:
    """Return the environment variables for a Spark program.

    Args:
        environ: variables of this process.
        program: name of the Spark program; `pyspark` may run its driver in another Python, such as
            Jupyter's.

    Raises:
        PlatformError: when Java or a folder for native libraries is missing.
    """
    find_java(environ)
    variables = dict(environ)
    if home := find_spark_home():
        variables["SPARK_HOME"] = home
        if foreign_entries := list_foreign_sparks(environ):
            entries = [e for e in _split_python_path(environ) if e not in foreign_entries]
            variables["PYTHONPATH"] = os.pathsep.join(entries)
    python = environ.get("PYSPARK_PYTHON", "")
    # A relative path belongs to an environment that YARN unpacks into its containers;
    # PYSPARK_DRIVER_PYTHON then accompanies it.
    is_relative = "/" in python and not python.startswith("/")
    if not is_relative:
        variables["PYSPARK_PYTHON"] = sys.executable
    keeps_driver = is_relative or program == "pyspark"
    for name in ("PYTHONHOME", *(() if keeps_driver else _DRIVER_PYTHON_VARIABLES)):
        variables.pop(name, None)
    name = next((name for name in _LOCALE_VARIABLES if environ.get(name)), "LANG")
    if (environ.get(name) or "C") in ("C", "POSIX"):
        variables[name] = _find_utf8_locale()
    if folder := _find_native_folder(environ):
        options = (environ.get("SPARK_SUBMIT_OPTS"), f'"-Djava.io.tmpdir={folder}"')
        variables["SPARK_SUBMIT_OPTS"] = " ".join(filter(None, options))
    if variables.get("SPARK_CONF_DIR") == find_no_conf():  # of a job that started this one
        del variables["SPARK_CONF_DIR"]
    variables.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of Python workers, which Java starts
    if not environ.get("SPARK_LOCAL_IP") and not _has_address(socket.gethostname()):
        variables["SPARK_LOCAL_IP"] = "127.0.0.1"
    return variables


def find_java(environ: Mapping[str, str]) -> str:
    """Return the path of Java; as in Spark, `JAVA_HOME` precedes the `PATH`.

    Raises:
        PlatformError: when Java is missing.
    """
    home = environ.get("JAVA_HOME")
    if home:
        java = os.path.join(home, "bin", "java")
        if not os.access(java, os.X_OK):
            raise PlatformError(
                f"JAVA_HOME: wanted a folder with bin/java; got {home}; set it to the folder of"
                " Java 17 or 21, or unset it"
            )
        return java
    path = shutil.which("java", path=environ.get("PATH"))
    if path is None:
        raise PlatformError(
            f"{JAVA_REQUIREMENT}; the PATH contains no java, and JAVA_HOME is not set"
        )
    return path


def find_java_release(java: str) -> Path | None:
    """Return the file `release` of the installation of a Java, which names its version; or None."""
    release = Path(os.path.realpath(java)).parent.parent / "release"
    return release if release.is_file() else None


def find_spark_home() -> str | None:
    """Return the folder of Spark in this Python environment; None without Spark."""
    home = os.path.join(sysconfig.get_path("purelib"), "pyspark")
    return home if os.path.isdir(os.path.join(home, "jars")) else None


def list_foreign_sparks(environ: Mapping[str, str]) -> list[str]:
    """Return the entries of `PYTHONPATH` with another Spark than `find_spark_home`."""
    site_packages = os.path.realpath(sysconfig.get_path("purelib"))
    return [
        entry
        for entry in _split_python_path(environ)
        if "py4j" in os.path.basename(entry)
        or os.path.basename(entry) == "pyspark.zip"
        or (
            os.path.isdir(os.path.join(entry, "pyspark"))
            and os.path.realpath(entry) != site_packages
        )
    ]


def _split_python_path(environ: Mapping[str, str]) -> list[str]:
    return [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _find_utf8_locale() -> str:
    original = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in _UTF8_LOCALES:
            try:
                locale.setlocale(locale.LC_CTYPE, name)
            except locale.Error:
                continue
            return name
    finally:
        locale.setlocale(locale.LC_CTYPE, original)
    return _UTF8_LOCALES[0]


def _find_native_folder(environ: Mapping[str, str]) -> str | None:
    """Return an executable folder for native libraries; None when the default of Java works.

    The default is `/tmp`; Java ignores `TMPDIR`.
    """
    options = " ".join(environ.get(name, "") for name in _JAVA_OPTIONS_VARIABLES)
    if "-Djava.io.tmpdir=" in options or allows_execution(JAVA_TMP):
        return None
    folders = (
        environ.get("TMPDIR", ""),
        os.path.join(sys.prefix, "tmp"),
        os.path.expanduser("~/.cache/eagle_spark"),
    )
    for folder in filter(None, folders):
        try:
            os.makedirs(folder, exist_ok=True)
            if os.access(folder, os.W_OK) and allows_execution(folder):
                return folder
        except OSError:
            continue
    raise PlatformError(
        f"{JAVA_TMP} is mounted noexec, and Java unpacks native libraries there; set TMPDIR to a"
        " folder that allows execution"
    )


def allows_execution(folder: str) -> bool:
    """Return whether a folder is not mounted `noexec`."""
    return not os.statvfs(folder).f_flag & _NOEXEC


def _has_address(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def write_wrappers(folder: str) -> None:
    """Replace the programs of pyspark in `.venv/bin` by calls of `main`."""
    home = find_spark_home()
    if home is None:
        raise PlatformError("Spark is not installed in this Python environment; run `make install`")
    for program in sorted(os.listdir(os.path.join(home, "bin"))):
        if "." in program or program == "find-spark-home":  # helpers of the other programs
            continue
        call = shlex.join([sys.executable, "-I", "-m", "eagle_spark.spark.environment", program])
        path = Path(folder, program)
        path.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        path.chmod(0o755)


def main(argv: Sequence[str]) -> int:
    """Replace this process by a Spark program; return 2 with one line for a PlatformError."""
    program, *arguments = argv
    try:
        environment = build_spark_environment(os.environ, program)
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        failed = {"error": str(error), "kind": "PlatformError", "exit_code": error.exit_code}
        print(json.dumps(failed), flush=True)
        return error.exit_code
    if program in PROGRAMS:
        release = find_java_release(find_java(environment))
        environment, arguments = add_archive(release, environment, arguments)
    path = os.path.join(environment["SPARK_HOME"], "bin", program)
    if program == "spark-submit" and sys.stderr.isatty():
        return run_quietly(path, [program, *arguments], environment)
    os.execve(path, [program, *arguments], environment)  # noqa: S606
    raise AssertionError("not reached")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
