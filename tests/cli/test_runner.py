"""The frame of the jobs: one JSON line, exit codes, nothing else on standard output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from eagle_spark.progress import Progress

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
            "error = InputError('x'); error.figures = {'failed': 1}; raise error",
            2,
            {"failed": 1, "error": "x", "kind": "InputError", "exit_code": 2},
        ),
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


def test_of_what_a_python_worker_raised_the_last_line_is_told() -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
    text = (
        f"An exception was thrown from the Python worker.\n{trace}ValueError: no\n\nThe above\n\n"
    )
    text += f"{trace}OSError: [Errno 122] quota of /w is exceeded\n"
    job = start(f"raise RuntimeError({text!r})")
    out, err = job.communicate(timeout=60)
    assert json.loads(out)["error"] == "OSError: [Errno 122] quota of /w is exceeded"
    assert "thrown from the Python worker" in err  # all of it


def test_a_full_disk_is_told_of_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")  # noqa: S108 - what a user may have set
    job = start(
        "raise RuntimeError('SparkException: java.io.IOException: No space left on device')"
    )
    out, _ = job.communicate(timeout=60)
    said = json.loads(out)["error"]
    assert said.startswith("a disk is full")
    assert "TMPDIR (/dev/shm here, " in said
    assert said.endswith(
        "run this job again: SparkException: java.io.IOException: No space left on device"
    )


def test_a_full_disk_behind_another_error_is_told_of_too() -> None:
    trace = "Traceback (most recent call last):\n  File 'a.py', line 1, in f\n"
    text = f"thrown from the Python worker.\n{trace}OSError: [Errno 28] No space left on device\n"
    text += f"\nDuring handling of the above exception:\n\n{trace}ValueError: closed file\n"
    out, _ = start(f"raise RuntimeError({text!r})").communicate(timeout=60)
    said = json.loads(out)["error"]
    assert said.startswith("a disk is full")
    assert said.endswith("OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize(
    "quota",
    [
        "The DiskSpace quota of /w is exceeded: quota = 1 B = 1 B but diskspace consumed = 2 B",
        "The NameSpace quota (directories and files) of directory /w is exceeded: quota=1 count=2",
        "Quota by storage type : SSD on path : /w is exceeded. quota = 1 B but space consumed = 2",
    ],
)
def test_a_quota_of_hdfs_is_told_of_wherever_it_stands(quota: str) -> None:
    trace = (
        f"java.lang.X: Self-suppression not permitted\n\tat A.b\nCaused by: Y: {quota}\n\tat C.d"
    )
    for body in (
        f"e = ValueError('not permitted'); e._stackTrace = {trace!r}; raise e",
        f"raise ValueError({trace!r})",
    ):
        out, _ = start(body).communicate(timeout=60)
        said = json.loads(out)["error"]
        assert said.startswith("an HDFS quota is reached; make room or have it raised")
        assert said.endswith(quota)


def test_the_result_comes_where_the_log_is_on_a_full_disk() -> None:
    silent = FRAME.replace("""print("a library's chatter")""", "")
    for body, code in (
        ("raise InputError('x')", 2),
        ("raise ValueError('x')", 1),
        ("return {}", 0),
    ):
        with open("/dev/full", "w") as full:
            job = subprocess.run(
                [sys.executable, "-c", silent.format(body=body)],
                stdout=subprocess.PIPE,
                stderr=full,
                text=True,
                timeout=60,
            )
        assert (job.returncode, json.loads(job.stdout).get("exit_code", 0)) == (code, code)


def test_nothing_follows_the_result_even_where_both_outputs_are_merged() -> None:
    late = "import atexit; atexit.register(os.system, 'echo late; echo late >&2'); "
    job = subprocess.run(
        [sys.executable, "-c", FRAME.format(body=late + "raise InputError('no such folder: x')")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    *before, last = job.stdout.splitlines()
    assert json.loads(last)["error"] == "no such folder: x"
    assert "error: no such folder: x" in before
    assert "late" not in job.stdout
    assert job.returncode == 2


def test_wrong_options_too_end_with_the_result() -> None:
    body = FRAME.format(body="pass").replace('"--images"', '"--imagse"')
    job = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=60)
    assert job.returncode == json.loads(job.stdout)["exit_code"] == 2
    assert "error: " in job.stderr


PROGRESS = """
import os, sys
if sys.argv[1:]:
    os.open(sys.argv[1], os.O_RDWR)  # the first terminal a session opens becomes its own
from eagle_spark.progress import Progress
with Progress("decode", 10) as progress:
    progress.update(3)
"""


def show_progress(*terminal: str) -> str:
    """Run in a session of its own, so that the terminal of whoever runs the tests is not found."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS, *terminal],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_progress_is_silent_without_a_terminal() -> None:
    assert show_progress() == ""


def test_progress_finds_the_terminal_behind_a_pipe() -> None:
    ours, theirs = os.openpty()
    try:
        assert show_progress(os.ttyname(theirs)) == ""
        assert b"decode: 3/10 images" in os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_line_of_progress_gives_count_rate_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((100.0, 104.0, 100.0, 100.0))
    monkeypatch.setattr("eagle_spark.progress.time.monotonic", lambda: next(clock))
    line = Progress("decode", 12_000).line(4_000)
    assert line == "decode: 4,000/12,000 images, 1000.0/s, 8 s to go"
    assert Progress("upload", 5, "files").line(0) == "upload: 0/5 files, 0.0/s, …"


def test_the_rate_is_that_since_the_beginning_of_this_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 100.0, 104.0))
    monkeypatch.setattr("eagle_spark.progress.time.monotonic", lambda: next(clock))
    progress = Progress("train", 1_000)
    progress.begin(600)  # done by a process before this one
    assert progress.line(800) == "train: 800/1,000 images, 50.0/s, 4 s to go"


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


@pytest.mark.parametrize(("told", "code"), [(0, 0), (3, 3), (1, 0)])
def test_a_job_that_is_done_may_ask_to_be_looked_at(told: int, code: int) -> None:
    job = start(f"return {{'exit_code': {told}}}")
    out, _ = job.communicate(timeout=60)
    assert (job.returncode, json.loads(out)) == (code, {"exit_code": told})
