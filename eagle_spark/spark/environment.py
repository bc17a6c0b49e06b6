"""This environment's Spark, Python and Java, whatever the shell that starts them is set up for.

Tutorials put `SPARK_HOME`, `PYSPARK_PYTHON` and `PYTHONPATH` of another Spark into `.bashrc`; cron
has no `LANG`; hardened servers mount `/tmp` so that nothing in it can be run. `make install` puts
`spark-submit` and its neighbours into `.venv/bin` as calls of `main`.
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

JAVA = "Java 17 or 21 is needed (Debian: apt-get install openjdk-17-jre-headless)"
_DRIVER_PYTHON = ("PYSPARK_DRIVER_PYTHON", "PYSPARK_DRIVER_PYTHON_OPTS")
_LOCALE = ("LC_ALL", "LC_CTYPE", "LANG")  # the first that is set counts
_UTF8_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8", "UTF-8")
_JAVA_OPTIONS = ("SPARK_SUBMIT_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
JAVA_TMP = "/tmp"  # noqa: S108
_NOEXEC = getattr(os, "ST_NOEXEC", 0)


def spark_environment(environ: Mapping[str, str], program: str = "spark-submit") -> dict[str, str]:
    """Return the environment in which Spark is started.

    Args:
        environ: that of this process.
        program: of Spark's; of `pyspark` the driver's Python may be another, such as Jupyter's.

    Raises:
        PlatformError: when there is no Java, or no folder to unpack native libraries into.
    """
    find_java(environ)
    wanted = dict(environ)
    if home := spark_home():
        wanted["SPARK_HOME"] = home
        if others := other_sparks(environ):
            own = [entry for entry in _python_path(environ) if entry not in others]
            wanted["PYTHONPATH"] = os.pathsep.join(own)
    python = environ.get("PYSPARK_PYTHON", "")
    # A relative path is that of an environment that YARN unpacks into its containers; the driver's
    # is then chosen beside it.
    is_relative = "/" in python and not python.startswith("/")
    if not is_relative:
        wanted["PYSPARK_PYTHON"] = sys.executable
    keeps_driver = is_relative or program == "pyspark"
    for name in ("PYTHONHOME", *(() if keeps_driver else _DRIVER_PYTHON)):
        wanted.pop(name, None)
    name = next((name for name in _LOCALE if environ.get(name)), "LANG")
    if (environ.get(name) or "C") in ("C", "POSIX"):
        wanted[name] = _utf8_locale()
    if folder := _native_folder(environ):
        options = (environ.get("SPARK_SUBMIT_OPTS"), f'"-Djava.io.tmpdir={folder}"')
        wanted["SPARK_SUBMIT_OPTS"] = " ".join(filter(None, options))
    if not environ.get("SPARK_LOCAL_IP") and not _has_address(socket.gethostname()):
        wanted["SPARK_LOCAL_IP"] = "127.0.0.1"
    return wanted


def find_java(environ: Mapping[str, str]) -> str:
    """Return the path of Java; `JAVA_HOME` counts before the `PATH`, as it does for Spark.

    Raises:
        PlatformError: when there is none.
    """
    home = environ.get("JAVA_HOME")
    if home:
        java = os.path.join(home, "bin", "java")
        if not os.access(java, os.X_OK):
            raise PlatformError(
                f"JAVA_HOME is {home}, where there is no bin/java; set it to the folder of Java 17"
                " or 21, or unset it"
            )
        return java
    found = shutil.which("java", path=environ.get("PATH"))
    if found is None:
        raise PlatformError(f"{JAVA}; there is none on the PATH, and JAVA_HOME is not set")
    return found


def spark_home() -> str | None:
    """Return the folder of the Spark that is installed beside this Python; None without one."""
    home = os.path.join(sysconfig.get_path("purelib"), "pyspark")
    return home if os.path.isdir(os.path.join(home, "jars")) else None


def other_sparks(environ: Mapping[str, str]) -> list[str]:
    """Return the entries of `PYTHONPATH` that hold another Spark than `spark_home`."""
    own = os.path.realpath(sysconfig.get_path("purelib"))
    return [
        entry
        for entry in _python_path(environ)
        if "py4j" in os.path.basename(entry)
        or os.path.basename(entry) == "pyspark.zip"
        or (os.path.isdir(os.path.join(entry, "pyspark")) and os.path.realpath(entry) != own)
    ]


def _python_path(environ: Mapping[str, str]) -> list[str]:
    return [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _utf8_locale() -> str:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in _UTF8_LOCALES:
            try:
                locale.setlocale(locale.LC_CTYPE, name)
            except locale.Error:
                continue
            return name
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return _UTF8_LOCALES[0]


def _native_folder(environ: Mapping[str, str]) -> str | None:
    """Return where Java may unpack native libraries and run them; None where it does so anyway.

    Java's own choice is `/tmp`, whatever `TMPDIR` is.
    """
    options = " ".join(environ.get(name, "") for name in _JAVA_OPTIONS)
    if "-Djava.io.tmpdir=" in options or runs_programs(JAVA_TMP):
        return None
    folders = (
        environ.get("TMPDIR", ""),
        os.path.join(sys.prefix, "tmp"),
        os.path.expanduser("~/.cache/eagle_spark"),
    )
    for folder in filter(None, folders):
        try:
            os.makedirs(folder, exist_ok=True)
            if os.access(folder, os.W_OK) and runs_programs(folder):
                return folder
        except OSError:
            continue
    raise PlatformError(
        f"{JAVA_TMP} is mounted noexec, and Java unpacks native libraries there; set TMPDIR to a"
        " folder that is not"
    )


def runs_programs(folder: str) -> bool:
    """Return whether files of a folder may be run: it is not mounted `noexec`."""
    return not os.statvfs(folder).f_flag & _NOEXEC


def _has_address(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def wrap_programs(folder: str) -> None:
    """Replace what pyspark has put into `.venv/bin` by calls of `main`."""
    own = spark_home()
    if own is None:
        raise PlatformError("Spark is not installed beside this Python")
    for program in sorted(os.listdir(os.path.join(own, "bin"))):
        if "." in program or program == "find-spark-home":  # parts of the others
            continue
        call = shlex.join([sys.executable, "-I", "-m", "eagle_spark.spark.environment", program])
        path = Path(folder, program)
        path.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        path.chmod(0o755)


def main(argv: Sequence[str]) -> int:
    """Become one of Spark's programs; 2 and one line where something has to be mended first."""
    program, *arguments = argv
    try:
        environment = spark_environment(os.environ, program)
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        failed = {"error": str(error), "kind": "PlatformError", "exit_code": error.exit_code}
        print(json.dumps(failed), flush=True)
        return error.exit_code
    path = os.path.join(environment["SPARK_HOME"], "bin", program)
    os.execve(path, [program, *arguments], environment)  # noqa: S606
    raise AssertionError("not reached")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
