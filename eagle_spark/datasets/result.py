"""The figures of a run of preprocess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PreprocessResult:
    """The figures of a run: the JSON line of the job, and `result` in the table `runs`.

    `listed == accepted + rejected`.

    Attributes:
        listed: files and workbook rows without a file.
        accepted: accepted files.
        rejected: rejected files and workbook rows.
        left_out: files of the folder outside of the layout.
        by_class: class -> accepted images.
        by_split: split -> accepted images.
        by_reason: `Reason` -> rejected files and workbook rows.
        masks: accepted images with a mask.
        without_metadata: accepted images without a workbook row.
        new_or_changed: accepted images whose rows were written.
        audited: accepted rows of the whole table.
        snapshot_id: published snapshot of the table `images`.
        run_id: id of this run.
        seconds: wall time.
        stage_seconds: stage -> wall time.
    """

    listed: int
    accepted: int
    rejected: int
    left_out: int
    by_class: Mapping[str, int]
    by_split: Mapping[str, int]
    by_reason: Mapping[str, int]
    masks: int
    without_metadata: int
    new_or_changed: int
    audited: int
    snapshot_id: int | None
    run_id: str
    seconds: float
    stage_seconds: Mapping[str, float]
