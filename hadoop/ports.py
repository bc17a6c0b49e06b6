"""Ports of the local cluster, and its configuration files."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

HERE = Path(__file__).resolve().parent
PORTS_FILE = HERE / "ports.conf"
TEMPLATES = HERE / "conf"
HOST = "127.0.0.1"
# Below the range of the kernel for outgoing connections.
FREE_RANGE = range(20_000, 32_000)


class ConfigurationError(Exception):
    """Raised when the user must correct a setting before the cluster can start; exit code 2."""


def read_ports(path: Path) -> dict[str, int]:
    """Return key -> port of a ports file.

    Raises:
        ConfigurationError: for a line that is not KEY=PORT.
    """
    ports: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            if not value.strip().isdecimal() or not 0 < int(value) < 65536:
                raise ConfigurationError(f"{path}:{number}: wanted KEY=PORT; got {line!r}")
            ports[key.strip()] = int(value)
    return ports


def write_ports(ports: Mapping[str, int], path: Path) -> None:
    path.write_text("".join(f"{key}={port}\n" for key, port in ports.items()))


def find_free_ports(keys: Iterable[str]) -> dict[str, int]:
    """Return a free port for each key."""
    candidates = iter(random.sample(FREE_RANGE, len(FREE_RANGE)))
    return {key: next(port for port in candidates if is_free(port)) for key in keys}


def is_free(port: int) -> bool:
    """Return whether a server can listen on this port now."""
    with socket.socket() as server:
        # As in Java: closed connections in TIME_WAIT do not block the port.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
            server.listen(1)
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    """Return whether a server accepts connections on this port."""
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except OSError:
        return False
    return True


def write_conf(ports: Mapping[str, int], folder: Path, namenode: str, resourcemanager: str) -> None:
    """Write the site files for daemons, Spark and hdfs-native from the templates.

    Args:
        namenode: host name of the NameNode.
        resourcemanager: host name of the ResourceManager.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {"NAMENODE_HOST": namenode, "RESOURCEMANAGER_HOST": resourcemanager, **ports}
    for template in TEMPLATES.glob("*.xml"):
        (folder / template.name).write_text(Template(template.read_text()).substitute(values))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: ports.py FOLDER NAMENODE RESOURCEMANAGER")
    write_conf(read_ports(PORTS_FILE), Path(sys.argv[1]), *sys.argv[2:])
