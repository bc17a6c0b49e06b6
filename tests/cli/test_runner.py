"""The frame of the jobs: one JSON line, exit codes, nothing else on standard output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eagle_spark.progress import Progress

FRAME = """
import logging, os, sys, time
if sys.argv[1:]:
    os.open(sys.argv[1], os.O_RDWR)  # the first terminal a session opens becomes its own
from eagle_spark.errors import EagleError, InputError
from eagle_spark.cli.runner import run_job as main
from eagle_spark.settings import ScoreSettings
def run(settings):
    print("a library's chatter")
    os.system("echo chatter of a child")
    {body}
sys.exit(main(ScoreSettings, run, ["--images", "i", "--model", "m", "--warehouse", "w"]))
"""


def start(body: str, *terminal: str) -> subprocess.Popen[str]:
    """Start a job in a new session, with the given terminal or without one."""
    return subprocess.Popen(
        [sys.executable, "-c", FRAME.format(body=body), *terminal],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("body", "code", "result"),
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
def test_standard_output_is_one_json_object(
    body: str, code: int, result: dict[str, object]
) -> None:
    job = start(body)
    out, err = job.communicate(timeout=60)
    assert job.returncode == code
    assert [json.loads(line) for line in out.splitlines()] == [result]
    assert "a library's chatter" in err
    assert "chatter of a child" in err


def test_a_user_error_is_one_line_without_a_trace() -> None:
    job = start("raise InputError('no such folder: x')")
    _, err = job.communicate(timeout=60)
    assert "error: no such folder: x" in err.splitlines()
    assert "Traceback" not in err


def test_the_error_of_a_python_worker_is_its_last_line() -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n'
    text = (
        f"An exception was thrown from the Python worker.\n{trace}ValueError: no\n\nThe above\n\n"
    )
    text += f"{trace}OSError: [Errno 122] quota of /w is exceeded\n"
    job = start(f"raise RuntimeError({text!r})")
    out, err = job.communicate(timeout=60)
    assert json.loads(out)["error"] == "OSError: [Errno 122] quota of /w is exceeded"
    assert "thrown from the Python worker" in err  # all of it


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/dev/shm")  # noqa: S108 - a possible setting
    job = start(
        "raise RuntimeError('SparkException: java.io.IOException: No space left on device')"
    )
    out, _ = job.communicate(timeout=60)
    error = json.loads(out)["error"]
    assert error.startswith("a disk is full")
    assert "TMPDIR (/dev/shm here, " in error
    assert error.endswith(
        "run this job again: SparkException: java.io.IOException: No space left on device"
    )


def test_a_full_disk_behind_another_error_is_named() -> None:
    trace = "Traceback (most recent call last):\n  File 'a.py', line 1, in f\n"
    text = f"thrown from the Python worker.\n{trace}OSError: [Errno 28] No space left on device\n"
    text += f"\nDuring handling of the above exception:\n\n{trace}ValueError: closed file\n"
    out, _ = start(f"raise RuntimeError({text!r})").communicate(timeout=60)
    error = json.loads(out)["error"]
    assert error.startswith("a disk is full")
    assert error.endswith("OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize(
    "quota",
    [
        "The DiskSpace quota of /w is exceeded: quota = 1 B = 1 B but diskspace consumed = 2 B",
        "The NameSpace quota (directories and files) of directory /w is exceeded: quota=1 count=2",
        "Quota by storage type : SSD on path : /w is exceeded. quota = 1 B but space consumed = 2",
    ],
)
def test_an_exceeded_hdfs_quota_is_named(quota: str) -> None:
    trace = (
        f"java.lang.X: Self-suppression not permitted\n\tat A.b\nCaused by: Y: {quota}\n\tat C.d"
    )
    for body in (
        f"e = ValueError('not permitted'); e._stackTrace = {trace!r}; raise e",
        f"raise ValueError({trace!r})",
    ):
        out, _ = start(body).communicate(timeout=60)
        error = json.loads(out)["error"]
        assert error.startswith("an HDFS quota is reached; make room or have it raised")
        assert error.endswith(quota)


def test_the_result_is_printed_if_the_log_is_on_a_full_disk() -> None:
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


def test_the_result_is_the_last_line_of_merged_outputs() -> None:
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


def test_wrong_options_end_with_a_result() -> None:
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
    """Run in a new session, without the terminal that runs the tests."""
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


def test_the_rate_counts_from_the_restart(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_log_of_the_package_is_on_standard_error() -> None:
    job = start(
        "log = logging.getLogger('eagle_spark.io'); "
        "log.warning('`masks_out` x: 3 of %d masks failed', 7); "
        "log.info('published `snapshot`'); log.debug('not shown'); return {'scored': 4}"
    )
    out, err = job.communicate(timeout=60)
    assert json.loads(out) == {"scored": 4}
    shown = [line for line in err.splitlines() if "chatter" not in line]
    assert shown == ["warning: --masks-out x: 3 of 7 masks failed", "published `snapshot`"]


def test_an_error_of_a_job_names_options() -> None:
    job = start("raise InputError('`masks_out` x: no such folder; see `snapshot`')")
    out, err = job.communicate(timeout=60)
    message = "--masks-out x: no such folder; see `snapshot`"
    assert json.loads(out)["error"] == message
    assert f"error: {message}" in err.splitlines()


def run_in_terminal(body: str) -> tuple[subprocess.Popen[str], str, str, str]:
    """Run a job; return it, both outputs and the text of its terminal."""
    ours, theirs = os.openpty()
    try:
        job = start(body, os.ttyname(theirs))
        out, err = job.communicate(timeout=60)
        os.write(theirs, b"end")
        shown = b""
        while not shown.endswith(b"end"):
            shown += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    return job, out, err, shown.decode().replace("\r\n", "\n").removesuffix("end")


RESULT = {
    "listed": 12_000,
    "drift": 0.25,
    "seconds": 1234.5678,
    "finished": True,
    "run_id": "score-1",
    "engine": "openvino",
    "by_class": {"COVID": 3},
    "masks_error": None,
    "application": "a" * 65,
}


def test_a_terminal_shows_a_table_of_the_figures() -> None:
    job, out, err, shown = run_in_terminal(f"return {RESULT!r}")
    assert (job.returncode, json.loads(out)) == (0, RESULT)
    assert shown.splitlines() == [
        "  listed    12,000",
        "  drift     0.25",
        "  seconds   1,235",
        "  finished  yes",
        "  engine    openvino",
    ]
    assert "12,000" not in err


def test_without_a_terminal_there_is_no_table() -> None:
    job = start(f"return {RESULT!r}")
    out, err = job.communicate(timeout=60)
    assert (job.returncode, json.loads(out)) == (0, RESULT)
    assert "listed" not in err


def test_in_a_terminal_a_failure_has_no_table_and_its_trace_is_in_a_file() -> None:
    body = "raise ValueError('no')"
    job, out, err, shown = run_in_terminal(body)
    assert (job.returncode, json.loads(out)["error"], shown) == (1, "no", "")
    assert "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("details of the error: "))
    log = Path(line.partition(": ")[2])
    try:
        assert log.read_text().splitlines()[-1] == "ValueError: no"
    finally:
        log.unlink()


@pytest.mark.parametrize(("exit_code", "code"), [(0, 0), (3, 3), (1, 0)])
def test_a_result_may_set_exit_code_3(exit_code: int, code: int) -> None:
    job = start(f"return {{'exit_code': {exit_code}}}")
    out, _ = job.communicate(timeout=60)
    assert (job.returncode, json.loads(out)) == (code, {"exit_code": exit_code})
