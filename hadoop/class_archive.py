"""Make the class-data archive of this environment's Spark, see eagle_spark/spark/archive.py.

    python hadoop/class_archive.py

A JVM writes at its end the classes that it has loaded, here in preprocess on a few generated
images. Drivers with this Java and these jars start faster then. An archive that cannot be made is a
warning: every job runs without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from eagle_spark.spark.archive import name_archive, replace_conf_folder
from eagle_spark.spark.environment import build_spark_environment, find_java, find_java_release

IMAGES = 12  # four a class
SIZE = 32
TIMEOUT = 600  # seconds
# Their entries come behind the jars: a JVM that has them takes an archive made without them.
CLASS_PATH_VARIABLES = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_DIST_CLASSPATH")


def main() -> None:
    variables = build_spark_environment(os.environ)
    for name in CLASS_PATH_VARIABLES:
        variables.pop(name, None)
    release = find_java_release(find_java(variables))
    archive = name_archive(release, variables["SPARK_HOME"])
    if archive is None or archive.is_file():
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=archive.parent) as name:
        work, made = Path(name), Path(name, "made.jsa")
        write_archive(variables, work, made)
        if not made.is_file():
            return
        for outdated in archive.parent.glob("*.jsa"):
            outdated.unlink()
        made.replace(archive)
    print(f"{archive.name}: classes of Spark's JVM", file=sys.stderr)


def write_archive(variables: dict[str, str], work: Path, made: Path) -> None:
    """Run this file by spark-submit; its JVM writes the archive `made`."""
    options = f'"-XX:ArchiveClassesAtExit={made}" -Xlog:cds=off -Xlog:cds+dynamic=off'
    arguments = [__file__, str(work)]
    variables, arguments = replace_conf_folder(variables, arguments, options)
    submit = Path(variables["SPARK_HOME"], "bin", "spark-submit")
    try:
        done = subprocess.run(
            [submit, *arguments], env=variables, capture_output=True, text=True, timeout=TIMEOUT
        )
        lines = done.stderr.strip().splitlines()
    except subprocess.TimeoutExpired as error:
        lines = [str(error)]
    if not made.is_file():
        line = lines[-1] if lines else "the JVM wrote no file"
        print(f"warning: no class-data archive, jobs start slower: {line}", file=sys.stderr)


def run_jobs(work: Path) -> None:
    """Run preprocess on generated images: a job with files, tasks in Python, and tables."""
    from eagle_spark.datasets.ingest import preprocess
    from eagle_spark.datasets.synthetic.sample import write_sample
    from eagle_spark.settings import PreprocessSettings

    labelled, warehouse = str(work / "labelled"), str(work / "warehouse")
    write_sample(Path(labelled), IMAGES, seed=7)
    preprocess(PreprocessSettings(input=labelled, warehouse=warehouse, size=SIZE))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        run_jobs(Path(sys.argv[1]))
