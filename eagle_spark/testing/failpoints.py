"""Where a job stands still for somebody who tries out what a fault does to it.

`EAGLE_STEPS` names a folder. A job that reaches a step for which there is an empty file of that
name writes its process id into the file and waits until the file is gone. Without the variable a
step costs one look into the environment. A fifth step, `in a task`, is one of Python workers: those
of preprocess and score stand there with files that they have not read yet.

| job | before write | written | audited | publishing |
|---|---|---|---|---|
| preprocess | input is listed | rows of `images` are on their branch | sums and splits were checked, `rejects` are on their branch too | `images` has its new rows, `rejects` not yet |
| train | features are there, no rank has begun | the model is in the staging folder | it was judged, nobody can see anything of it | `epochs`, `metrics` and `runs` have its rows, its folder is not there yet |
| score | files are listed and compared | every file has its row on the branch | sums were checked | `main` has moved, the branch is still there |
| maintain | no table was touched | old snapshots of one table are gone, of others not | all are gone | one table is compacted, others are not |
| `hadoop/put` | nothing is there | a file's last byte is written, under its hidden name | every length was checked | one file has its name, others are to follow |

Publishing comes before the audit in `hadoop/put`: each file is published for itself.
"""  # noqa: E501 - a table

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from eagle_spark.errors import EagleError

STEPS = ("before write", "written", "audited", "publishing")
IN_A_TASK = "in a task"
VARIABLE = "EAGLE_STEPS"
PATIENCE = 600.0  # seconds
_PAUSE = 0.02


def reached(step: str) -> None:
    """Stand still here if somebody has asked for it.

    Raises:
        EagleError: when nobody lets the job go within `PATIENCE` seconds.
    """
    if folder := os.environ.get(VARIABLE):
        _stand(Path(folder, step))


def _stand(file: Path) -> None:
    try:
        with file.open("r+") as asked:  # r+: a file that nobody made is not made
            asked.write(str(os.getpid()))
            asked.truncate()  # of several workers the last one counts
    except FileNotFoundError:
        return
    deadline = time.monotonic() + PATIENCE
    while file.exists():
        if time.monotonic() > deadline:
            with suppress(OSError):
                file.unlink()
            raise EagleError(f"stood at {file} for {PATIENCE:.0f} s, and nobody took it away")
        time.sleep(_PAUSE)
