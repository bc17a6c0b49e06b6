"""What `HADOOP_CONF_DIR` says of HDFS: `core-site.xml` and `hdfs-site.xml`."""

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
_OLD_NAMES = {"fs.default.name": DEFAULT_FS}
DEFAULT_PORT = 8020  # of a NameNode
UMASK = "fs.permissions.umask-mode"
MAX_DEPTH = 20  # of files that include each other, and of variables: Hadoop's own limit
_INCLUDE, _FALLBACK = (
    f"{{http://www.w3.org/2001/XInclude}}{tag}" for tag in ("include", "fallback")
)
_ENVIRONMENT = re.compile(r"env\.(?P<name>[^:-]+)(?:(?P<if_empty>:)?-(?P<default>.*))?", re.DOTALL)
_VARIABLE = re.compile(r"\$\{([^}$\s]+)\}")


def conf_dir() -> Path | None:
    """Return the folder of the site files: `HADOOP_CONF_DIR`, else that of `HADOOP_HOME`."""
    if folder := os.environ.get("HADOOP_CONF_DIR"):
        return Path(folder)
    home = os.environ.get("HADOOP_HOME")
    return Path(home, "etc", "hadoop") if home else None


def site_settings() -> Mapping[str, str]:
    """Return the settings of both site files; none where there are no such files.

    Raises:
        SettingsError: when a file cannot be read as XML.
    """
    folder = conf_dir()
    return _read(folder) if folder else {}


@lru_cache(maxsize=4)
def _read(folder: Path) -> dict[str, str]:
    found = {}
    for path in (folder / "core-site.xml", folder / "hdfs-site.xml"):
        try:
            properties = list(_properties(path))
        except FileNotFoundError:
            continue
        for name, value in properties:
            found[_OLD_NAMES.get(name, name)] = value
    return {name: _replaced(value, found) for name, value in found.items()}


def _properties(path: Path, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield names and values of a site file, in order, with those of files that it includes.

    Raises:
        FileNotFoundError: when there is no such file.
        SettingsError: when it cannot be read, or one that it includes is missing.
    """
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314 - of this site
    except FileNotFoundError:
        raise
    except (OSError, ElementTree.ParseError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    yield from _properties_of(root, path, depth)


def _properties_of(
    parent: ElementTree.Element, path: Path, depth: int
) -> Iterator[tuple[str, str]]:
    for one in parent:
        if one.tag == "configuration":
            yield from _properties_of(one, path, depth + 1)
        elif one.tag == "property":
            name, value = (one.findtext(tag, "").strip() for tag in ("name", "value"))
            if value:
                yield name, value
        elif one.tag == _INCLUDE:
            included = path.parent / one.get("href", "").removeprefix("file://")
            if depth >= MAX_DEPTH:
                raise SettingsError(f"{path}: files include each other more than {MAX_DEPTH} deep")
            try:
                yield from list(_properties(included, depth + 1))
            except FileNotFoundError as error:
                fallback = one.find(_FALLBACK)
                if fallback is None:
                    raise SettingsError(f"{path}: includes {included}, which is missing") from error
                yield from _properties_of(fallback, path, depth + 1)


def _replaced(value: str, settings: Mapping[str, str]) -> str:
    """Return `value` with its variables replaced: `${name}`, `${env.NAME}`, `${user.name}`.

    One that has no value stays, as in Hadoop, and so does all else once `MAX_DEPTH` are replaced.
    """
    start = 0
    for _ in range(MAX_DEPTH):
        found = _VARIABLE.search(value, start)
        if found is None:
            break
        if (text := _value_of(found[1], settings)) is None or found[0] in text:
            start = found.end()
        else:
            value = value[: found.start()] + text + value[found.end() :]
    return value


def _value_of(name: str, settings: Mapping[str, str]) -> str | None:
    if found := _ENVIRONMENT.fullmatch(name):
        value = os.environ.get(found["name"])
        is_missing = not value if found["if_empty"] else value is None
        return found["default"] if is_missing else value
    if name == "user.name":
        with suppress(OSError, KeyError):  # a user without a name, as in containers
            return getpass.getuser()
        return None
    return settings.get(name)


def file_permission() -> int:
    """Return the permission bits of a new file, as `fs.permissions.umask-mode` wants them.

    Raises:
        SettingsError: when that is not octal; Hadoop itself takes symbols as well.
    """
    umask = site_settings().get(UMASK, "022")
    if not re.fullmatch("[0-7]{3,4}", umask):
        raise SettingsError(f"{UMASK} in {conf_dir()}: wanted octal digits as 027, got {umask}")
    return 0o666 & ~int(umask, 8)


def default_authority() -> str:
    """Return the authority, such as `host:port`, of the file system that has no other name.

    Raises:
        SettingsError: when `fs.defaultFS` is missing or is no HDFS.
    """
    found = site_settings().get(DEFAULT_FS, "")
    authority = found.removeprefix("hdfs://").split("/", 1)[0]
    if not found.startswith("hdfs://") or not authority:
        where = f"{conf_dir()}/core-site.xml" if conf_dir() else "no HADOOP_CONF_DIR is set"
        raise SettingsError(
            f"hdfs:/// without a host wants an hdfs:// address in {DEFAULT_FS}; got"
            f" {found.split('://')[0] + '://…' if found else 'none'} ({where})"
        )
    return authority


def namenodes(authority: str) -> dict[str, tuple[str, int]]:
    """Return (host, port) of each NameNode by its id in a nameservice; a host's own id is empty."""
    settings = site_settings()
    ids = settings.get(f"dfs.ha.namenodes.{authority}", "").replace(",", " ").split()
    if ids:
        keys = {one: f"dfs.namenode.rpc-address.{authority}.{one}" for one in ids}
        return {one: _address(settings[key]) for one, key in keys.items() if key in settings}
    return {"": _address(authority)}


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return text.strip("[]"), DEFAULT_PORT
    if not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"a NameNode's address is host:port; got {text}")
    return host.strip("[]"), int(port)
