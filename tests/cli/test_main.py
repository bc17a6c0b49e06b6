"""The command `eagle`: its commands, their settings, and the imports of `--help`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import cleandoc

import pytest

from eagle_spark import __version__
from eagle_spark.cli.main import COMMANDS, main
from eagle_spark.cli.parse import parse_settings
from eagle_spark.cli.predict import PredictSettings
from eagle_spark.settings import Settings
from tests.helpers.processes import run_eagle

HEAVY = ("pyspark", "tensorflow", "keras", "openvino", "pandas", "pyarrow", "pydantic_settings")


def resolve(path: str) -> object:
    module, _, name = path.partition(":")
    return getattr(import_module(f"eagle_spark.{module}"), name)


def test_help_lists_the_commands_and_loads_no_heavy_library() -> None:
    code = (
        "import sys; from eagle_spark.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        f"loaded = set({HEAVY}) & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name, command in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert command.help in done.stdout


def test_help_is_shown_without_a_command(
    eagle: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert eagle() == eagle("-h") == 0
    shown = capsys.readouterr().out
    assert shown.count("usage: eagle COMMAND [OPTIONS]") == 2


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"eagle {__version__}\n"


@pytest.mark.parametrize("words", [["scroe"], ["--imagse", "x"], ["hdfs://u:secret@h/x"]])
def test_an_unknown_command_is_one_line_and_exit_code_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: wanted a command, see eagle --help; got ")
    assert shown.err.count("\n") == 1
    assert "secret" not in shown.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_function_and_settings(name: str) -> None:
    command = COMMANDS[name]
    kind = resolve(command.settings)
    assert isinstance(kind, type)
    assert issubclass(kind, Settings)
    assert kind.__doc__
    assert all(field.description for field in kind.model_fields.values())
    assert callable(resolve(command.function))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_describes_its_options(
    name: str,
    eagle: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = resolve(COMMANDS[name].settings)
    assert isinstance(kind, type)
    assert issubclass(kind, Settings)
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        eagle(name, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith(f"usage: eagle {name} ")
    assert f"\n{cleandoc(kind.__doc__ or '')}\n" in shown.out
    for option, field in kind.model_fields.items():
        assert str(field.description) in shown.out
        if not any("Positional" in str(mark) for mark in field.metadata):
            assert f"--{option.replace('_', '-')}" in shown.out


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_an_error_of_every_command(name: str) -> None:
    done = run_eagle(name, "x", "y", "--imagse")
    assert done.returncode == 2
    assert re.match(r"error: unrecognized arguments: .*--imagse \(see --help\)$", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_names_of_images_are_taken_as_they_are() -> None:
    names = [
        "Doe,John.png",
        "[1].png",
        "{a}.png",
        '"q".png',
        "None",
        "null",
        "a b.png",
        r"a\b.png",
        "",
    ]
    settings = parse_settings(PredictSettings, ["--model", "None", *names])
    assert settings == PredictSettings(model="None", images=names)
