"""Command line over environment (`EAGLE_...`) over TOML file, to settings."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic_settings import BaseSettings, CliSettingsSource, EnvSettingsSource
from pydantic_settings import PydanticBaseSettingsSource as Source
from pydantic_settings.exceptions import SettingsError as SourceError

from eagle_spark.errors import SettingsError, redact_credentials
from eagle_spark.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S", bound=Settings)

PREFIX = "EAGLE_"
CONF_FILE = "--conf-file"
_INNER_QUOTE = "\ue000"  # a private character of Unicode
_PARAMETER = re.compile(r"`(\w+)`")


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises errors, without the credentials of URIs."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(redact_credentials(message))


def parse_settings(kind: type[S], argv: Sequence[str] | None = None, program: str = "") -> S:
    """Return the settings of a job.

    Args:
        kind: class of the settings.
        argv: words of the command line; None takes those of this process.
        program: name in `--help`.

    Raises:
        SettingsError: names the option or key that is unknown, missing or wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(
        prog=program or None,
        description=cleandoc(kind.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        CONF_FILE,
        metavar="TOML",
        help=f"the same options as keys of a TOML file; variables {PREFIX}... come before it",
    )

    class Sources(kind, BaseSettings):  # type: ignore[valid-type, misc]
        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, settings_cls: type[BaseSettings], init_settings: Source, **_: Source
        ) -> tuple[Source, ...]:
            command_line: Source = CliSettingsSource(
                settings_cls,
                cli_parse_args=words,
                cli_kebab_case=True,
                cli_implicit_flags=True,
                cli_exit_on_error=False,
                cli_avoid_json=True,
                cli_parse_none_str="\0",  # no text is null
                cli_hide_none_type=True,
                root_parser=parser,
                parse_args_method=argparse.ArgumentParser.parse_args,
                add_argument_method=partial(_add_argument, kind),
            )
            environment = EnvSettingsSource(settings_cls, env_prefix=PREFIX)
            return command_line, environment, init_settings  # the last one holds the file

    Sources.__doc__ = kind.__doc__
    try:
        settings = Sources(**_read_conf_file(kind, words))
    except SourceError as error:
        raise SettingsError(str(error)) from None
    except SettingsError as error:
        raise SettingsError(f"{add_dashes(str(error), kind)} (see --help)") from None
    return kind(**{name: _unquote(getattr(settings, name)) for name in kind.model_fields})


def _add_argument(
    kind: type[Settings], parser: argparse.ArgumentParser, *names: str, **options: Any
) -> None:
    """Add an argument of pydantic-settings with this project's metavar and a short help."""
    field = kind.model_fields.get(names[0].lstrip("-").replace("-", "_").lower())
    if field is not None:
        if options.get("nargs") in ("*", "+"):
            options["type"] = _quote
        extra = field.json_schema_extra
        metavar = extra.get("metavar") if isinstance(extra, dict) else None
        if metavar:
            options["metavar"] = metavar
        default = "" if field.default in (None, False) else f" (default {field.default})"
        options["help"] = (field.description or "") + (
            " (required)" if field.is_required() else default
        )
    parser.add_argument(*names, **options)


def _quote(text: str) -> str:
    """Return a word in quotes: pydantic-settings splits others at commas and brackets."""
    return f'"{text.replace(chr(34), _INNER_QUOTE)}"'


def _unquote(value: object) -> object:
    """Return a value with the inner quotes that `_quote` replaced."""
    if isinstance(value, list):
        return [text.replace(_INNER_QUOTE, chr(34)) for text in value]
    return value


def _read_conf_file(kind: type[Settings], words: Sequence[str]) -> dict[str, object]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument(CONF_FILE)
    try:
        path = finder.parse_known_args(words)[0].conf_file
    except argparse.ArgumentError:
        return {}  # the parser of all options raises the error
    if path is None:
        return {}
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{CONF_FILE} {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONF_FILE} {path} is not TOML: {error}") from error
    values = {key.replace("-", "_"): value for key, value in document.items()}
    if unknown := sorted(set(values) - set(kind.model_fields)):
        known = ", ".join(name.replace("_", "-") for name in kind.model_fields)
        raise SettingsError(f"{CONF_FILE} {path}: unknown key {unknown[0]!r}; known are {known}")
    return values


def add_dashes(message: str, kind: type[Settings]) -> str:
    """Return a message of the library with the options of the command line for parameters."""

    def option(match: re.Match[str]) -> str:
        name = match[1]
        return "--" + name.replace("_", "-") if name in kind.model_fields else match[0]

    return _PARAMETER.sub(option, message)
