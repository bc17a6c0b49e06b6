"""The class-data archive of Spark's JVM: loaded classes, for the next JVM to map into memory.

Half of a short job is Java reading, checking and linking classes. An archive fits one Java and one
class path, and that of Java 17 has no folder that holds files. A driver with an archive therefore
takes the files of Spark's conf folder by options; without one, everything stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = "share/eagle_spark"  # of the Python environment
CONF_FILES = {"spark-defaults.conf", "log4j2.properties"}  # that `make install` copies
PROGRAMS = ("spark-submit", "spark-sql", "spark-shell", "pyspark")  # have spark-submit's options
OPTIONS = "SPARK_SUBMIT_OPTS"
_NO_CONF = "no-conf"
_OTHER_SETTINGS = ("--properties-file", "--deploy-mode", "spark.submit.deployMode=")
_MASTERS = ("--master", "spark.master=")


def name_archive(release: Path | None, spark_home: str) -> Path | None:
    """Return the path of the archive for a Java and the jars of a Spark; None without a release.

    Args:
        release: the file of Java's installation that names its version.
        spark_home: folder of Spark.
    """
    if release is None:
        return None
    digest = hashlib.sha256(release.read_bytes())
    for jar in sorted(Path(spark_home, "jars").iterdir()):
        status = jar.stat()
        digest.update(f"{jar}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return Path(sys.prefix, FOLDER, f"spark-{digest.hexdigest()[:16]}.jsa")


def add_archive(
    release: Path | None, variables: Mapping[str, str], arguments: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the variables and arguments of a Spark program whose driver maps the archive.

    They are unchanged if there is no archive for this Java and these jars, or if the site has a
    configuration of Spark, or the arguments name one.

    Args:
        release: see `name_archive`.
        variables: environment variables of a program of `PROGRAMS`, with `SPARK_HOME`.
        arguments: of the program.
    """
    if has_other_settings(variables, arguments):
        return dict(variables), list(arguments)
    archive = name_archive(release, variables["SPARK_HOME"])
    if archive is None or not archive.is_file():
        return dict(variables), list(arguments)
    # Without the logs, the JVM would report an archive that it does not use.
    options = f'"-XX:SharedArchiveFile={archive}" -Xlog:cds=off -Xlog:cds+dynamic=off'
    return replace_conf_folder(variables, arguments, options)


def has_other_settings(variables: Mapping[str, str], arguments: Sequence[str]) -> bool:
    """Whether the driver has other settings than those of `make install`, or another place."""
    conf = Path(variables["SPARK_HOME"], "conf")
    if variables.get("SPARK_CONF_DIR"):
        return True
    if not conf.is_dir() or set(os.listdir(conf)) != CONF_FILES:
        return True
    words = " ".join(arguments)
    if any(name in words for name in _OTHER_SETTINGS):
        return True
    return any(not master.startswith("local") for master in _list_masters(arguments))


def _list_masters(arguments: Sequence[str]) -> list[str]:
    """Return the values of `--master M`, `--master=M` and `--conf spark.master=M`."""
    masters = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name = next((name for name in _MASTERS if name in word), None)
        if name:
            masters.append(word.partition(name)[2].lstrip("=") or following)
    return masters


def replace_conf_folder(
    variables: Mapping[str, str], arguments: Sequence[str], options: str
) -> tuple[dict[str, str], list[str]]:
    """Return variables and arguments without a conf folder on the class path.

    Args:
        variables: environment variables of the program, with `SPARK_HOME`.
        arguments: of the program.
        options: further options of the JVM.
    """
    conf = Path(variables["SPARK_HOME"], "conf")
    given = variables.get(OPTIONS, "")
    if "-Dlog4j2.configurationFile=" not in given:
        options = f'"-Dlog4j2.configurationFile=file:{conf / "log4j2.properties"}" {options}'
    if options not in given:  # of a job that started this one
        given = f"{given} {options}".strip()
    changed = {OPTIONS: given, "SPARK_CONF_DIR": find_no_conf()}
    return {**variables, **changed}, [
        *("--properties-file", str(conf / "spark-defaults.conf")),
        *arguments,
    ]


def find_no_conf() -> str:
    """Return the path of a folder that does not exist."""
    return str(Path(sys.prefix, FOLDER, _NO_CONF))
