"""HDFS settings of `HADOOP_CONF_DIR`: `core-site.xml` and `hdfs-site.xml`."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

from eagle_spark.errors import SettingsError

DEFAULT_FS = "fs.defaultFS"
_DEPRECATED_NAMES = {"fs.default.name": DEFAULT_FS}
DEFAULT_PORT = 8020  # of a NameNode
UMASK = "fs.permissions.umask-mode"
MAX_DEPTH = 20  # of nested includes and of variables: Hadoop's own limit
_INCLUDE, _FALLBACK = (
    f"{{http://www.w3.org/2001/XInclude}}{tag}" for tag in ("include", "fallback")
)
_ENVIRONMENT = re.compile(r"env\.(?P<name>[^:-]+)(?:(?P<if_empty>:)?-(?P<default>.*))?", re.DOTALL)
_VARIABLE = re.compile(r"\$\{([^}$\s]+)\}")


def find_conf_dir() -> Path | None:
    """Return the folder of the site files: `HADOOP_CONF_DIR`, else that in `HADOOP_HOME`."""
    if folder := os.environ.get("HADOOP_CONF_DIR"):
        return Path(folder)
    home = os.environ.get("HADOOP_HOME")
    return Path(home, "etc", "hadoop") if home else None


def read_site_settings() -> Mapping[str, str]:
    """Return the settings of both site files; empty without site files.

    Raises:
        SettingsError: when a file cannot be read as XML.
    """
    folder = find_conf_dir()
    return _read_settings(folder) if folder else {}


@lru_cache(maxsize=4)
def _read_settings(folder: Path) -> dict[str, str]:
    settings = {}
    for path in (folder / "core-site.xml", folder / "hdfs-site.xml"):
        try:
            properties = list(_read_properties(path))
        except FileNotFoundError:
            continue
        for name, value in properties:
            settings[_DEPRECATED_NAMES.get(name, name)] = value
    return {name: _substitute_variables(value, settings) for name, value in settings.items()}


def _read_properties(path: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield names and values of a site file and of the files that it includes, in order.

    Raises:
        FileNotFoundError: when the file does not exist.
        SettingsError: when the file cannot be read or an included file is missing.
    """
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314 - of this site
    except FileNotFoundError:
        raise
    except (OSError, ElementTree.ParseError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    yield from _parse_properties(root, path, depth)


def _parse_properties(
    parent: ElementTree.Element, path: Path, depth: int
) -> Iterator[tuple[str, str]]:
    for element in parent:
        if element.tag == "configuration":
            yield from _parse_properties(element, path, depth + 1)
        elif element.tag == "property":
            name, value = (element.findtext(tag, "").strip() for tag in ("name", "value"))
            if value:
                yield name, value
        elif element.tag == _INCLUDE:
            included = path.parent / element.get("href", "").removeprefix("file://")
            if depth >= MAX_DEPTH:
                raise SettingsError(
                    f"{path}: wanted at most {MAX_DEPTH} nested includes; files include each other"
                )
            try:
                yield from list(_read_properties(included, depth + 1))
            except FileNotFoundError as error:
                fallback = element.find(_FALLBACK)
                if fallback is None:
                    raise SettingsError(f"{path}: includes {included}, which is missing") from error
                yield from _parse_properties(fallback, path, depth + 1)


def _substitute_variables(value: str, settings: Mapping[str, str]) -> str:
    """Replace the variables in `value`: `${name}`, `${env.NAME}`, `${user.name}`.

    As in Hadoop, variables without a value remain, as do those beyond the first `MAX_DEPTH`.
    """
    start = 0
    for _ in range(MAX_DEPTH):
        variable = _VARIABLE.search(value, start)
        if variable is None:
            break
        if (text := _resolve_variable(variable[1], settings)) is None or variable[0] in text:
            start = variable.end()
        else:
            value = value[: variable.start()] + text + value[variable.end() :]
    return value


def _resolve_variable(name: str, settings: Mapping[str, str]) -> str | None:
    if match := _ENVIRONMENT.fullmatch(name):
        value = os.environ.get(match["name"])
        is_missing = not value if match["if_empty"] else value is None
        return match["default"] if is_missing else value
    if name == "user.name":
        with suppress(OSError, KeyError):  # a user without a name, as in containers
            return getpass.getuser()
        return None
    return settings.get(name)


def read_file_permission() -> int:
    """Return the permission bits of a new file under `fs.permissions.umask-mode`.

    Raises:
        SettingsError: when the umask is not octal; Hadoop itself accepts symbols as well.
    """
    umask = read_site_settings().get(UMASK, "022")
    if not re.fullmatch("[0-7]{3,4}", umask):
        raise SettingsError(
            f"{UMASK} in {find_conf_dir()}: wanted octal digits as 027; got {umask}"
        )
    return 0o666 & ~int(umask, 8)


def read_default_authority() -> str:
    """Return the authority, such as `host:port`, of the default file system.

    Raises:
        SettingsError: when `fs.defaultFS` is missing or is no HDFS.
    """
    default_fs = read_site_settings().get(DEFAULT_FS, "")
    authority = default_fs.removeprefix("hdfs://").split("/", 1)[0]
    if not default_fs.startswith("hdfs://") or not authority:
        folder = find_conf_dir()
        source = f"{folder}/core-site.xml" if folder else "no HADOOP_CONF_DIR is set"
        raise SettingsError(
            f"hdfs:/// without a host: wanted an hdfs:// address in {DEFAULT_FS}; got"
            f" {default_fs.split('://')[0] + '://…' if default_fs else 'none'} ({source})"
        )
    return authority


def read_namenode_addresses(authority: str) -> dict[str, tuple[str, int]]:
    """Return NameNode id -> (host, port).

    Args:
        authority: a nameservice, or the host of one NameNode, whose id is then empty.
    """
    settings = read_site_settings()
    ids = settings.get(f"dfs.ha.namenodes.{authority}", "").replace(",", " ").split()
    if ids:
        keys = {name: f"dfs.namenode.rpc-address.{authority}.{name}" for name in ids}
        return {
            name: _parse_address(settings[key]) for name, key in keys.items() if key in settings
        }
    return {"": _parse_address(authority)}


def _parse_address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return text.strip("[]"), DEFAULT_PORT
    if not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"NameNode address: wanted host:port; got {text}")
    return host.strip("[]"), int(port)
