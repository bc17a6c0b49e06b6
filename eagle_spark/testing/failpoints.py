"""Failpoints: named points where a job pauses so that a test can inject a fault.

`EAGLE_STEPS` names a folder. At a failpoint with an empty file of its name in the folder, the job
writes its process id into the file and waits until the file is deleted. Without the variable a
failpoint costs one lookup in the environment. A fifth failpoint, `in a task`, pauses Python workers
of preprocess and score that hold unread files.

| job | before write | written | audited | publishing |
|---|---|---|---|---|
| preprocess | input is listed | rows of `images` are on their branch | sums and splits are checked | `main` has moved, the branch is dropped, `runs` has no row |
| train | features exist, no rank has started | the model is in the staging folder | the model is evaluated, not visible | `epochs`, `metrics` and `runs` have its rows, its folder does not exist yet |
| score | files are listed and compared | every file has its row on the branch | sums are checked | `main` has moved, the branch is dropped, `runs` has no row |
| maintain | no table is changed | old snapshots of one table are deleted, of others not | all are deleted | one table is compacted, others are not |
| `hadoop/put` | no file is uploaded | the last byte of a file is written, under its hidden name | every length is checked | one file has its name, others not yet |

`hadoop/put` publishes before the audit, because it publishes each file separately.
"""  # noqa: E501 - a table

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from eagle_spark.errors import EagleError

FAILPOINTS = ("before write", "written", "audited", "publishing")
IN_A_TASK = "in a task"
ENV_VARIABLE = "EAGLE_STEPS"
MAX_WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.02


def failpoint(name: str) -> None:
    """Pause here if a test has activated this failpoint.

    Raises:
        EagleError: when the file still exists after `MAX_WAIT_SECONDS`.
    """
    if folder := os.environ.get(ENV_VARIABLE):
        _wait_for_deletion(Path(folder, name))


def _wait_for_deletion(file: Path) -> None:
    try:
        with file.open("r+") as stream:  # r+: does not create the file
            stream.write(str(os.getpid()))
            stream.truncate()  # the last of several workers counts
    except FileNotFoundError:
        return
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while file.exists():
        if time.monotonic() > deadline:
            with suppress(OSError):
                file.unlink()
            raise EagleError(
                f"failpoint {file}: wanted its deletion within {MAX_WAIT_SECONDS:.0f} s; got none"
            )
        time.sleep(_POLL_SECONDS)
