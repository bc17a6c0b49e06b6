"""The processes of the local cluster: their command lines, ports and web pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jars import pyspark_jars
from ports import HOST, TEMPLATES, Mend

HERE = Path(__file__).resolve().parent
HISTORY_FOLDER = "/spark-history"
# What the shaded Hadoop jars want from pyspark. Not all of it: its Jersey would be in the way.
FROM_PYSPARK = (
    "hadoop-client-api",
    "hadoop-client-runtime",
    "slf4j-api",
    "jcl-over-slf4j",
    "log4j-",
)
JAVA = (
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"),
    f"-Dlog4j2.configurationFile={TEMPLATES / 'log4j2.properties'}",
    # Java 17 closes what Guice, in YARN's web pages, opens by reflection.
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)


@dataclass(frozen=True)
class Daemon:
    """One process.

    Attributes:
        name: of its log, its pid file and its data folder, such as `datanode-1`.
        command: whole command line.
        ports: keys of the ports file that it listens on.
        web: address of its web page.
    """

    name: str
    command: list[str]
    ports: tuple[str, ...]
    web: str


def java_home() -> Path:
    """Return the home of Java: `JAVA_HOME`, or that of the `java` on the PATH."""
    if home := os.environ.get("JAVA_HOME"):
        return Path(home)
    if java := shutil.which("java"):
        return Path(java).resolve().parent.parent
    raise Mend("no java on the PATH and no JAVA_HOME; Java 17 or 21 is needed")


def java(name: str, heap: str, classpath: str, main: str, options: Mapping[str, str]) -> list[str]:
    program = str(java_home() / "bin" / "java")
    settings = [f"-D{key}={value}" for key, value in options.items()]
    # Hadoop reads settings behind the class, Spark before it.
    before, behind = (settings, []) if main.startswith("org.apache.spark") else ([], settings)
    mark = f"-Dproc_{name}"  # tells the processes apart in `ps`
    return [program, mark, f"-Xmx{heap}", *JAVA, *before, "-cp", classpath, main, *behind]


def hadoop(run: Path, name: str, main: str, options: Mapping[str, str]) -> list[str]:
    """Return the command of a Hadoop daemon whose site files are overruled by `options`."""
    jars = [str(jar) for jar in pyspark_jars().glob("*.jar") if jar.name.startswith(FROM_PYSPARK)]
    path = ":".join([str(run / "conf"), f"{HERE}/jars/*", *sorted(jars)])
    settings = {"hadoop.tmp.dir": str(run / "data" / name), **options}
    return java(name, "256m", path, f"org.apache.hadoop.{main}", settings)


def format_command(run: Path) -> list[str]:
    """Return the command that makes an empty HDFS."""
    return [*hadoop(run, "namenode", NAMENODE, {}), "-format", "-nonInteractive"]


NAMENODE = "hdfs.server.namenode.NameNode"
DATANODE = "hdfs.server.datanode.DataNode"
RESOURCEMANAGER = "yarn.server.resourcemanager.ResourceManager"
NODEMANAGER = "yarn.server.nodemanager.NodeManager"


HISTORY = "org.apache.spark.deploy.history.HistoryServer"


def daemons(run: Path, ports: Mapping[str, int]) -> list[Daemon]:
    """Return every process of the cluster that lives in the folder `run`."""

    def address(name: str, port: str) -> str:
        return f"{HOST}:{ports[prefix(name) + port]}"

    def daemon(name: str, command: list[str]) -> Daemon:
        own = tuple(key for key in ports if key.startswith(prefix(name)))
        return Daemon(name, command, own, f"http://{address(name, 'WEB_PORT')}")

    def datanode(name: str) -> Daemon:
        settings = {
            "dfs.datanode.address": address(name, "PORT"),
            "dfs.datanode.ipc.address": address(name, "IPC_PORT"),
            "dfs.datanode.http.address": address(name, "WEB_PORT"),
        }
        return daemon(name, hadoop(run, name, DATANODE, settings))

    def nodemanager(name: str) -> Daemon:
        settings = {
            "yarn.nodemanager.hostname": HOST,
            "yarn.nodemanager.address": address(name, "PORT"),
            "yarn.nodemanager.localizer.address": address(name, "LOCALIZER_PORT"),
            "yarn.nodemanager.webapp.address": address(name, "WEB_PORT"),
            "yarn.nodemanager.log-dirs": str(run / "logs" / name),
        }
        return daemon(name, hadoop(run, name, NODEMANAGER, settings))

    history = {
        "spark.history.fs.logDirectory": f"hdfs://{HISTORY_FOLDER}",
        "spark.history.fs.update.interval": "5s",
        "spark.history.ui.port": str(ports["HISTORY_WEB_PORT"]),
    }
    spark = f"{run / 'conf'}:{pyspark_jars()}/*"
    return [
        daemon("namenode", hadoop(run, "namenode", NAMENODE, {})),
        datanode("datanode-1"),
        datanode("datanode-2"),
        daemon("resourcemanager", hadoop(run, "resourcemanager", RESOURCEMANAGER, {})),
        nodemanager("nodemanager-1"),
        nodemanager("nodemanager-2"),
        daemon("history", java("history", "512m", spark, HISTORY, history)),
    ]


def prefix(name: str) -> str:
    """Return what a daemon's keys in the ports file begin with."""
    return name.upper().replace("-", "_") + "_"
