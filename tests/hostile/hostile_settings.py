"""Hostile settings: name -> call, outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from eagle_spark.cli.main import main
from eagle_spark.cli.parse import parse_settings
from eagle_spark.cli.runner import run_job
from eagle_spark.datasets.split import parse_fractions
from eagle_spark.datasets.split_file import read_split_file
from eagle_spark.evaluation.labelled import parse_class_mapping
from eagle_spark.io import list_folder, resolve
from eagle_spark.settings import (
    MaintainSettings,
    PreprocessSettings,
    ReportSettings,
    ScoreSettings,
)
from tests.hostile.hostile_trial import describe_outcome

SQL = "x'); DROP TABLE eagle.cxr.images; --"
HIDDEN = "hdfs://u:secret@h/x"
_NEEDED = {
    PreprocessSettings: ("--input", "/nowhere"),
    MaintainSettings: (),
    ReportSettings: ("--model", "/nowhere"),
    ScoreSettings: ("--images", "/nowhere", "--model", "/nowhere"),
}

Run = Callable[[Path], str]


def setting(*words: str, of: type = PreprocessSettings) -> Run:
    options = ["--warehouse", "/nowhere", *_NEEDED[of], *words]
    return lambda _: describe_outcome(lambda: parse_settings(of, options))


def conf(text: str) -> Run:
    def parse(folder: Path) -> str:
        (folder / "conf.toml").write_text(text)
        return setting("--conf-file", str(folder / "conf.toml"))(folder)

    return parse


def split_file(line: str) -> Run:
    def read(folder: Path) -> str:
        (folder / "split.csv").write_text(f"path,split\n{line}\n")
        return describe_outcome(
            lambda: read_split_file(str(folder / "split.csv")).uri and "accepted"
        )

    return read


def job(*words: str, of: type = PreprocessSettings) -> Run:
    """Return a run of a job with these words; its outcome is the output."""
    options = ["--warehouse", "/nowhere", *_NEEDED[of], *words]
    return command(lambda words: run_job(of, lambda _: {"started": True}, words), *options)


def command(start: Callable[[Sequence[str]], object], *words: str) -> Run:
    """Return a run of a command; its outcome is the output."""

    def run(_: Path) -> str:
        with suppress(SystemExit):
            start(words)
        return ""

    return run


def eagle(*words: str) -> Run:
    """Return a run of `eagle`; its outcome is the output."""
    return command(main, *words)


REFUSED = "error: wanted host:port or a nameservice after hdfs://, without user or password"
LOCAL = "wanted a path of this machine, no URI; got 'hdfs://…@h/x' (see --help)"
UNRECOGNIZED = "error: unrecognized arguments:"
NO_NUL = "error: wanted a local path without NUL; got one with NUL"
SETTINGS: dict[str, tuple[Run, str]] = {
    "a size below zero": (setting("--size", "-1"), "error: --size"),
    "a size of 10**12": (setting("--size", "1000000000000"), "error: --size"),
    "a size that is no number": (setting("--size", "nan"), "error: --size"),
    "shares beyond one": (
        lambda _: describe_outcome(lambda: parse_fractions("0.9,0.9,0.9")),
        "error: `split`: wanted",
    ),
    "shares that are no numbers": (
        lambda _: describe_outcome(lambda: parse_fractions("nan,nan,nan")),
        "error: `split`: wanted",
    ),
    "a rate that is no number": (setting("--max-failure-rate", "nan"), "error: --max-failure"),
    "an unknown key": (conf("sizes = 3"), "error: --conf-file /conf.toml: unknown key 'sizes'"),
    "a file of settings that is none": (conf("\0\0"), "error: --conf-file /conf.toml is not TOML"),
    "another scheme": (
        lambda _: describe_outcome(lambda: resolve("http://169.254.169.254/")),
        "error: wanted a file:// or hdfs:// URI or a plain path",
    ),
    "a URI that climbs": (
        lambda _: describe_outcome(lambda: resolve("file:///a/../../etc")),
        "accepted",
    ),
    "a folder with a NUL": (lambda _: describe_outcome(lambda: list(list_folder("/a\0b"))), NO_NUL),
    "a file with a NUL": (
        lambda _: describe_outcome(lambda: read_split_file("file:///a\0b")),
        NO_NUL,
    ),
    "SQL as size": (setting("--size", SQL), "error: --size"),
    "SQL as engine": (setting("--engine", SQL, of=ScoreSettings), "error: --engine: wanted auto"),
    "SQL as days to keep": (setting("--keep-days", SQL, of=MaintainSettings), "error: --keep-days"),
    "SQL as class": (
        lambda _: describe_outcome(lambda: parse_class_mapping(f"COVID={SQL}", ["COVID"])),
        "error: `classes`: wanted",
    ),
    "SQL as split": (split_file(f"a.png,{SQL}"), "error: `split_file` /split.csv, line 2"),
    "SQL as the path of a split": (split_file(f"{SQL},train"), "accepted"),
    "SQL as source": (setting("--source", SQL), "accepted"),
    "a password in a URI": (lambda _: describe_outcome(lambda: resolve(HIDDEN)), REFUSED),
    "a password in --conf-file": (
        job("--conf-file", HIDDEN),
        "error: --conf-file hdfs://…@h/x cannot be read",
    ),
    "a password behind a mistyped option": (
        job("--imges", HIDDEN),
        "error: unrecognized arguments: --imges hdfs://…@h/x",
    ),
    "a password within a mistyped option": (
        job(f"--imges={HIDDEN}"),
        "error: unrecognized arguments: --imges=hdfs://…@h/x",
    ),
    "a password as a number": (job("--size", HIDDEN), "error: --size: wanted"),
    "a password as a choice": (job("--engine", HIDDEN, of=ScoreSettings), "error: --engine: "),
    "a password as a key": (conf(f"'{HIDDEN}' = 1"), "error: --conf-file /conf.toml: unknown key"),
    "a password in the report's folder": (
        job("--out", HIDDEN, of=ReportSettings),
        "error: --out: wanted a folder of this machine, no URI",
    ),
    "a password as a command": (eagle(HIDDEN), "error: wanted a command, see eagle --help; got"),
    "a password in what is put": (
        eagle("upload", HIDDEN, "/nowhere"),
        f"error: --source: {LOCAL}",
    ),
    "a password where it is put": (eagle("upload", "/nowhere", HIDDEN), REFUSED),
    "a password behind what is put": (
        eagle("upload", "/nowhere", "/nowhere", HIDDEN),
        f"{UNRECOGNIZED} hdfs://…@h/x",
    ),
    "a password in the folder of plots": (
        eagle("plots", "/nowhere", "--out", HIDDEN),
        f"error: --out: {LOCAL}",
    ),
    "a password in the log of plots": (eagle("plots", HIDDEN), REFUSED),
    "a password in the file of a Segmentation": (
        eagle("segment", "/nowhere", "--model", "/nowhere", "--out", HIDDEN),
        f"error: --out: {LOCAL}",
    ),
    "a password in the folder of a sample": (
        eagle("sample", "--out", HIDDEN),
        f"error: --out: {LOCAL}",
    ),
    "a password in the model of a prediction": (
        eagle("predict", "--model", HIDDEN, "/nowhere"),
        REFUSED,
    ),
    "a password behind a mistyped option of a prediction": (
        eagle("predict", "--modle", HIDDEN, "/nowhere"),
        f"{UNRECOGNIZED} --modle",
    ),
}
