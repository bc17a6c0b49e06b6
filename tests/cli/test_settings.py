"""Settings: command line, environment, TOML file and Python; errors name the wrong value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eagle_spark.cli.main import COMMANDS
from eagle_spark.cli.parse import parse_settings
from eagle_spark.errors import SettingsError, redact_credentials
from eagle_spark.settings import (
    PreprocessSettings,
    ReportSettings,
    ScoreSettings,
    TrainSettings,
)

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ["--input", "in", "--warehouse", "wh"]


def test_options_become_typed_settings() -> None:
    settings = parse_settings(PreprocessSettings, [*NEEDED, "--size", "256", "--seed", "3"])
    assert settings == PreprocessSettings(input="in", warehouse="wh", size=256, seed=3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--input", "in"], "--warehouse"),
        ([*NEEDED, "--size", "225"], "--size: wanted a multiple of 32"),
        ([*NEEDED, "--size", "-224"], "--size"),
        ([*NEEDED, "--size", "many"], "'many'"),
        ([*NEEDED, "--max-failure-rate", "1.5"], "--max-failure-rate"),
        ([*NEEDED, "--max-failure-rate", "nan"], "--max-failure-rate"),
        ([*NEEDED, "--bogus", "1"], "--bogus"),
        (["--input", " ", "--warehouse", "wh"], "--input"),
    ],
)
def test_a_bad_option_is_named(options: list[str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse_settings(PreprocessSettings, options)


def test_a_choice_outside_the_list_is_named() -> None:
    message = (
        "--engine: wanted auto, openvino-int8, openvino-bf16, litert, onnx, openvino, keras; "
        "got 'torch'"
    )
    with pytest.raises(SettingsError, match=message):
        parse_settings(
            ScoreSettings,
            ["--images", "i", "--model", "m", "--warehouse", "w", "--engine", "torch"],
        )


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--cache-features", "maybe", "on, off"),
        ("--feature-budget", "0", "a number above 0"),
        ("--feature-budget", "nan", "a number above 0"),
        ("--batch-size", "0", "a whole number from 1 up"),
    ],
)
def test_a_bad_option_of_training_is_named(option: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=f"{option}: wanted {expected}; got '{value}'"):
        parse_settings(TrainSettings, ["--warehouse", "w", "--model", "m", option, value])


def test_the_command_line_overrides_the_conf_file(tmp_path: Path) -> None:
    conf = tmp_path / "train.toml"
    conf.write_text('model = "m"\nwarehouse = "w"\nbatch-size = 8\noverwrite = true\n')
    settings = parse_settings(TrainSettings, ["--conf-file", str(conf), "--warehouse", "other"])
    assert settings == TrainSettings(model="m", warehouse="other", batch_size=8, overwrite=True)


@pytest.mark.parametrize(
    ("words", "variables", "chunk"),
    [
        (["--chunk", "1"], {"EAGLE_CHUNK": "2"}, 1),
        ([], {"EAGLE_CHUNK": "2"}, 2),
        ([], {}, 3),
    ],
)
def test_precedence_is_command_line_environment_conf_file(
    words: list[str],
    variables: dict[str, str],
    chunk: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = tmp_path / "score.toml"
    conf.write_text('images = "i"\nmodel = "m"\nchunk = 3\n')
    for name, value in ({"EAGLE_WAREHOUSE": "w"} | variables).items():
        monkeypatch.setenv(name, value)
    settings = parse_settings(ScoreSettings, ["--conf-file", str(conf), *words])
    assert settings == ScoreSettings(images="i", model="m", warehouse="w", chunk=chunk)


def test_a_bad_variable_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLE_SIZE", "many")
    with pytest.raises(SettingsError, match=r"--size: wanted a multiple of 32.*; got 'many'"):
        parse_settings(PreprocessSettings, NEEDED)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 225}, "`size`: wanted a multiple of 32 from 32 to 1024; got 225"),
        ({"size": True}, "`size`: wanted a multiple of 32 from 32 to 1024; got True"),
        ({"max_failure_rate": 1.5}, "`max_failure_rate`: wanted a number from 0 to 1; got 1.5"),
        ({"input": " "}, "`input`: wanted a folder URI; got ' '"),
        ({"sise": 224}, "unknown parameter 'sise'; known are input, warehouse, source, size, "),
    ],
)
def test_a_wrong_value_in_python_names_the_parameter(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        PreprocessSettings(**{"input": "in", "warehouse": "wh"} | values)
    assert str(raised.value).startswith(message)
    assert "--" not in str(raised.value)


def test_missing_parameters_in_python_are_named() -> None:
    with pytest.raises(SettingsError, match=r"^missing: `input`, `warehouse`$"):
        PreprocessSettings()


def test_settings_cannot_be_changed() -> None:
    settings = PreprocessSettings(input="in", warehouse="wh")
    with pytest.raises(ValueError, match="frozen"):
        settings.size = 256


def test_an_unknown_key_lists_the_known_ones(tmp_path: Path) -> None:
    conf = tmp_path / "x.toml"
    conf.write_text("bach_size = 8\n")
    with pytest.raises(SettingsError, match=r"unknown key 'bach_size'; known are .*batch-size"):
        parse_settings(TrainSettings, ["--conf-file", str(conf)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size = 224.5", "--size"),
        ("size = true", "--size"),
        ("input = 3", "--input"),
        ("=", "not TOML"),
    ],
)
def test_a_bad_value_in_the_conf_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    conf = tmp_path / "x.toml"
    conf.write_text(f"{text}\nwarehouse = 'w'\n" + ("" if "input" in text else "input = 'i'"))
    with pytest.raises(SettingsError, match=message):
        parse_settings(PreprocessSettings, ["--conf-file", str(conf)])


def test_a_byte_order_mark_of_the_conf_file_is_ignored(tmp_path: Path) -> None:
    conf = tmp_path / "x.toml"
    conf.write_bytes(b"\xef\xbb\xbfsize = 96\r\n")
    words = ["--conf-file", str(conf), "--input", "i", "--warehouse", "w"]
    assert parse_settings(PreprocessSettings, words).size == 96


def test_a_missing_conf_file_is_named() -> None:
    with pytest.raises(SettingsError, match=r"/nowhere/x\.toml cannot be read"):
        parse_settings(PreprocessSettings, [*NEEDED, "--conf-file", "/nowhere/x.toml"])


@pytest.mark.parametrize("job", ["preprocess", "train", "score"])
def test_help_loads_neither_spark_nor_tensorflow(job: str) -> None:
    code = (
        "import runpy, sys; sys.argv = ['job', '--help']\n"
        f"try: runpy.run_path({str(ROOT / 'submit' / f'{job}.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'pyspark', 'tensorflow', 'keras', 'openvino', 'pandas', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--warehouse URI" in done.stdout


def test_a_submit_script_only_runs_its_command() -> None:
    scripts = list((ROOT / "submit").glob("*.py"))
    assert {script.stem for script in scripts} <= COMMANDS.keys()
    for script in scripts:
        lines = script.read_text().splitlines()
        assert lines[0].startswith(f'"""spark-submit submit/{script.name} ')
        assert [line.strip() for line in lines[1:] if line] == [
            "from eagle_spark.cli.main import run_command",
            'if __name__ == "__main__":',
            f'raise SystemExit(run_command("{script.stem}"))',
        ]


