"""The frame of the jobs: one JSON line, exit codes, nothing else on standard output."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

FRAME = """
import os, sys, time
from eagle_spark.errors import EagleError, InputError
from eagle_spark.job import main
from eagle_spark.settings import ScoreSettings
def run(settings):
    print("a library's chatter")
    os.system("echo chatter of a child")
    {body}
sys.exit(main(ScoreSettings, run, ["--images", "i", "--model", "m", "--warehouse", "w"]))
"""


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FRAME.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("body", "code", "found"),
    [
        ("return {'listed': 3}", 0, {"listed": 3}),
        (
            "raise InputError('no such folder: x')",
            2,
            {"error": "no such folder: x", "kind": "InputError", "exit_code": 2},
        ),
        ("raise EagleError('broke')", 1, {"error": "broke", "kind": "EagleError", "exit_code": 1}),
        (
            "raise ValueError('two\\nlines')",
            1,
            {"error": "two lines", "kind": "ValueError", "exit_code": 1},
        ),
    ],
)
def test_standard_output_is_one_json_object(body: str, code: int, found: dict[str, object]) -> None:
    job = start(body)
    out, err = job.communicate(timeout=60)
    assert job.returncode == code
    assert [json.loads(line) for line in out.splitlines()] == [found]
    assert "a library's chatter" in err
    assert "chatter of a child" in err


def test_a_user_error_is_one_line_without_a_trace() -> None:
    job = start("raise InputError('no such folder: x')")
    _, err = job.communicate(timeout=60)
    assert "error: no such folder: x" in err.splitlines()
    assert "Traceback" not in err


def test_sigterm_unwinds_and_reports() -> None:
    job = start("print('ready', file=sys.stderr, flush=True); time.sleep(60)")
    assert job.stderr is not None
    for line in job.stderr:
        if line.startswith("ready"):
            break
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=30)
    assert job.returncode == 1
    assert json.loads(out)["error"] == "stopped by SIGTERM"
