"""Settings that lie: by what they are, with what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from eagle_spark.datasets.split import parse_fractions
from eagle_spark.datasets.split_file import read_split_file
from eagle_spark.datasets.synthetic import sample
from eagle_spark.evaluation.labelled import read_spellings
from eagle_spark.io import list_folder, locate, upload
from eagle_spark.job import main
from eagle_spark.options import parse_settings
from eagle_spark.report import curves
from eagle_spark.scoring import dicom_seg as segmentation
from eagle_spark.settings import (
    MaintainSettings,
    PreprocessSettings,
    ReportSettings,
    ScoreSettings,
)
from eagle_spark.viewer import predict
from tests.hostile.hostile_trial import said

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
    given = ["--warehouse", "/nowhere", *_NEEDED[of], *words]
    return lambda _: said(lambda: parse_settings(of, given))


def conf(text: str) -> Run:
    def parse(folder: Path) -> str:
        (folder / "conf.toml").write_text(text)
        return setting("--conf-file", str(folder / "conf.toml"))(folder)

    return parse


def split_file(line: str) -> Run:
    def read(folder: Path) -> str:
        (folder / "split.csv").write_text(f"path,split\n{line}\n")
        return said(lambda: read_split_file(str(folder / "split.csv")).uri and "accepted")

    return read


def job(*words: str, of: type = PreprocessSettings) -> Run:
    """What a job prints that is started with these words."""
    given = ["--warehouse", "/nowhere", *_NEEDED[of], *words]
    return command(lambda words: main(of, lambda _: {"started": True}, words), *given)


def command(start: Callable[[Sequence[str]], object], *words: str) -> Run:
    """What a command prints."""

    def run(_: Path) -> str:
        with suppress(SystemExit):
            start(words)
        return ""

    return run


def put(*words: str) -> Run:
    return command(upload.main, *words)


REFUSED = "error: hdfs:// is followed by"
USAGE = "usage: "
NO_NUL = "error: a path on this machine holds no NUL"
SETTINGS: dict[str, tuple[Run, str]] = {
    "a size below zero": (setting("--size", "-1"), "error: --size"),
    "a size of 10**12": (setting("--size", "1000000000000"), "error: --size"),
    "a size that is no number": (setting("--size", "nan"), "error: --size"),
    "shares beyond one": (
        lambda _: said(lambda: parse_fractions("0.9,0.9,0.9")),
        "error: --split",
    ),
    "shares that are no numbers": (
        lambda _: said(lambda: parse_fractions("nan,nan,nan")),
        "error: --split",
    ),
    "a rate that is no number": (setting("--max-failure-rate", "nan"), "error: --max-failure"),
    "an unknown key": (conf("sizes = 3"), "error: --conf-file /conf.toml: unknown key 'sizes'"),
    "a file of settings that is none": (conf("\0\0"), "error: --conf-file /conf.toml is not TOML"),
    "another scheme": (
        lambda _: said(lambda: locate("http://169.254.169.254/")),
        "error: a URI begins with",
    ),
    "a URI that climbs": (lambda _: said(lambda: locate("file:///a/../../etc")), "accepted"),
    "a folder with a NUL": (lambda _: said(lambda: list(list_folder("/a\0b"))), NO_NUL),
    "a file with a NUL": (lambda _: said(lambda: read_split_file("file:///a\0b")), NO_NUL),
    "SQL as size": (setting("--size", SQL), "error: --size"),
    "SQL as engine": (setting("--engine", SQL, of=ScoreSettings), "error: --engine: wanted auto"),
    "SQL as days to keep": (setting("--keep-days", SQL, of=MaintainSettings), "error: --keep-days"),
    "SQL as class": (
        lambda _: said(lambda: read_spellings(f"COVID={SQL}", ["COVID"])),
        "error: --classes wants",
    ),
    "SQL as split": (split_file(f"a.png,{SQL}"), "error: --split-file /split.csv, line 2"),
    "SQL as the path of a split": (split_file(f"{SQL},train"), "accepted"),
    "SQL as source": (setting("--source", SQL), "accepted"),
    "a password in a URI": (lambda _: said(lambda: locate(HIDDEN)), REFUSED),
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
    "a password in what is put": (put(HIDDEN, "/nowhere"), USAGE),
    "a password where it is put": (put("/nowhere", HIDDEN), REFUSED),
    "a password behind what is put": (put("/nowhere", "/nowhere", HIDDEN), USAGE),
    "a password in the folder of plots": (
        command(curves.main, "/nowhere", "--out", HIDDEN),
        USAGE,
    ),
    "a password in the log of plots": (command(curves.main, HIDDEN), REFUSED),
    "a password in the file of a Segmentation": (
        command(segmentation.main, "/nowhere", "--model", "/nowhere", "--out", HIDDEN),
        USAGE,
    ),
    "a password in the folder of a sample": (command(sample.main, "--out", HIDDEN), USAGE),
    "a password in the model of a prediction": (
        command(predict.main, "--model", HIDDEN, "/nowhere"),
        REFUSED,
    ),
    "a password behind a mistyped option of a prediction": (
        command(predict.main, "--modle", HIDDEN, "/nowhere"),
        USAGE,
    ),
}
