"""`eagle <command>`: every job and tool of the package.

Modules of a command are loaded when it runs: `--help` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A job, whose result is a JSON line, or a tool, which prints lines.

    Attributes:
        settings: `module:class` of its settings.
        function: `module:function` that runs it.
        help: one line.
        is_job: whether its result is one JSON object.
    """

    settings: str
    function: str
    help: str
    is_job: bool = True


COMMANDS = {
    "preprocess": Command(
        "settings:PreprocessSettings",
        "datasets.ingest:preprocess",
        "labelled folder to the table images",
    ),
    "train": Command("settings:TrainSettings", "training.job:train", "table images to a model"),
    "score": Command(
        "settings:ScoreSettings", "scoring.job:score", "new images to the table predictions"
    ),
    "evaluate": Command(
        "settings:EvaluateSettings",
        "evaluation.evaluate:evaluate",
        "metrics of a model on a labelled folder",
    ),
    "report": Command(
        "settings:ReportSettings", "report.report:report", "HTML report of a model and its data"
    ),
    "maintain": Command(
        "settings:MaintainSettings",
        "tables.maintenance:maintain",
        "compact tables, delete leftovers",
    ),
    "doctor": Command(
        "settings:DoctorSettings", "doctor.doctor:run_doctor", "check this environment"
    ),
    "export": Command(
        "settings:ExportSettings", "model.add_exports:add_exports", "add ONNX and LiteRT to a model"
    ),
    "resize": Command(
        "settings:ResizeSettings", "datasets.resize:resize", "copy a folder of images in one size"
    ),
    "upload": Command(
        "cli.tools:UploadSettings", "cli.tools:upload", "folder or zip archive to HDFS"
    ),
    "sample": Command(
        "cli.tools:SampleSettings", "cli.tools:sample", "write synthetic X-rays to try the jobs on"
    ),
    "predict": Command(
        "cli.predict:PredictSettings", "cli.predict:predict", "one JSON line per image", False
    ),
    "segment": Command(
        "cli.tools:SegmentSettings",
        "cli.tools:segment",
        "lungs of a DICOM X-ray as a DICOM Segmentation",
        False,
    ),
    "plots": Command(
        "cli.tools:PlotsSettings", "cli.tools:plots", "plots of a training log", False
    ),
    "gallery": Command(
        "cli.tools:GallerySettings", "cli.tools:gallery", "picture of some predictions", False
    ),
    "link-test": Command(
        "cli.tools:LinkTestSettings",
        "cli.tools:link_test",
        "folder of links to images of the test split",
        False,
    ),
    "results": Command(
        "cli.tools:ResultsSettings", "cli.tools:results", "page of submit/results.sh", False
    ),
    "view": Command("cli.view:ViewSettings", "cli.view:view", "window for single images", False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eagle`, and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return run_command(words[0], words[1:])
    if words[:1] == ["--version"]:
        from eagle_spark import __version__

        print(f"eagle {__version__}")
        return 0
    if words and words[0] not in ("-h", "--help"):
        from eagle_spark.errors import redact_credentials

        name = redact_credentials(words[0])
        print(f"error: wanted a command, see eagle --help; got {name!r}", file=sys.stderr)
        return 2
    print("usage: eagle COMMAND [OPTIONS]\n\nChest X-rays on Spark. Research use only.\n")
    for name, command in COMMANDS.items():
        print(f"  {name:<11} {command.help}")
    print("\neagle COMMAND --help lists the options of a command; eagle --version the version.")
    return 0


def run_command(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code.

    Args:
        name: a key of `COMMANDS`.
        argv: its options; None takes those of this process.
    """
    from eagle_spark.cli.runner import run_job, run_tool

    command = COMMANDS[name]
    frame: Callable[..., int] = run_job if command.is_job else run_tool

    def run(settings: object) -> Any:
        return _load(command.function)(settings)

    return frame(_load(command.settings), run, argv, f"eagle {name}")


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(f"eagle_spark.{module}"), name)


if __name__ == "__main__":
    raise SystemExit(main())