HIDDEN = "hdfs://u:secret@h/x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--conf-file", HIDDEN], "--conf-file hdfs://…@h/x cannot be read"),
        (["--imges", HIDDEN], "unrecognized arguments: --imges hdfs://…@h/x"),
        ([f"--imges={HIDDEN}"], "unrecognized arguments: --imges=hdfs://…@h/x"),
        (["--size", HIDDEN], "got 'hdfs://…@h/x'"),
    ],
)
def test_a_password_is_in_no_output(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings(PreprocessSettings, [*NEEDED, *words])
    assert message in str(raised.value)
    printed = capfd.readouterr()
    assert "secret" not in f"{raised.value}{printed.out}{printed.err}"


@pytest.mark.parametrize("out", [HIDDEN, "hdfs://h/x", "file:///x", " "])
def test_the_folder_of_a_report_is_local(out: str) -> None:
    with pytest.raises(SettingsError, match="--out: wanted a folder of this machine") as raised:
        parse_settings(ReportSettings, ["--warehouse", "w", "--model", "m", "--out", out])
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HIDDEN, "hdfs://…@h/x"),
        ("s3a://KEY:sec/ret@bucket/x", "s3a://…@bucket/x"),
        ("hdfs:/u:p@ss@h:8020/x", "hdfs:/…@h:8020/x"),
        ("hdfs://nn:8020/a@2.png", "hdfs://nn:8020/a@2.png"),
        ("file:///a@2.png is no image", "file:///a@2.png is no image"),
        ("hdfs:///u:secret@h/x", "hdfs:///…@h/x"),
        ("hdfs:///a/b:c@2.png", "hdfs:///a/b:c@2.png"),
        ("hdfs://[::1]:8020/a/b@2.png", "hdfs://[::1]:8020/a/b@2.png"),
    ],
)
def test_only_credentials_are_redacted(text: str, shown: str) -> None:
    assert redact_credentials(text) == shown
