"""The audit of a run of preprocess: the rows of its branch, and their splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from eagle_spark.datasets.changes import Changes
from eagle_spark.datasets.layout import Layout
from eagle_spark.datasets.leakage import SPLIT_COLUMNS, audit_splits
from eagle_spark.datasets.matching import Candidate
from eagle_spark.datasets.result import PreprocessResult
from eagle_spark.datasets.split import SPLITS
from eagle_spark.datasets.write import IngestRun
from eagle_spark.errors import AuditError
from eagle_spark.tables import ACCEPTED, StageTimer

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame


def audit_run(
    context: IngestRun,
    timer: StageTimer,
    candidates: Sequence[Candidate],
    layout: Layout,
    changes: Changes,
    facts: pd.DataFrame | None,
    rows: DataFrame,
) -> PreprocessResult:
    """Check the branch of `images`; return the figures of the run.

    Args:
        context: of the run.
        timer: of the run.
        candidates: entries of the folder.
        layout: of the folder.
        changes: that were written.
        facts: `SPLIT_COLUMNS` of all accepted rows of the branch; None takes them from `rows`.
        rows: of the branch.

    Raises:
        AuditError: when the number of rows is wrong.
        SplitLeakageError: when related images are in several splits.
    """
    run, accepted, rejections = context.run, changes.accepted, changes.rejections
    if facts is None:
        facts = rows.where(ACCEPTED).select(*SPLIT_COLUMNS).toPandas()
    wanted = len(context.present) - len(changes.removed) + len(changes.written)
    if not len(facts) == facts["path"].nunique() == wanted:
        raise AuditError(
            f"images: wanted {wanted} rows on the branch; got {len(facts)} rows of "
            f"{facts['path'].nunique()} paths"
        )
    remedy = "Nothing was published."
    if run.settings.split_file:
        remedy += f" Correct `split_file` {run.settings.split_file}"
    audit_splits(facts, "the table images", remedy)
    with_row = {entry.uri for entry in candidates if entry.has_metadata}
    return PreprocessResult(
        listed=len(candidates),
        accepted=len(accepted),
        rejected=len(rejections),
        left_out=sum(layout.unused_files.values()),
        by_class=_count(accepted["label"]),
        by_split={split: int((accepted["split"] == split).sum()) for split in SPLITS},
        by_reason=_count(rejection.reason for rejection in rejections),
        masks=int((accepted["mask_hash"] != 0).sum()),
        without_metadata=sum(path not in with_row for path in accepted["path"]),
        new_or_changed=len(changes.written),
        audited=len(facts),
        snapshot_id=None,
        run_id=run.run_id,
        seconds=run.seconds,
        stage_seconds=dict(timer.seconds),
    )


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
