"""What a job can be told, and what it says of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eagle_spark.errors import SettingsError, masked
from eagle_spark.options import parse_settings
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
    said = (
        "--engine: wanted auto, openvino-int8, openvino-bf16, litert, onnx, openvino, keras; "
        "got 'torch'"
    )
    with pytest.raises(SettingsError, match=said):
        parse_settings(
            ScoreSettings,
            ["--images", "i", "--model", "m", "--warehouse", "w", "--engine", "torch"],
        )


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--cache-features", "maybe", "on, off"),
        ("--feature-budget", "0", "a number above 0"),
        ("--feature-budget", "nan", "a number above 0"),
        ("--batch-size", "0", "a whole number from 1 up"),
    ],
)
def test_a_bad_option_of_training_is_named(option: str, value: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=f"{option}: wanted {wanted}; got '{value}'"):
        parse_settings(TrainSettings, ["--warehouse", "w", "--model", "m", option, value])


def test_the_conf_file_gives_what_the_command_line_does_not(tmp_path: Path) -> None:
    conf = tmp_path / "train.toml"
    conf.write_text('model = "m"\nwarehouse = "w"\nbatch-size = 8\noverwrite = true\n')
    settings = parse_settings(TrainSettings, ["--conf-file", str(conf), "--warehouse", "other"])
    assert settings == TrainSettings(model="m", warehouse="other", batch_size=8, overwrite=True)


def test_an_unknown_key_lists_the_known_ones(tmp_path: Path) -> None:
    conf = tmp_path / "x.toml"
    conf.write_text("bach_size = 8\n")
    with pytest.raises(SettingsError, match=r"unknown key 'bach_size'; known are .*batch-size"):
        parse_settings(TrainSettings, ["--conf-file", str(conf)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size = 224.5", "--size"),
        ("size = true", "--size"),
        ("input = 3", "--input"),
        ("=", "not TOML"),
    ],
)
def test_a_bad_value_in_the_conf_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    conf = tmp_path / "x.toml"
    conf.write_text(f"{text}\nwarehouse = 'w'\n" + ("" if "input" in text else "input = 'i'"))
    with pytest.raises(SettingsError, match=said):
        parse_settings(PreprocessSettings, ["--conf-file", str(conf)])


def test_a_byte_order_mark_in_front_of_the_conf_file_is_no_key(tmp_path: Path) -> None:
    conf = tmp_path / "x.toml"
    conf.write_bytes(b"\xef\xbb\xbfsize = 96\r\n")
    given = ["--conf-file", str(conf), "--input", "i", "--warehouse", "w"]
    assert parse_settings(PreprocessSettings, given).size == 96


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


def test_the_submit_scripts_only_parse_and_call() -> None:
    for script in (ROOT / "submit").glob("*.py"):
        assert len(script.read_text().splitlines()) <= 30


HIDDEN = "hdfs://u:secret@h/x"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--conf-file", HIDDEN], "--conf-file hdfs://…@h/x cannot be read"),
        (["--imges", HIDDEN], "unrecognized arguments: --imges hdfs://…@h/x"),
        ([f"--imges={HIDDEN}"], "unrecognized arguments: --imges=hdfs://…@h/x"),
        (["--size", HIDDEN], "got 'hdfs://…@h/x'"),
    ],
)
def test_a_password_is_repeated_nowhere(
    words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings(PreprocessSettings, [*NEEDED, *words])
    assert said in str(raised.value)
    printed = capfd.readouterr()
    assert "secret" not in f"{raised.value}{printed.out}{printed.err}"


@pytest.mark.parametrize("out", [HIDDEN, "hdfs://h/x", "file:///x", " "])
def test_the_report_goes_to_a_folder_that_is_no_uri(out: str) -> None:
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
def test_only_what_stands_before_a_host_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
