"""Runs the blocks of a page as a reader does, in one folder and in their order."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from select import select

from tests.helpers.pages import Block, page_name

WORKER = Path(__file__).with_name("page_worker.py")
TIMEOUT = 900  # seconds of a block
END_TIMEOUT = 60
MAX_OUTPUT = 4000  # characters in an error
# `-a` exports every variable, so that later blocks have the variables of earlier ones.
BASH = """set -aeuo pipefail
[ ! -e {state} ] || . {state}
{text}
{{ export -p; printf 'cd %q\\n' "$PWD"; }} >{state}
"""


class BlockError(AssertionError):
    """Raised when a block of a page fails; names the page and the line."""


class PageRunner(ExitStack):
    """Runs the blocks of one page; a context manager, which ends the page's process.

    `bash` blocks share variables and the working folder; `python` and `sql` blocks share a process.

    Args:
        page: for errors.
        folder: in which the blocks run; log and variables are written beside it.
    """

    def __init__(self, page: Path, folder: Path) -> None:
        super().__init__()
        self._page, self._folder = page, folder
        self._log, self._state = (
            folder.with_name(f"{folder.name}.{name}") for name in ("log", "state")
        )
        self._state.unlink(missing_ok=True)

    def run(self, blocks: Sequence[Block]) -> None:
        """Run blocks in their order.

        Raises:
            BlockError: for the first block that fails.
        """
        for block in blocks:
            self._log.write_bytes(b"")  # the processes append to it
            run = self._run_bash if block.language == "bash" else self._run_in_worker
            if problem := run(block):
                place = f"{page_name(self._page)}:{block.line}: {block.language}"
                output = self._log.read_text(encoding="utf-8", errors="replace")[-MAX_OUTPUT:]
                raise BlockError(f"{place}: {problem}\n{output}")

    def _run_bash(self, block: Block) -> str:
        """Run a block; return its problem, or nothing."""
        script = BASH.format(text=block.text, state=shlex.quote(str(self._state)))
        process = self._start("/bin/bash", "-c", script)
        try:
            code = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"no end after {TIMEOUT} s"
        return f"exit code {code}" if code else ""

    def _run_in_worker(self, block: Block) -> str:
        """Run a block; return its problem, or nothing."""
        requests, replies = self._worker.stdin, self._worker.stdout
        assert requests is not None
        assert replies is not None
        request = (block.language, block.text, block.line, str(self._page))
        print(json.dumps(request), file=requests, flush=True)
        if not select([replies], [], [], TIMEOUT)[0]:
            _kill(self._worker)
            return f"no end after {TIMEOUT} s"
        reply = replies.readline()
        return json.loads(reply) if reply else "the process of the page has ended"

    @cached_property
    def _worker(self) -> subprocess.Popen[str]:
        """The process of the `python` and `sql` blocks; the first of them starts it."""
        worker = self._start(sys.executable, "-u", str(WORKER), pipes=True)
        self.callback(_end, worker)
        return worker

    def _start(self, *command: str, pipes: bool = False) -> subprocess.Popen[str]:
        programs = str(Path(sys.executable).parent)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                env={
                    **os.environ,
                    "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                    "SPARK_LOCAL_IP": "127.0.0.1",
                },
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                text=True,
                start_new_session=True,  # without a terminal: no progress line
            )


def _end(worker: subprocess.Popen[str]) -> None:
    """Close the standard input of a worker, which ends it; kill one that does not end."""
    try:
        worker.communicate(timeout=END_TIMEOUT)
    except subprocess.TimeoutExpired:
        _kill(worker)
        worker.communicate()


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads its session, and all that it started in it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(END_TIMEOUT)
