"""A few cells of the fault matrix; `make faults` runs all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eagle_spark.testing.failpoints import FAILPOINTS, IN_A_TASK
from tests.chaos.fault_jobs import Sandbox
from tests.chaos.fault_ready import prepare
from tests.chaos.fault_strikes import FAULTS
from tests.chaos.matrix import Cell, Outcome, cells, describe, page, run_trial

DRIVER = "driver SIGKILL"


@pytest.mark.extended("five runs of a job", seconds=70)
@pytest.mark.spark
@pytest.mark.train
@pytest.mark.parametrize(
    ("job", "step"),
    [
        ("preprocess", "publishing"),
        ("score", "audited"),
        ("put", "written"),
    ],
)
def test_a_run_after_a_killed_driver_ends_like_an_undisturbed_run(
    job: str,
    step: str,
    spark: Any,
    model_folder: Path,
    tmp_path: Path,
) -> None:
    sandbox = Sandbox(tmp_path, model_folder, spark)
    outcome = run_trial(Cell(job, DRIVER, step, "local"), sandbox, prepare(sandbox, job, "local"))
    assert outcome.good, outcome
    assert outcome.codes == [-9, 0]


def test_every_job_has_a_cell_or_a_reason_for_every_fault() -> None:
    pairs = {(cell.job, cell.fault) for cell in cells()}
    empty = {(job, name) for name, fault in FAULTS.items() for job in fault.empty}
    assert not pairs & empty
    assert len(pairs | empty) == 12 * 5
    assert {cell.step for cell in cells()} == {*FAILPOINTS, IN_A_TASK}


def outcome(**changes: Any) -> Outcome:
    where = {"job": "put", "fault": DRIVER, "step": "written", "place": "hdfs"}
    what = {"struck": True, "codes": [-9, 0], "said": "", "same": True, "seen": {"whole": 3}}
    return Outcome(**{**where, **what, "seconds": 1.0, "commit": "abc", **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "ok (-9, 0)"),
        ({"struck": False}, "NOT STRUCK (-9, 0)"),
        ({"same": False}, "ANOTHER RESULT (-9, 0)"),
        ({"seen": {"whole": 3, "half: {'images': 7}": 1}}, "HALF SEEN (-9, 0)"),
        ({"seen": {"no answer: gone": 9}}, "HALF SEEN (-9, 0)"),
        ({"seen": {"whole": 3, "no answer: gone": 1}}, "HALF SEEN (-9, 0)"),
        ({"fault": "NameNode restart", "seen": {"whole": 3, "no answer: gone": 1}}, "ok (-9, 0)"),
        ({"codes": [1, None, 1, 1]}, "NEVER DONE (1, ended, 1, 1)"),
        ({"codes": [0, 2]}, "NEVER DONE (0, 2)"),
        ({"job": "train", "codes": [0, 2]}, "ok (0, 2)"),
    ],
)
def test_an_outcome_is_described(changes: dict[str, Any], text: str) -> None:
    changed = outcome(**changes)
    assert describe(changed) == text
    assert changed.good == (text[:2] == "ok")
    assert text in page([changed])
