"""Runs one hostile input in a new process, with limits of time and memory, and audits it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from eagle_spark.errors import EagleError, ImageRejectedError

TERMINAL = "/dev/tty"
SECONDS, MEGABYTES = 30, 1024  # a case may take
SECRET = "secret"  # noqa: S105 - the password of all cases, which nothing may print

_FORBIDDEN = {
    **dict.fromkeys(("os.exec", "os.fork", "os.forkpty", "os.posix_spawn"), "ran a program"),
    **dict.fromkeys(("os.system", "pty.spawn", "subprocess.Popen"), "ran a program"),
    **dict.fromkeys(("socket.connect", "socket.sendto", "socket.getaddrinfo"), "opened a socket"),
    "function.__new__": "made a function",  # of code from a file; Python itself uses another event
    "pickle.find_class": "unpickled",
}
# Event -> position of the written path in its arguments.
_WRITES = {
    **dict.fromkeys(("open", "os.chmod", "os.mkdir", "os.remove", "os.rmdir"), 0),
    **dict.fromkeys(("os.link", "os.rename", "os.symlink"), 1),
}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case; `megabytes` is the memory that its process took from its start."""

    text: str
    seconds: float
    megabytes: int


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        kind: of input: image, mask, dicom, workbook, archive, name, model, setting.
        run: puts it into an empty folder, passes it to the program, and returns the answer;
            empty if it was printed.
        expected: prefix of the answer.
    """

    kind: str
    name: str
    run: Callable[[Path], str]
    expected: str

    def __post_init__(self) -> None:
        if not self.expected:
            raise ValueError(f"{self.kind}: {self.name}: wanted an expected outcome; got none")

    def is_met_by(self, outcome: Outcome) -> bool:
        return outcome.text.startswith(self.expected) and outcome.megabytes < MEGABYTES


def describe_outcome(call: Callable[[], Any]) -> str:
    """Return the text that the call returns, `accepted`, or the error of the program."""
    try:
        value = call()
    except ImageRejectedError as rejected:
        return f"{rejected.reason}: {rejected.detail}"
    except EagleError as error:
        return f"error: {error}"
    return value if isinstance(value, str) else "accepted"


def try_out(case: Case, folder: Path) -> Outcome:
    """Run a case in a new process, and kill it after `SECONDS`."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(case, folder, theirs))
    started = time.perf_counter()
    child.start()
    theirs.close()
    try:
        if ours.poll(SECONDS):
            outcome: Outcome = ours.recv()
        else:
            outcome = Outcome(f"did not end within {SECONDS} s", SECONDS, 0)
    except EOFError:
        spent = time.perf_counter() - started
        child.join(5)
        outcome = Outcome(f"ended with {child.exitcode}", round(spent, 2), 0)
    child.kill()
    child.join()
    return outcome


def _run(case: Case, folder: Path, pipe: Any) -> None:
    os.setsid()
    with tempfile.TemporaryFile() as printed:
        _print_to(printed)
        tempfile.tempdir = str(folder)
        before = _peak()
        _bound()
        actions = _watch(folder)
        started = time.perf_counter()
        try:
            answer = case.run(folder)
        except BaseException as error:
            answer = f"raised {type(error).__name__}: {error}"
        spent = round(time.perf_counter() - started, 2)
        sys.stdout.flush()
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    answer = answer or text
    if SECRET in answer + text:
        actions.append("printed a password")
    # The first forbidden action replaces the answer.
    answer = " ".join((actions[0] if actions else answer).replace(str(folder), "").split())
    pipe.send(Outcome(answer, spent, _peak() - before))
    pipe.close()


def _print_to(file: BinaryIO) -> None:
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115


def _bound() -> None:
    """Let the process have so much memory more than it has now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # What is private and written to: address space alone would count what threads and libraries
    # set aside and never touch.
    limit = int(status["VmData"].split()[0]) * 1024 + MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _watch(folder: Path) -> list[str]:
    """Return a list to which an audit hook appends each forbidden action."""
    actions: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            actions.append(f"{_FORBIDDEN[event]}: {event} {arguments!r:.200}")
        elif event in _WRITES and not (event == "open" and _only_reads(arguments[2])):
            path = arguments[_WRITES[event]]
            if not _is_below(path, folder):
                actions.append(f"wrote elsewhere: {event} {path!r}")

    sys.dont_write_bytecode = True
    sys.addaudithook(note)
    return actions


def _only_reads(flags: int) -> bool:
    return not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)


def _is_below(path: Any, folder: Path) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)) or path == os.devnull:
        return True  # a descriptor: its `open` was audited
    if path == TERMINAL:  # `os.setsid` has taken it away
        return True
    return Path(os.path.abspath(os.fsdecode(path))).is_relative_to(folder)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
