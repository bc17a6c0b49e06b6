"""The local cluster's ports, and its configuration made from them."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

HERE = Path(__file__).resolve().parent
PORTS = HERE / "ports.conf"
TEMPLATES = HERE / "conf"
HOST = "127.0.0.1"
# Below the range that the kernel gives to outgoing connections.
FREE_RANGE = range(20_000, 32_000)


class Mend(Exception):
    """Raised when something has to be mended before the cluster can start; exit code 2."""


def read_ports(path: Path) -> dict[str, int]:
    """Return port by key of a ports file.

    Raises:
        Mend: for a line that is no KEY=PORT.
    """
    ports: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            if not value.strip().isdecimal() or not 0 < int(value) < 65536:
                raise Mend(f"{path}:{number}: wanted KEY=PORT, got {line!r}")
            ports[key.strip()] = int(value)
    return ports


def write_ports(ports: Mapping[str, int], path: Path) -> None:
    path.write_text("".join(f"{key}={port}\n" for key, port in ports.items()))


def free_ports(keys: Iterable[str]) -> dict[str, int]:
    """Return a free port for each key."""
    candidates = iter(random.sample(FREE_RANGE, len(FREE_RANGE)))
    return {key: next(port for port in candidates if is_free(port)) for key in keys}


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as server:
        # As Java does: what is left of closed connections is no obstacle.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
            server.listen(1)
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether a server answers on this port."""
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except OSError:
        return False
    return True


def write_conf(ports: Mapping[str, int], folder: Path, namenode: str, resourcemanager: str) -> None:
    """Fill the templates in; daemons, Spark and hdfs-native read the same files.

    `namenode` and `resourcemanager` are the names of their hosts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {"NAMENODE_HOST": namenode, "RESOURCEMANAGER_HOST": resourcemanager, **ports}
    for template in TEMPLATES.glob("*.xml"):
        (folder / template.name).write_text(Template(template.read_text()).substitute(values))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: ports.py FOLDER NAMENODE RESOURCEMANAGER")
    write_conf(read_ports(PORTS), Path(sys.argv[1]), *sys.argv[2:])
