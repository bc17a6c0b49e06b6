"""The processes of the local cluster: their command lines, ports and web pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jars import find_pyspark_jars
from ports import HOST, TEMPLATES, ConfigurationError

HERE = Path(__file__).resolve().parent
HISTORY_FOLDER = "/spark-history"
# Jars of pyspark that the shaded Hadoop jars need; the Jersey of pyspark conflicts with theirs.
PYSPARK_JAR_PREFIXES = (
    "hadoop-client-api",
    "hadoop-client-runtime",
    "slf4j-api",
    "jcl-over-slf4j",
    "log4j-",
)
JAVA_OPTIONS = (
    *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"),
    f"-Dlog4j2.configurationFile={TEMPLATES / 'log4j2.properties'}",
    # Guice, in the web pages of YARN, uses reflection on this package, which Java 17 forbids.
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)


@dataclass(frozen=True)
class Daemon:
    """One process.

    Attributes:
        name: name of the log, the pid file and the data folder, such as `datanode-1`.
        command: command line.
        ports: keys of its ports in the ports file.
        web: URL of the web page.
    """

    name: str
    command: list[str]
    ports: tuple[str, ...]
    web: str


def find_java_home() -> Path:
    """Return the home of Java: `JAVA_HOME`, or the home of the `java` on the PATH."""
    if home := os.environ.get("JAVA_HOME"):
        return Path(home)
    if java := shutil.which("java"):
        return Path(java).resolve().parent.parent
    raise ConfigurationError(
        "JAVA_HOME: wanted Java 17 or 21; got no JAVA_HOME and no java on the PATH"
    )


def build_java_command(
    name: str, heap: str, classpath: str, main: str, options: Mapping[str, str]
) -> list[str]:
    program = str(find_java_home() / "bin" / "java")
    settings = [f"-D{key}={value}" for key, value in options.items()]
    # Hadoop reads settings after the class, Spark before it.
    before, after = (settings, []) if main.startswith("org.apache.spark") else ([], settings)
    label = f"-Dproc_{name}"  # identifies the process in `ps`
    return [program, label, f"-Xmx{heap}", *JAVA_OPTIONS, *before, "-cp", classpath, main, *after]


def build_hadoop_command(run: Path, name: str, main: str, options: Mapping[str, str]) -> list[str]:
    """Return the command of a Hadoop daemon; `options` override the site files."""
    jars = [
        str(jar)
        for jar in find_pyspark_jars().glob("*.jar")
        if jar.name.startswith(PYSPARK_JAR_PREFIXES)
    ]
    path = ":".join([str(run / "conf"), f"{HERE}/jars/*", *sorted(jars)])
    settings = {"hadoop.tmp.dir": str(run / "data" / name), **options}
    return build_java_command(name, "256m", path, f"org.apache.hadoop.{main}", settings)


def build_format_command(run: Path) -> list[str]:
    """Return the command that formats a new HDFS."""
    return [*build_hadoop_command(run, "namenode", NAMENODE, {}), "-format", "-nonInteractive"]


NAMENODE = "hdfs.server.namenode.NameNode"
DATANODE = "hdfs.server.datanode.DataNode"
RESOURCEMANAGER = "yarn.server.resourcemanager.ResourceManager"
NODEMANAGER = "yarn.server.nodemanager.NodeManager"
HISTORY = "org.apache.spark.deploy.history.HistoryServer"


def build_daemons(run: Path, ports: Mapping[str, int]) -> list[Daemon]:
    """Return every daemon of the cluster in the folder `run`."""

    def format_address(name: str, port: str) -> str:
        return f"{HOST}:{ports[format_key_prefix(name) + port]}"

    def build_daemon(name: str, command: list[str]) -> Daemon:
        keys = tuple(key for key in ports if key.startswith(format_key_prefix(name)))
        return Daemon(name, command, keys, f"http://{format_address(name, 'WEB_PORT')}")

    def build_datanode(name: str) -> Daemon:
        settings = {
            "dfs.datanode.address": format_address(name, "PORT"),
            "dfs.datanode.ipc.address": format_address(name, "IPC_PORT"),
            "dfs.datanode.http.address": format_address(name, "WEB_PORT"),
        }
        return build_daemon(name, build_hadoop_command(run, name, DATANODE, settings))

    def build_nodemanager(name: str) -> Daemon:
        settings = {
            "yarn.nodemanager.hostname": HOST,
            "yarn.nodemanager.address": format_address(name, "PORT"),
            "yarn.nodemanager.localizer.address": format_address(name, "LOCALIZER_PORT"),
            "yarn.nodemanager.webapp.address": format_address(name, "WEB_PORT"),
            "yarn.nodemanager.log-dirs": str(run / "logs" / name),
        }
        return build_daemon(name, build_hadoop_command(run, name, NODEMANAGER, settings))

    history_settings = {
        "spark.history.fs.logDirectory": f"hdfs://{HISTORY_FOLDER}",
        "spark.history.fs.update.interval": "5s",
        "spark.history.ui.port": str(ports["HISTORY_WEB_PORT"]),
    }
    spark_classpath = f"{run / 'conf'}:{find_pyspark_jars()}/*"
    resourcemanager = build_hadoop_command(run, "resourcemanager", RESOURCEMANAGER, {})
    history = build_java_command("history", "512m", spark_classpath, HISTORY, history_settings)
    return [
        build_daemon("namenode", build_hadoop_command(run, "namenode", NAMENODE, {})),
        build_datanode("datanode-1"),
        build_datanode("datanode-2"),
        build_daemon("resourcemanager", resourcemanager),
        build_nodemanager("nodemanager-1"),
        build_nodemanager("nodemanager-2"),
        build_daemon("history", history),
    ]


def format_key_prefix(name: str) -> str:
    """Return the prefix of a daemon's keys in the ports file."""
    return name.upper().replace("-", "_") + "_"
