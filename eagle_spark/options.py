"""Options of a job: fields of a settings class, from the command line and from a TOML file."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from eagle_spark.errors import SettingsError, masked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S")
Check = Callable[[Any], bool]
_REQUIRED: Any = dataclasses.MISSING


def option(
    text: str,
    *,
    default: Any = _REQUIRED,
    metavar: str | None = None,
    wanted: str = "",
    check: Check | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Return the field of a settings class that is an option of a job.

    Args:
        text: of `--help`.
        wanted: what a value has to be, for the error.
        check: whether a value is that.
        choices: all values that there are.
    """
    metadata = {
        "help": text,
        "metavar": metavar,
        "wanted": wanted,
        "check": check,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


class Parser(argparse.ArgumentParser):
    """One that repeats no password of a URI."""

    def error(self, message: str) -> NoReturn:
        super().error(masked(message))


def local_path(text: str) -> Path:
    """Return the path that an argument gives; the `type` of one that may not be a URI."""
    if not is_local_path(text):
        raise argparse.ArgumentTypeError(f"wanted a path on this machine; got {text}")
    return Path(text)


def is_local_path(text: str) -> bool:
    """Whether a text names a place on this machine, and is no URI, which `Path` would take too."""
    return bool(text.strip()) and "://" not in text


class _SettingsParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (see --help)")


def parse_settings(kind: type[S], argv: Sequence[str] | None = None) -> S:
    """Return the settings that the command line, and `--conf-file` below it, ask for.

    Raises:
        SettingsError: for an unknown option or key, a missing or a bad value; names it.
    """
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    parser = _SettingsParser(
        description=kind.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, item in fields.items():
        flag = "--" + name.replace("_", "-")
        text = item.metadata["help"] + _default_text(item)
        if hints[name] is bool:
            parser.add_argument(flag, dest=name, action="store_true", default=None, help=text)
        else:
            choices = item.metadata["choices"]
            parser.add_argument(
                flag,
                dest=name,
                metavar=item.metadata["metavar"] or "|".join(choices),
                help=text,
            )
    parser.add_argument(
        "--conf-file", metavar="TOML", help="the same options as keys of a TOML file"
    )
    given = vars(parser.parse_args(argv))
    conf_file = given.pop("conf_file")
    values: dict[str, Any] = _read_conf_file(conf_file, fields) if conf_file else {}
    values.update({name: value for name, value in given.items() if value is not None})
    missing = [
        "--" + name.replace("_", "-")
        for name, item in fields.items()
        if name not in values and item.default is dataclasses.MISSING
    ]
    if missing:
        raise SettingsError(f"missing: {', '.join(missing)} (see --help)")
    return kind(
        **{name: _converted(fields[name], hints[name], value) for name, value in values.items()}
    )


def _default_text(item: dataclasses.Field[Any]) -> str:
    if item.default is dataclasses.MISSING:
        return " (required)"
    return "" if item.default in (None, False) else f" (default {item.default})"


def _read_conf_file(path: str, fields: dict[str, dataclasses.Field[Any]]) -> dict[str, Any]:
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"--conf-file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--conf-file {path} is not TOML: {error}") from error
    values = {key.replace("-", "_"): value for key, value in found.items()}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        known = ", ".join(name.replace("_", "-") for name in fields)
        raise SettingsError(f"--conf-file {path}: unknown key {unknown[0]!r}; known are {known}")
    return values


def _converted(item: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    flag = "--" + item.name.replace("_", "-")
    kind = next(part for part in (typing.get_args(hint) or (hint,)) if part is not types.NoneType)
    choices = item.metadata["choices"]
    wanted = item.metadata["wanted"] or (", ".join(choices) if choices else kind.__name__)
    problem = SettingsError(f"{flag}: wanted {wanted}; got {value!r}")
    if kind in (str, bool):
        if not isinstance(value, kind):
            raise problem
        converted = value
    else:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise problem
        try:
            converted = kind(value)
        except ValueError:
            raise problem from None
        if not isinstance(value, str) and converted != value:
            raise problem
    check = item.metadata["check"]
    if (choices and converted not in choices) or (check and not check(converted)):
        raise problem
    return converted
