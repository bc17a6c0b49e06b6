"""What `HADOOP_CONF_DIR` says of HDFS: `core-site.xml` and `hdfs-site.xml`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

from eagle_spark.errors import SettingsError

DEFAULT_FS = "fs.defaultFS"
DEFAULT_PORT = 8020  # of a NameNode
UMASK = "fs.permissions.umask-mode"


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
            properties = ElementTree.parse(path).iter("property")  # noqa: S314 - of this site
        except FileNotFoundError:
            continue
        except (OSError, ElementTree.ParseError) as error:
            raise SettingsError(f"{path}: cannot be read: {error}") from error
        for one in properties:
            name, value = (one.findtext(tag, "").strip() for tag in ("name", "value"))
            if value:
                found[name] = value
    return found


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
